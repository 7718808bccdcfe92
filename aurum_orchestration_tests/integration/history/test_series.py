"""The health series, and pruning of series and log."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta

import pytest

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.history import HealthPoint, History, Pruned
from aurum_orchestration_tests.integration.history.samples import FLIGHTS, NOON, ended, point
from aurum_orchestration_tests.integration.history.test_facts import statements

OTHER = TableId("lake", ("a.b", "c"))


def test_points_come_back_oldest_first(history: History) -> None:
    points = [point(minute, data_files=minute, ratio=math.inf) for minute in (2, 0, 1)]
    history.record_health([*points, point(0, table=OTHER)])
    assert history.health_series(FLIGHTS) == sorted(points, key=lambda each: each.at)
    assert history.health_series(OTHER) == [point(0, table=OTHER)]
    assert history.health_series(TableId("lake", ("no", "such"))) == []


def test_points_since(history: History) -> None:
    history.record_health(point(minute) for minute in range(4))
    assert [each.at for each in history.health_series(FLIGHTS, since=NOON + timedelta(minutes=2))] == [
        NOON + timedelta(minutes=2),
        NOON + timedelta(minutes=3),
    ]


def test_a_point_measured_again_replaces(history: History) -> None:
    history.record_health([point(debt=1)])
    history.record_health([point(debt=2)])
    assert [each.debt_score for each in history.health_series(FLIGHTS)] == [2]


def test_no_debt_score_is_nan(history: History) -> None:
    history.record_health([point(debt=math.nan)])
    assert math.isnan(history.health_series(FLIGHTS)[0].debt_score)


def test_thousands_of_points_at_once(history: History) -> None:
    tables = [TableId("lake", ("n", f"t{number}")) for number in range(2500)]
    history.record_health(point(0, table=table, files=1) for table in tables)
    assert history.health_series(tables[-1]) == [point(0, table=tables[-1], files=1)]


@pytest.mark.parametrize("others", [0, 1000])
def test_the_latest_point_of_each_table(history: History, others: int) -> None:
    tables = [FLIGHTS, OTHER, *(TableId("lake", ("n", f"t{number}")) for number in range(others))]
    history.record_health(point(minute, table=table, files=minute) for table in tables for minute in (1, 3, 2))
    history.record_health([point(9, table=TableId("lake", ("not", "asked")))])
    unmeasured = TableId("lake", ("never", "measured"))
    with statements(history) as seen:
        found = history.latest_health([*tables, unmeasured])
    assert found == {table: point(3, table=table, files=3) for table in tables}
    assert len(seen) == 1
    assert history.latest_health([]) == {}


def test_the_latest_point_may_have_no_debt_score(history: History) -> None:
    assert history.latest_health([FLIGHTS]) == {}
    history.record_health([point(debt=math.nan)])
    assert math.isnan(history.latest_health([FLIGHTS])[FLIGHTS].debt_score)


def test_points_that_take_their_time_lock_nobody_out(history: History) -> None:
    def slowly() -> Iterator[HealthPoint]:
        yield point(0)
        history.record(ended(), who="somebody meanwhile")
        yield point(1)

    history.record_health(slowly())
    assert len(history.health_series(FLIGHTS)) == 2


def test_no_points_are_no_error(history: History) -> None:
    history.record_health([])
    assert history.health_series(FLIGHTS) == []


def test_prune_deletes_what_is_older_and_nothing_else(history: History) -> None:
    for minute in range(10):
        history.record(ended(minute=minute, operation_id=str(minute)), who="maria")
    history.record_health(point(minute) for minute in range(10))
    history.record_health([HealthPoint(OTHER, NOON, "x", 0.0)])
    lease = history.acquire(FLIGHTS, holder="maria", operation_id="op", ttl=timedelta(minutes=5))
    facts = history.facts()
    assert history.prune(NOON + timedelta(minutes=6)) == Pruned(operations=6, health=7)
    assert [result.operation_id for result in history.operations()] == ["9", "8", "7", "6"]
    assert [each.at for each in history.health_series(FLIGHTS)] == [NOON + timedelta(minutes=n) for n in range(6, 10)]
    assert history.facts() == facts
    history.check(lease)
    assert history.prune(NOON + timedelta(minutes=6)) == Pruned(0, 0)


def test_prune_works_in_batches(history: History) -> None:
    for minute in range(7):
        history.record(ended(minute=minute, operation_id=str(minute)), who="maria")
    history.record_health(point(minute) for minute in range(5))
    with statements(history) as seen:
        assert history.prune(NOON + timedelta(days=1), batch=2) == Pruned(operations=7, health=5)
    assert sum(statement.startswith("DELETE FROM aurum_operations") for statement in seen) == 4
    assert sum(statement.startswith("DELETE FROM aurum_health") for statement in seen) == 3
    assert history.operations() == []
    assert history.health_series(FLIGHTS) == []


def test_pruning_a_store_that_was_never_made_makes_none(history: History, url: str) -> None:
    assert history.prune(NOON) == Pruned(0, 0)
    with history._store.reading() as connection:
        assert connection is None
