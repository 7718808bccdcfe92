"""How many snapshots may go now, told cheaply for thousands of tables: asked anew only when that can have changed."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
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
    from aurum_orchestration.maintenance.backends.iceberg.metadata import Metadata

_NO_PARENT = -1
_NUMBERS = 3


class Moment(NamedTuple):
    """A snapshot in a table's history."""

    snapshot_id: int
    parent_snapshot_id: int | None
    timestamp_ms: int


class History(msgspec.Struct, frozen=True, gc=False):
    """What of a table's metadata decides which snapshots may go. ``numbers``: three for each snapshot.

    ``oldest_ms``: when the oldest snapshot was committed, None without any. ``expired``: its parent is gone, so
    the table is older than its history.
    """

    numbers: array[int]
    refs: Mapping[str, Ref]
    properties: Mapping[str, str]
    oldest_ms: int | None
    expired: bool

    def snapshots(self) -> Iterator[Moment]:
        """The snapshots, in the table's order."""
        numbers = iter(self.numbers)
        for id_, parent, when in zip(numbers, numbers, numbers, strict=True):
            yield Moment(id_, None if parent == _NO_PARENT else parent, when)


class Outlook(NamedTuple):
    """How many snapshots may go, and until when (milliseconds since 1970) that stays true if nobody commits."""

    expirable: int
    until_ms: float


NOTHING = Outlook(0, float("inf"))


def history_of(metadata: Metadata) -> History:
    """The history that a metadata file tells."""
    snapshots = metadata.snapshots or []
    numbers = array("q")
    for snapshot in snapshots:
        parent = snapshot.parent_snapshot_id
        numbers.extend((snapshot.snapshot_id, _NO_PARENT if parent is None else parent, snapshot.timestamp_ms))
    refs = {
        name: Ref(
            ref.snapshot_id,
            ref.type.lower() == "branch",
            ref.min_snapshots_to_keep,
            ref.max_snapshot_age_ms,
            ref.max_ref_age_ms,
        )
        for name, ref in (metadata.refs or {}).items()
    }
    current = metadata.current_snapshot_id
    if MAIN not in refs and current is not None and current != _NO_PARENT:
        refs[MAIN] = Ref(current, True)
    given: Mapping[str, Any] = metadata.properties or {}
    properties = {name: str(given[name]) for name in EXPIRE_PROPERTIES if name in given}
    oldest = min(snapshots, key=lambda one: one.timestamp_ms, default=None)
    if oldest is None:
        return History(numbers, refs, properties, None, False)
    return History(numbers, refs, properties, oldest.timestamp_ms, oldest.parent_snapshot_id not in {None, _NO_PARENT})


def outlook(history: History, policy: RetentionParameters, now_ms: int) -> Outlook:
    """How many snapshots may go under a policy."""
    if len(history.numbers) <= _NUMBERS:
        return NOTHING
    rules = Rules.of(history.properties, policy.retention_days, policy.retain_last)
    snapshots = list(history.snapshots())
    change = next_change(snapshots, history.refs, rules, now_ms)
    gone = expirable(snapshots, history.refs, rules, now_ms)
    return Outlook(len(gone.snapshots), float("inf") if change is None else change)
