"""What Trino's expire_snapshots takes along, against what the package lets go.

What could lose a row: a moment is chosen at which Trino expires a snapshot that has to stay, because it is among
the last ones, younger than asked for, kept by the table's own age, or by a ref.
"""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from aurum_orchestration.maintenance.backends.iceberg.retention.expiry import DAY_MS, Expiry, Ref, Rules, expirable
from aurum_orchestration.maintenance.backends.iceberg.trino.expiry import statement, surplus, taken, threshold

NOW = 100 * DAY_MS


class Snap(NamedTuple):
    snapshot_id: int
    parent_snapshot_id: int | None
    timestamp_ms: int


def line(*ages: float) -> list[Snap]:
    """A plain history, the oldest first, of snapshots that are so many days old."""
    return [Snap(number, number - 1 or None, NOW - int(age * DAY_MS)) for number, age in enumerate(ages, 1)]


MAIN_AT = {"main": Ref(5, True)}


def chosen(snapshots: list[Snap], refs: dict[str, Ref], days: float, last: int, **properties: str) -> list[int]:
    given_ = {name.replace("__", ".").replace("_", "-"): value for name, value in properties.items()}
    allowed = expirable(snapshots, refs, Rules.of(given_, days, last), NOW)
    found = threshold(snapshots, refs, allowed, given_, NOW, int(days * DAY_MS))
    return list(found.expiry.snapshots) if found else []


def test_what_is_old_goes() -> None:
    assert chosen(line(30, 20, 10, 3, 1), MAIN_AT, 7, 1) == [1, 2, 3]


def test_the_last_ones_stay_though_trino_knows_ages_only() -> None:
    assert chosen(line(30, 20, 18, 17, 16), MAIN_AT, 7, 3) == [1, 2]


def test_the_tables_own_longer_age_holds_though_it_does_not_for_trino() -> None:
    own = {"history__expire__max_snapshot_age_ms": str(15 * DAY_MS)}
    assert chosen(line(30, 20, 10, 3, 1), MAIN_AT, 7, 1, **own) == [1, 2]


def test_a_tag_keeps_its_snapshot_and_a_branch_what_it_stands_on() -> None:
    refs = {**MAIN_AT, "kept": Ref(2, False), "audit": Ref(3, True)}
    assert chosen(line(30, 20, 10, 3, 1), refs, 7, 1) == [1]


def test_the_number_to_keep_is_told_where_trino_takes_one() -> None:
    assert "retain_last" not in statement('"lake"."ns"."t"', 5)
    assert statement('"lake"."ns"."t"', 5, 3).endswith(", retain_last => 3)")


def test_commits_at_nearly_the_same_time_stay_together() -> None:
    snapshots = [Snap(1, None, 1000), Snap(2, 1, 1001), Snap(3, 2, 5000)]
    assert chosen(snapshots, {"main": Ref(3, True)}, 7, 2) == []


def test_a_moment_that_is_rounded_takes_the_same() -> None:
    snapshots = line(30, 20, 10, 3, 1)
    found = threshold(snapshots, MAIN_AT, Expiry((1, 2), ()), {}, NOW, 7 * DAY_MS)
    assert found is not None
    for off in (-1, 0, 1):
        assert taken(snapshots, MAIN_AT, {}, found.cutoff_ms + off, NOW).snapshots == (1, 2)


def test_a_branch_whose_clock_went_back_is_cut_where_trino_stops() -> None:
    snapshots = line(20, 3, 10, 2, 1)
    allowed = expirable(snapshots, MAIN_AT, Rules(7 * DAY_MS, 1, None), NOW)
    assert allowed.snapshots == (1, 3)
    found = threshold(snapshots, MAIN_AT, allowed, {}, NOW, 7 * DAY_MS)
    assert taken(snapshots, MAIN_AT, {}, NOW - 7 * DAY_MS, NOW).snapshots == (1, 2, 3)
    assert found is not None
    assert found.expiry.snapshots == (1,)


def test_nothing_goes_that_is_younger_than_the_floor() -> None:
    snapshots = line(30, 20, 10, 3, 1)
    found = threshold(snapshots, MAIN_AT, Expiry((1, 2, 3), ()), {}, NOW, 15 * DAY_MS)
    assert found is not None
    assert found.expiry.snapshots == (1, 2)


REFS = st.builds(
    Ref,
    snapshot_id=st.integers(1, 9),
    branch=st.booleans(),
    min_snapshots_to_keep=st.none() | st.integers(1, 4),
    max_snapshot_age_ms=st.none() | st.integers(1, 40 * DAY_MS),
    max_ref_age_ms=st.none() | st.integers(1, 40 * DAY_MS),
)


@given(
    ages=st.lists(st.integers(0, 40 * DAY_MS), min_size=1, max_size=8),
    jumps=st.lists(st.integers(0, 8), min_size=8, max_size=8),
    refs=st.dictionaries(st.sampled_from(["a", "b", "c"]), REFS),
    days=st.floats(0, 40),
    last=st.integers(0, 6),
    late=st.integers(0, 50_000),
)
def test_trino_never_takes_what_has_to_stay(
    ages: list[int], jumps: list[int], refs: dict[str, Ref], days: float, last: int, late: int
) -> None:
    """Parents at random, clocks that go back, refs with their own ages; the statement arrives ``late``."""
    snapshots = [
        Snap(number, min(jumps[number - 1], number - 1) or None, NOW - age) for number, age in enumerate(ages, 1)
    ]
    given_refs = {"main": Ref(len(snapshots), True), **refs}
    allowed = expirable(snapshots, given_refs, Rules.of({}, days, last), NOW)
    found = threshold(snapshots, given_refs, allowed, {}, NOW, int(days * DAY_MS))
    if found is None:
        return
    assert found.expiry.snapshots or found.expiry.refs
    really = taken(snapshots, given_refs, {}, found.cutoff_ms + 1, NOW + late)
    assert set(really.snapshots) <= set(allowed.snapshots)
    assert set(really.refs) <= set(allowed.refs)


def left_over(
    gone: list[int], after: list[Snap], refs: dict[str, Ref], cutoff_age: float, last: int
) -> tuple[set[int], set[int]]:
    """What a statement for the age may have taken wrongly of five snapshots, and what others took."""
    cutoff = NOW - int(cutoff_age * DAY_MS) + 2
    found = surplus(gone, line(30, 20, 18, 17, 16), after, refs, {}, Rules(7 * DAY_MS, last, None), cutoff, NOW)
    return set(found.ours), set(found.others)


def test_what_goes_beside_the_plan_is_told_from_what_others_expire() -> None:
    newer = [Snap(6, 5, NOW - 100), Snap(7, 6, NOW - 50)]
    five, seven = {"main": Ref(5, True)}, {"main": Ref(7, True)}
    # the moment lies behind the second one
    assert left_over([3], line(30, 20, 18, 17, 16)[3:], five, 20, 3) == (set(), {3})
    assert left_over([3], line(30, 20, 18, 17, 16)[3:], five, 18, 3) == ({3}, set())
    assert left_over([2], line(30, 20, 18, 17, 16)[2:], five, 20, 4) == ({2}, set())
    # two more commits: by the same rules two more may go
    assert left_over([3, 4], [*line(30, 20, 18, 17, 16)[4:], *newer], seven, 20, 3) == (set(), set())
    # main stood there, and stands elsewhere now
    assert left_over([4, 5], newer, seven, 16, 1) == (set(), set())


def test_what_a_branch_with_an_age_of_its_own_loses_may_be_the_statements_doing() -> None:
    refs = {"main": Ref(5, True, 1, 5 * DAY_MS)}
    cutoff = NOW - 40 * DAY_MS
    found = surplus([4], line(30, 20, 18, 17, 16), [], refs, {}, Rules(50 * DAY_MS, 9, None), cutoff, NOW)
    assert found == (frozenset(), frozenset())  # by its own rules it may go
    stays = {"main": Ref(5, True, 9, 5 * DAY_MS)}
    found = surplus([4], line(30, 20, 18, 17, 16), [], stays, {}, Rules(50 * DAY_MS, 9, None), cutoff, NOW)
    assert found == (frozenset(), frozenset({4}))
