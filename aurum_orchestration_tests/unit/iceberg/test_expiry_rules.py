"""What may expire, against the rules told another way: a snapshot stays when something says that it stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum_orchestration.maintenance.backends.iceberg.retention.expiry import (
    DAY_MS,
    MAX_REF_AGE,
    MAX_SNAPSHOT_AGE,
    MIN_SNAPSHOTS,
    Expiry,
    Ref,
    Rules,
    expirable,
    next_change,
    wrong_property,
)

NOW = 1_000 * DAY_MS


class Snap(NamedTuple):
    snapshot_id: int
    parent_snapshot_id: int | None
    timestamp_ms: int


def line(ages: Sequence[int], first: int = 1) -> list[Snap]:
    """Snapshots of one branch, oldest first, by their age in days."""
    return [
        Snap(first + number, first + number - 1 if number else None, NOW - age * DAY_MS)
        for number, age in enumerate(ages)
    ]


def gone(snapshots: Sequence[Snap], refs: Mapping[str, Ref], rules: Rules) -> Expiry:
    return expirable(snapshots, refs, rules, NOW)


WEEK = Rules(7 * DAY_MS, 1, None)


def test_a_branch_keeps_its_youngest_and_at_least_so_many() -> None:
    snapshots = line([30, 20, 10, 5, 1])
    assert gone(snapshots, {"main": Ref(5, True)}, WEEK).snapshots == (1, 2, 3)
    assert gone(snapshots, {"main": Ref(5, True)}, Rules(7 * DAY_MS, 4, None)).snapshots == (1,)
    assert gone(snapshots, {"main": Ref(5, True)}, Rules(7 * DAY_MS, 9, None)).snapshots == ()


def test_the_head_stays_whatever_its_age_and_whatever_the_rules() -> None:
    assert gone(line([400]), {"main": Ref(1, True)}, Rules(0, 0, 0)).snapshots == ()


def test_exactly_as_old_as_allowed_is_not_too_old() -> None:
    assert gone(line([8, 7, 0]), {"main": Ref(3, True)}, WEEK).snapshots == (1,)


def test_a_young_snapshot_stays_behind_one_that_a_wrong_clock_made_old() -> None:
    assert gone(line([3, 9, 0]), {"main": Ref(3, True)}, WEEK).snapshots == (2,)


def test_a_tag_keeps_its_snapshot_and_no_other() -> None:
    refs = {"main": Ref(5, True), "q1": Ref(2, False)}
    assert gone(line([50, 40, 30, 20, 1]), refs, WEEK).snapshots == (1, 3, 4)


def test_a_branch_of_its_own_settings_follows_these_and_not_the_rules() -> None:
    snapshots = line([50, 40, 30, 20, 1])
    assert gone(snapshots, {"main": Ref(5, True, max_snapshot_age_ms=35 * DAY_MS)}, WEEK).snapshots == (1, 2)
    assert gone(snapshots, {"main": Ref(5, True, min_snapshots_to_keep=3)}, WEEK).snapshots == (1, 2)
    shorter = Ref(5, True, min_snapshots_to_keep=1, max_snapshot_age_ms=1)
    assert gone(snapshots, {"main": shorter}, Rules(60 * DAY_MS, 5, None)).snapshots == (1, 2, 3, 4)


def test_a_ref_past_its_age_goes_and_with_it_what_only_it_kept_but_never_main() -> None:
    refs = {"main": Ref(5, True, max_ref_age_ms=1), "old": Ref(1, False, max_ref_age_ms=DAY_MS), "b": Ref(2, True)}
    assert gone(line([50, 40, 30, 20, 9]), refs, WEEK) == Expiry((1, 3, 4), ("old",))
    assert gone(line([50, 40, 30, 20, 9]), refs, Rules(7 * DAY_MS, 1, 45 * DAY_MS)) == Expiry((1, 3, 4), ("old",))
    assert gone(line([50, 40, 30, 20, 9]), refs, Rules(7 * DAY_MS, 1, 35 * DAY_MS)) == Expiry(
        (1, 2, 3, 4), ("old", "b")
    )


def test_what_no_ref_leads_to_stays_while_it_is_young() -> None:
    staged = [Snap(77, 2, NOW - DAY_MS), Snap(78, 2, NOW - 8 * DAY_MS)]
    assert gone([*line([9, 1]), *staged], {"main": Ref(2, True)}, WEEK).snapshots == (1, 78)


def test_a_ref_to_a_snapshot_that_is_not_there_changes_nothing() -> None:
    refs = {"main": Ref(2, True), "broken": Ref(99, False, max_ref_age_ms=1)}
    assert gone(line([9, 1]), refs, WEEK) == Expiry((1,), ())


def test_a_circle_of_parents_ends() -> None:
    assert gone([Snap(1, 2, 0), Snap(2, 1, 0)], {"main": Ref(1, True)}, WEEK).snapshots == (2,)


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({}, Rules(7 * DAY_MS, 5, None)),
        ({MAX_SNAPSHOT_AGE: str(30 * DAY_MS), MIN_SNAPSHOTS: "9", MAX_REF_AGE: "1000"}, Rules(30 * DAY_MS, 9, 1000)),
        ({MAX_SNAPSHOT_AGE: "1", MIN_SNAPSHOTS: "1"}, Rules(7 * DAY_MS, 5, None)),
    ],
)
def test_of_policy_and_table_properties_the_longer_holds(properties: dict[str, str], expected: Rules) -> None:
    assert Rules.of(properties, 7, 5) == expected


def test_a_property_that_is_no_number_is_named() -> None:
    assert wrong_property({MIN_SNAPSHOTS: "many"}) == MIN_SNAPSHOTS
    assert wrong_property({MIN_SNAPSHOTS: " 5 ", "other": "x"}) is None


# --- any history, against the rules told the other way round


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Snap], dict[str, Ref], Rules]:
    count = draw(st.integers(0, 12))
    days = st.integers(0, 20)
    snapshots = [
        Snap(
            number,
            draw(st.none() | st.integers(0, number - 1)) if number else None,
            NOW - draw(days) * DAY_MS,
        )
        for number in range(count)
    ]
    age = st.none() | days.map(lambda number: number * DAY_MS)
    ids = st.integers(0, count)  # the last one is not there
    branch = st.builds(Ref, ids, st.just(True), st.none() | st.integers(1, 5), age, age)
    tag = st.builds(Ref, ids, st.just(False), st.none(), st.none(), age)
    refs = draw(st.dictionaries(st.sampled_from(["main", "b", "c", "d"]), branch | tag, max_size=4))
    rules = Rules(draw(days) * DAY_MS, draw(st.integers(0, 5)), draw(age))
    return snapshots, refs, rules


def stays(one: Snap, snapshots: Sequence[Snap], refs: Mapping[str, Ref], rules: Rules) -> bool:
    """The rules, asked of a single snapshot."""
    known = {snapshot.snapshot_id: snapshot for snapshot in snapshots}

    def age(snapshot: Snap) -> int:
        return NOW - snapshot.timestamp_ms

    def lost(name: str, ref: Ref) -> bool:
        limit = ref.max_ref_age_ms if ref.max_ref_age_ms is not None else rules.max_ref_age_ms
        return name != "main" and limit is not None and ref.snapshot_id in known and age(known[ref.snapshot_id]) > limit

    reachable = False
    for name, ref in refs.items():
        if lost(name, ref):
            continue
        if ref.snapshot_id == one.snapshot_id:
            return True
        way = [known[ref.snapshot_id]] if ref.branch and ref.snapshot_id in known else []
        while way and (parent := way[-1].parent_snapshot_id) is not None:
            way.append(known[parent])
        if one not in way:
            continue
        reachable = True
        least = rules.min_snapshots_to_keep if ref.min_snapshots_to_keep is None else ref.min_snapshots_to_keep
        limit = rules.max_snapshot_age_ms if ref.max_snapshot_age_ms is None else ref.max_snapshot_age_ms
        if way.index(one) < least or age(one) <= limit:
            return True
    return not reachable and age(one) <= rules.max_snapshot_age_ms


@given(histories())
def test_any_history_keeps_what_something_keeps(history: tuple[list[Snap], dict[str, Ref], Rules]) -> None:
    snapshots, refs, rules = history
    expected = tuple(one.snapshot_id for one in snapshots if not stays(one, snapshots, refs, rules))
    assert gone(snapshots, refs, rules).snapshots == expected


@given(histories(), st.integers(1, 30))
def test_nothing_changes_before_the_next_change(history: tuple[list[Snap], dict[str, Ref], Rules], days: int) -> None:
    snapshots, refs, rules = history
    change = next_change(snapshots, refs, rules, NOW)
    later = NOW + days * DAY_MS
    if change is None or later < change:
        assert expirable(snapshots, refs, rules, later) == expirable(snapshots, refs, rules, NOW)
