"""Which snapshots Trino's ``expire_snapshots`` takes, and the age to give it so that it takes none that has to stay.

Trino passes one age on to Apache Iceberg; newer versions take "keep the last N" as well, which then stands for the
table's own number. An age longer in the table's properties does not hold against it. So the rules are ours (see
:mod:`~aurum_orchestration.maintenance.backends.iceberg.retention.expiry`), and the statement gets the moment
at which Iceberg's own rules take only what ours let go. Pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from aurum_orchestration.maintenance.backends.iceberg.retention.expiry import (
    MAIN,
    MAX_REF_AGE,
    MIN_SNAPSHOTS,
    Expiry,
    Ref,
    Rules,
    SnapshotLike,
    expirable,
)

ROUNDING_MS = 1
"""Trino's clock as SQL shows it is rounded, what it counts ages by is cut off: the moment may be off by so much."""

LATER_MS = 60_000
"""Refs' own ages count from when Trino works: what would go so much later has to be allowed as well."""


class Threshold(NamedTuple):
    """The moment before which Trino expires (milliseconds since 1970), and what goes then at least."""

    cutoff_ms: int
    expiry: Expiry


def threshold(  # noqa: PLR0917 - a table's history in its parts
    snapshots: Sequence[SnapshotLike],
    refs: Mapping[str, Ref],
    allowed: Expiry,
    properties: Mapping[str, str],
    now_ms: int,
    least_age_ms: int,
) -> Threshold | None:
    """The latest moment, at least ``least_age_ms`` ago, at which Trino takes only what is allowed; None: there is none.

    ``now_ms`` is the time by Trino's own clock.
    """
    latest = now_ms - least_age_ms
    ages = {one.timestamp_ms + 1 + ROUNDING_MS for one in snapshots if one.timestamp_ms + ROUNDING_MS < latest}
    moments = sorted({0, *ages})
    snapshots_allowed, refs_allowed = set(allowed.snapshots), set(allowed.refs)

    def too_late(moment: int) -> bool:
        worst = taken(snapshots, refs, properties, moment + ROUNDING_MS, now_ms + LATER_MS)
        return not (snapshots_allowed.issuperset(worst.snapshots) and refs_allowed.issuperset(worst.refs))

    safe = bisect_left(moments, True, key=too_late)  # the later the moment, the more goes
    if not safe:
        return None
    now = taken(snapshots, refs, properties, moments[safe - 1] - ROUNDING_MS, now_ms)
    return Threshold(moments[safe - 1], now) if now.snapshots or now.refs else None


class Surplus(NamedTuple):
    """Snapshots that went beside the planned ones: ``ours`` a statement may have taken, ``others`` it cannot have."""

    ours: frozenset[int]
    others: frozenset[int]


def surplus(  # noqa: PLR0917 - a table's history in its parts
    gone: Iterable[int],
    before: Sequence[SnapshotLike],
    after: Sequence[SnapshotLike],
    refs: Mapping[str, Ref],
    properties: Mapping[str, str],
    rules: Rules,
    cutoff_ms: int,
    now_ms: int,
) -> Surplus:
    """What of ``gone`` the rules still keep, by the table as it is after the statement; ``now_ms`` is from before it.

    While a statement waits others commit, so that more may go by the same rules, and expire snapshots themselves.
    """
    known = list({one.snapshot_id: one for one in (*before, *after)}.values())
    wrong = set(gone) - set(expirable(known, refs, rules, now_ms).snapshots)
    young = {one.snapshot_id for one in known if one.timestamp_ms >= cutoff_ms + ROUNDING_MS}
    # a branch with an age of its own loses younger ones, too
    within_reach = set(taken(known, refs, properties, cutoff_ms + ROUNDING_MS, now_ms + LATER_MS).snapshots)
    others = (wrong & young) - within_reach
    return Surplus(frozenset(wrong - others), frozenset(others))


def statement(name: str, cutoff_ms: int, retain_last: int | None = None) -> str:
    """The statement that expires at a moment: Trino itself makes the age of it, whenever it gets to it.

    ``name`` is the table's quoted name, ``retain_last`` None for a Trino that takes no number of snapshots to keep.
    """
    age = f"CAST(CAST(to_unixtime(current_timestamp) * 1000 AS bigint) - {cutoff_ms} AS varchar) || 'ms'"
    last = f", retain_last => {retain_last}" if retain_last is not None else ""
    return f"ALTER TABLE {name} EXECUTE expire_snapshots(retention_threshold => {age}{last})"


def taken(
    snapshots: Sequence[SnapshotLike],
    refs: Mapping[str, Ref],
    properties: Mapping[str, str],
    cutoff_ms: int,
    now_ms: int,
) -> Expiry:
    """What Apache Iceberg expires when told to expire what is older than ``cutoff_ms``."""
    known = {snapshot.snapshot_id: snapshot for snapshot in snapshots}
    least = int(properties.get(MIN_SNAPSHOTS, 1))
    ref_age = int(properties[MAX_REF_AGE]) if MAX_REF_AGE in properties else None
    gone = tuple(name for name, ref in refs.items() if name != MAIN and _goes(ref, known, ref_age, now_ms))
    kept: set[int] = set()
    referenced: set[int] = set()
    for name, ref in refs.items():
        if name in gone:
            continue
        kept.add(ref.snapshot_id)
        referenced.add(ref.snapshot_id)
        if ref.branch:
            line = list(_line(ref.snapshot_id, known))
            referenced.update(snapshot.snapshot_id for snapshot in line)
            kept.update(_kept(line, ref, least, cutoff_ms, now_ms))
    kept.update(
        snapshot.snapshot_id
        for snapshot in snapshots
        if snapshot.snapshot_id not in referenced and snapshot.timestamp_ms >= cutoff_ms
    )
    return Expiry(tuple(id_ for id_ in known if id_ not in kept), gone)


def _kept(line: Sequence[SnapshotLike], ref: Ref, least: int, cutoff_ms: int, now_ms: int) -> Iterator[int]:
    """Of a branch, newest first, up to the first one that is too old."""
    oldest = cutoff_ms if ref.max_snapshot_age_ms is None else now_ms - ref.max_snapshot_age_ms
    most = least if ref.min_snapshots_to_keep is None else ref.min_snapshots_to_keep
    for position, snapshot in enumerate(line):
        if position >= most and snapshot.timestamp_ms < oldest:
            return
        yield snapshot.snapshot_id


def _line(head: int, known: Mapping[int, SnapshotLike]) -> Iterator[SnapshotLike]:
    current: int | None = head
    while current is not None and current in known:
        yield known[current]
        current = known[current].parent_snapshot_id


def _goes(ref: Ref, known: Mapping[int, SnapshotLike], ref_age: int | None, now_ms: int) -> bool:
    """Refs past their age go, and refs to a snapshot that is not there."""
    age = ref_age if ref.max_ref_age_ms is None else ref.max_ref_age_ms
    if ref.snapshot_id not in known:
        return True
    return age is not None and now_ms - known[ref.snapshot_id].timestamp_ms > age
