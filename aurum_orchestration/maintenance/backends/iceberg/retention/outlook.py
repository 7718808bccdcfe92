"""How many snapshots may go now, told cheaply for thousands of tables: asked anew only when that can have changed.

Nearly all histories are a plain line, which main leads to and nothing else: of these only the times are kept.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from aurum_orchestration.maintenance.backends.iceberg.retention.expiry import (
    EXPIRE_PROPERTIES,
    MAIN,
    Ref,
    Rules,
    expirable,
    next_change,
)
from aurum_orchestration.maintenance.operations.retention import RetentionParameters

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.iceberg import metadata

_NO_PARENT = -1


class Moment(NamedTuple):
    """A snapshot in a table's history."""

    snapshot_id: int
    parent_snapshot_id: int | None
    timestamp_ms: int


class Tree(msgspec.Struct, frozen=True, gc=False):
    """Snapshots of a history that is no plain line: ids and parents in the table's order, and the refs."""

    ids: array[int]
    parents: array[int]
    refs: Mapping[str, Ref]


class History(msgspec.Struct, frozen=True, gc=False):
    """What of a table's metadata decides which snapshots may go.

    ``times``: when the snapshots were committed, in the table's order. ``tree`` None: each is the parent of the
    next, none is older than the one before, and main, without settings of its own, is the only ref and stands at
    the last. ``expired``: the parent of the oldest is gone, so the table is older than its history.
    """

    times: array[int]
    tree: Tree | None
    properties: Mapping[str, str] | None
    expired: bool

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest snapshot was committed, None without any."""
        if self.tree is None:
            return self.times[0] if self.times else None
        return min(self.times, default=None)


class Outlook(NamedTuple):
    """How many snapshots may go, and until when (milliseconds since 1970) that stays true if nobody commits."""

    expirable: int
    until_ms: float


NOTHING = Outlook(0, float("inf"))


def history_of(metadata: metadata.Metadata) -> History:
    """The history that a metadata file tells."""
    snapshots = metadata.snapshots or []
    ids = [one.snapshot_id for one in snapshots]
    parents = [_NO_PARENT if one.parent_snapshot_id is None else one.parent_snapshot_id for one in snapshots]
    times = [one.timestamp_ms for one in snapshots]
    refs = metadata.refs or {}
    given: Mapping[str, Any] = metadata.properties or {}
    properties = {name: str(given[name]) for name in EXPIRE_PROPERTIES if name in given} or None
    plain = (
        _only_main(refs)
        and (not ids or ids[-1] == metadata.current_snapshot_id)
        and parents[1:] == ids[:-1]
        and times == sorted(times)
    )
    if plain:
        return History(array("q", times), None, properties, bool(parents) and parents[0] != _NO_PARENT)
    oldest = times.index(min(times)) if times else None
    tree = Tree(array("q", ids), array("q", parents), _refs(refs, metadata.current_snapshot_id))
    return History(array("q", times), tree, properties, oldest is not None and parents[oldest] != _NO_PARENT)


def _only_main(refs: Mapping[str, metadata.Ref]) -> bool:
    if not refs:
        return True
    main = refs.get(MAIN)
    return (
        len(refs) == 1 and main is not None and main.min_snapshots_to_keep is None and main.max_snapshot_age_ms is None
    )


def _refs(refs: Mapping[str, metadata.Ref], current: int | None) -> dict[str, Ref]:
    found = {
        name: Ref(
            ref.snapshot_id,
            ref.type.lower() == "branch",
            ref.min_snapshots_to_keep,
            ref.max_snapshot_age_ms,
            ref.max_ref_age_ms,
        )
        for name, ref in refs.items()
    }
    if MAIN not in found and current is not None and current != _NO_PARENT:
        found[MAIN] = Ref(current, True)
    return found


def outlook(history: History, policy: RetentionParameters, now_ms: int) -> Outlook:
    """How many snapshots may go under a policy."""
    if len(history.times) < 2:
        return NOTHING
    rules = Rules.of(history.properties or {}, policy.retention_days, policy.retain_last)
    if history.tree is None:
        return _of_line(history.times, rules, now_ms)
    tree = history.tree
    snapshots = [
        Moment(id_, None if parent == _NO_PARENT else parent, when)
        for id_, parent, when in zip(tree.ids, tree.parents, history.times, strict=True)
    ]
    change = next_change(snapshots, tree.refs, rules, now_ms)
    gone = expirable(snapshots, tree.refs, rules, now_ms)
    return Outlook(len(gone.snapshots), float("inf") if change is None else change)


def _of_line(times: array[int], rules: Rules, now_ms: int) -> Outlook:
    most = len(times) - max(1, rules.min_snapshots_to_keep)
    if most <= 0:
        return NOTHING
    old = bisect_left(times, now_ms - rules.max_snapshot_age_ms)
    return Outlook(most, float("inf")) if old >= most else Outlook(old, times[old] + rules.max_snapshot_age_ms + 1)
