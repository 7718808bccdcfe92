"""What measuring says about expiry is what planning would find, at that moment and until it says it may change."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from aurum_orchestration.maintenance.backends.iceberg.metadata import Metadata, Ref, Snapshot
from aurum_orchestration.maintenance.backends.iceberg.retention.expiry import (
    MAIN,
    MAX_SNAPSHOT_AGE,
    MIN_SNAPSHOTS,
    Rules,
    expirable,
)
from aurum_orchestration.maintenance.backends.iceberg.retention.expiry import Ref as RuleRef
from aurum_orchestration.maintenance.backends.iceberg.retention.outlook import history_of, outlook
from aurum_orchestration.maintenance.operations.retention import RetentionParameters

HOUR = 3_600_000
POLICY = RetentionParameters(retention_days=1, retain_last=2)
ages = st.none() | st.integers(0, 60).map(lambda hours: hours * HOUR)


@st.composite
def metadata(draw: st.DrawFn) -> Metadata:
    """Mostly lines, with the first parent gone or not; sometimes branches, clocks that went back, other refs."""
    count = draw(st.integers(0, 8))
    times = draw(st.lists(st.integers(0, 72), min_size=count, max_size=count))
    if draw(st.booleans()):
        times.sort()
    snapshots = [Snapshot(number, when * HOUR, number - 1 or None) for number, when in enumerate(times, 1)]
    if draw(st.booleans()) and snapshots:
        snapshots[0].parent_snapshot_id = draw(st.sampled_from([-1, 99]))
    for one in snapshots:
        if draw(st.integers(0, 9)) == 0:
            one.parent_snapshot_id = draw(st.none() | st.integers(1, count))
    numbers = st.integers(1, max(1, count))
    refs: dict[str, Ref] = {}
    for name in draw(st.lists(st.sampled_from(["work", "audit"]), max_size=2, unique=True)):
        kind = draw(st.sampled_from(["branch", "tag"]))
        refs[name] = Ref(draw(numbers), kind, draw(st.none() | st.integers(1, 3)), draw(ages), draw(ages))
    current = count if draw(st.booleans()) else draw(numbers)
    if count and draw(st.booleans()):
        settings_of_its_own = draw(st.booleans())
        refs[MAIN] = Ref(current, "branch", *((2, draw(ages)) if settings_of_its_own else ()))
    properties: dict[str, Any] = {}
    if draw(st.integers(0, 3)) == 0:
        properties = {MIN_SNAPSHOTS: "3", MAX_SNAPSHOT_AGE: str(30 * HOUR)}
    return Metadata(
        format_version=2,
        last_updated_ms=0,
        current_snapshot_id=current if count else None,
        snapshots=snapshots,
        refs=refs or None,
        properties=properties,
    )


def planned(given_metadata: Metadata, now_ms: int) -> int:
    """The number that planning would find: the rules themselves, on everything."""
    refs = {
        name: RuleRef(
            one.snapshot_id,
            one.type == "branch",
            one.min_snapshots_to_keep,
            one.max_snapshot_age_ms,
            one.max_ref_age_ms,
        )
        for name, one in (given_metadata.refs or {}).items()
    }
    if given_metadata.current_snapshot_id is not None:
        refs.setdefault(MAIN, RuleRef(given_metadata.current_snapshot_id, True))
    rules = Rules.of(given_metadata.properties or {}, POLICY.retention_days, POLICY.retain_last)
    return len(expirable(given_metadata.snapshots or [], refs, rules, now_ms).snapshots)


@settings(max_examples=300, deadline=None)
@given(metadata(), st.integers(0, 130))
def test_as_many_as_planning_would_expire(given_metadata: Metadata, hour: int) -> None:
    history = history_of(given_metadata)
    now = hour * HOUR
    found = outlook(history, POLICY, now)
    assert found.expirable == planned(given_metadata, now)
    for later in range(hour + 1, 200):
        if later * HOUR < found.until_ms:
            assert planned(given_metadata, later * HOUR) == found.expirable


@given(metadata())
def test_the_oldest_and_whether_there_were_older_ones(given_metadata: Metadata) -> None:
    history = history_of(given_metadata)
    snapshots = given_metadata.snapshots or []
    oldest = min(snapshots, key=lambda one: one.timestamp_ms, default=None)
    assert history.oldest_ms == (None if oldest is None else oldest.timestamp_ms)
    assert history.expired == (oldest is not None and oldest.parent_snapshot_id not in {None, -1})


def test_a_plain_line_is_kept_as_its_times_alone() -> None:
    line = Metadata(
        2, 0, "", 3, snapshots=[Snapshot(number, number * HOUR, number - 1 or None) for number in (1, 2, 3)]
    )
    assert history_of(line).tree is None
    assert outlook(history_of(line), POLICY, 100 * HOUR).expirable == 1
