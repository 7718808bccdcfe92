from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aurum_orchestration.maintenance.metrics import HEALTH_METRICS
from aurum_orchestration.maintenance.planner.debt import PENALTIES, debt_score
from aurum_orchestration_tests.unit.planner.builders import health, numbers, odd_numbers, rule

DRIVERS = (
    "excess_files",
    "delete_files",
    "position_delete_rows",
    "equality_delete_rows",
    "snapshots",
    "metadata_bytes",
    "manifests",
)
MOST = {"position_delete_rows": 1e10, "equality_delete_rows": 1e10, "metadata_bytes": 1e9}

tables = st.fixed_dictionaries(
    {name: numbers(MOST.get(name, 1e6)) for name in DRIVERS} | {"data_files": numbers(1e6), "rows": numbers(1e10)}
)


@rule
@given(tables, st.sampled_from(DRIVERS), numbers(1e6))
def test_more_of_what_hurts_never_lowers_the_score(metrics: dict[str, float], name: str, more: float) -> None:
    worse = {**metrics, name: metrics[name] + more}
    assert 0 <= debt_score(health(**metrics)) <= debt_score(health(**worse)) <= 100


@pytest.mark.parametrize("name", DRIVERS)
def test_every_driver_moves_the_score(name: str) -> None:
    table = {"data_files": 1000.0, "rows": 1e6}
    assert debt_score(health(**table, **{name: 1e8})) > 4


@rule
@given(
    data_files=st.integers(0, 10**6).map(float),
    data_bytes=numbers(1e15),
    rows=numbers(1e12),
    snapshots=st.integers(0, 100),
    metadata_bytes=st.integers(0, 2**20),
    manifests=st.integers(0, 100),
)
def test_a_perfectly_compacted_table_has_no_debt(**metrics: float) -> None:
    assert debt_score(health(excess_files=0, small_files=0, delete_files=0, **metrics)) == 0


@rule
@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 10_000), st.integers(0, 100))
@example(12, 12, 10_000, 100)
def test_a_tiny_table_does_not_alarm(files: int, delete_files: int, rows: int, snapshots: int) -> None:
    score = debt_score(
        health(
            data_files=files,
            small_files=files,
            excess_files=max(0, files - 1),
            delete_files=delete_files,
            rows=rows,
            position_delete_rows=rows,
            snapshots=snapshots,
        )
    )
    assert score < 10


def test_thousands_of_tiny_files_alarm_although_they_hold_next_to_nothing() -> None:
    assert debt_score(health(data_files=3000, small_files=3000, excess_files=2999, data_bytes=3e6, rows=3000)) > 50


def test_the_same_excess_weighs_less_in_a_table_of_many_good_files() -> None:
    alone = debt_score(health(data_files=500, excess_files=499))
    among_many = debt_score(health(data_files=100_000, excess_files=499))
    assert alone / 2 <= among_many < alone * 0.6


def test_deleted_rows_weigh_by_their_share_of_all_rows_up_to_a_fifth() -> None:
    def score(rows: float) -> float:
        return debt_score(health(data_files=100, rows=rows, position_delete_rows=100_000))

    assert score(1e5) == score(5e5) == 5
    assert score(1e6) == 2.5
    assert score(1e8) < 0.1


def test_the_caps_add_up_to_a_hundred_and_count_known_metrics() -> None:
    assert math.isclose(sum(penalty.cap for penalty in PENALTIES.values()), 100)
    assert set(PENALTIES) - {"deleted_rows"} <= set(HEALTH_METRICS)
    everything = dict.fromkeys(DRIVERS, math.inf)
    assert debt_score(health(**everything)) == pytest.approx(100, abs=0.1)


@pytest.mark.parametrize("name", PENALTIES)
def test_a_penalty_is_free_up_to_free_and_half_its_cap_at_half(name: str) -> None:
    penalty = PENALTIES[name]
    assert penalty.points(penalty.free) == 0
    assert penalty.points(penalty.half) == pytest.approx(penalty.cap / 2)


@rule
@given(st.dictionaries(st.sampled_from(sorted(HEALTH_METRICS)), odd_numbers))
def test_odd_numbers_never_raise(metrics: dict[str, float]) -> None:
    assert 0 <= debt_score(health(**metrics)) <= 100


def test_a_table_that_was_not_measured_has_no_score() -> None:
    assert debt_score(health()) == 0
