"""Which snapshots and refs may go. Pure, and the same rules for measuring and for planning.

The rules are Apache Iceberg's: a branch keeps of its ancestors the newest ``min-snapshots-to-keep`` and all
that are not older than ``max-snapshot-age-ms``; a tag keeps its snapshot; a ref whose snapshot is older than
``max-ref-age-ms`` goes (never main); a snapshot that no ref leads to goes when it is older than the table's
age. One thing differs: where clocks disagreed, Apache Iceberg stops at the first ancestor that is too old,
and takes younger ones behind it along.

A ref's own settings come first. For the others the longer of two holds: what is asked for, and what the
table's properties ``history.expire.*`` say. So neither can shorten what the other protects.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

MAIN = "main"
DAY_MS = 86_400_000

MAX_SNAPSHOT_AGE = "history.expire.max-snapshot-age-ms"
MIN_SNAPSHOTS = "history.expire.min-snapshots-to-keep"
MAX_REF_AGE = "history.expire.max-ref-age-ms"
EXPIRE_PROPERTIES = (MAX_SNAPSHOT_AGE, MIN_SNAPSHOTS, MAX_REF_AGE)


class SnapshotLike(Protocol):
    """What of a snapshot decides: PyIceberg's and the measurer's both have it."""

    @property
    def snapshot_id(self) -> int:
        """Its id."""
        ...

    @property
    def parent_snapshot_id(self) -> int | None:
        """Its parent's id, None for the first of its line."""
        ...

    @property
    def timestamp_ms(self) -> int:
        """When it was committed, by its writer's clock."""
        ...


class Ref(NamedTuple):
    """A branch or tag with its own retention, in milliseconds; None where it has none."""

    snapshot_id: int
    branch: bool
    min_snapshots_to_keep: int | None = None
    max_snapshot_age_ms: int | None = None
    max_ref_age_ms: int | None = None


class Rules(NamedTuple):
    """What holds for refs without settings of their own. ``max_ref_age_ms`` None: they never go."""

    max_snapshot_age_ms: int
    min_snapshots_to_keep: int
    max_ref_age_ms: int | None

    @classmethod
    def of(cls, properties: Mapping[str, str], retention_days: float, retain_last: int) -> Rules:
        """The rules of a table with these properties when so much is asked to be kept."""
        return cls(
            max(int(retention_days * DAY_MS), _number(properties, MAX_SNAPSHOT_AGE) or 0),
            max(retain_last, _number(properties, MIN_SNAPSHOTS) or 0),
            _number(properties, MAX_REF_AGE),
        )


@dataclass(frozen=True, slots=True)
class Expiry:
    """What may go, in the table's order: ids of snapshots, names of refs."""

    snapshots: tuple[int, ...]
    refs: tuple[str, ...]


def expirable(snapshots: Sequence[SnapshotLike], refs: Mapping[str, Ref], rules: Rules, now_ms: int) -> Expiry:
    """What may go at a moment. A ref to a snapshot that is not there stays as it is."""
    known = {snapshot.snapshot_id: snapshot for snapshot in snapshots}
    gone = tuple(name for name, ref in refs.items() if name != MAIN and _too_old(ref, known, rules, now_ms))
    kept: set[int] = set()
    referenced: set[int] = set()
    for name, ref in refs.items():
        if name in gone:
            continue
        kept.add(ref.snapshot_id)
        if ref.branch:
            line = list(_ancestors(ref.snapshot_id, known))
            referenced.update(snapshot.snapshot_id for snapshot in line)
            kept.update(_kept_of_branch(line, ref, rules, now_ms))
    oldest = now_ms - rules.max_snapshot_age_ms
    loose = (
        snapshot.snapshot_id
        for snapshot in snapshots
        if snapshot.snapshot_id not in referenced and snapshot.timestamp_ms >= oldest
    )
    kept.update(loose)
    return Expiry(tuple(id_ for id_ in known if id_ not in kept), gone)


def next_change(snapshots: Sequence[SnapshotLike], refs: Mapping[str, Ref], rules: Rules, now_ms: int) -> int | None:
    """The earliest moment after ``now_ms`` at which more may go though nobody commits; None: never.

    It may be too early (a snapshot that is old enough may be kept for another reason), never too late.
    """
    ages = {rules.max_snapshot_age_ms, *(ref.max_snapshot_age_ms for ref in refs.values())} - {None}
    ref_ages = {rules.max_ref_age_ms, *(ref.max_ref_age_ms for ref in refs.values())} - {None}
    moments = (snapshot.timestamp_ms + age + 1 for snapshot in snapshots for age in ages | ref_ages if age is not None)
    return min((moment for moment in moments if moment > now_ms), default=None)


def _kept_of_branch(line: Sequence[SnapshotLike], ref: Ref, rules: Rules, now_ms: int) -> Iterator[int]:
    age = rules.max_snapshot_age_ms if ref.max_snapshot_age_ms is None else ref.max_snapshot_age_ms
    least = rules.min_snapshots_to_keep if ref.min_snapshots_to_keep is None else ref.min_snapshots_to_keep
    for position, snapshot in enumerate(line):
        if position < least or snapshot.timestamp_ms >= now_ms - age:
            yield snapshot.snapshot_id


def _ancestors(head: int, known: Mapping[int, SnapshotLike]) -> Iterator[SnapshotLike]:
    """The snapshot and its ancestors as far as they are known, newest first."""
    current: int | None = head
    seen: set[int] = set()
    while current is not None and current in known and current not in seen:
        seen.add(current)
        yield known[current]
        current = known[current].parent_snapshot_id


def _too_old(ref: Ref, known: Mapping[int, SnapshotLike], rules: Rules, now_ms: int) -> bool:
    age = rules.max_ref_age_ms if ref.max_ref_age_ms is None else ref.max_ref_age_ms
    return age is not None and ref.snapshot_id in known and known[ref.snapshot_id].timestamp_ms < now_ms - age


def wrong_property(properties: Mapping[str, str]) -> str | None:
    """The first of the expiry properties that is no whole number: what it means to protect is not known."""
    return next((name for name in EXPIRE_PROPERTIES if name in properties and _number(properties, name) is None), None)


def _number(properties: Mapping[str, str], name: str) -> int | None:
    """A property as a whole number; None when it is absent or none."""
    if name not in properties:
        return None
    text = str(properties[name]).strip()
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else None
