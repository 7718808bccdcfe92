"""The facts kept beside the log are those that the planner's rule gives over the log."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, insert

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.history import History
from aurum_orchestration.history.schema import facts
from aurum_orchestration.maintenance.interfaces import MaintenanceResult, MaintenanceStatus
from aurum_orchestration.maintenance.planner.facts import PastRun, RunFacts, facts_of
from aurum_orchestration_tests.integration.history.samples import FLIGHTS, NOON, ended

GAIN = {"files_rewritten": 10.0, "files_added": 1.0, "bytes_rewritten": 2.0**30, "bytes_added": 2.0**30}
KEY = (str(FLIGHTS), "compaction")


def record(history: History, *results: MaintenanceResult) -> None:
    for result in results:
        history.record(result, who="maria")


def test_facts_of_one_good_run(history: History) -> None:
    record(history, ended(metrics=GAIN, seconds=30))
    end = NOON + timedelta(seconds=30)
    assert history.facts() == {
        KEY: RunFacts(
            last_finished=end,
            last_status=MaintenanceStatus.COMPLETED,
            last_completed=end,
            consecutive_failures=0,
            consecutive_no_gain=0,
            seconds_per_gib=15.0,
        )
    }
    assert history.facts()[KEY].last_status is MaintenanceStatus.COMPLETED


def test_facts_follow_the_planners_rule(history: History) -> None:
    choose = random.Random(7)
    expected = {}
    for number in range(30):
        table = TableId("lake", ("n", f"t{number}"))
        runs = []
        for minute in range(choose.randint(1, 6)):
            status = choose.choice(["completed", "completed", "failed", "failed", "skipped", "cancelled"])
            problem = choose.choice([None, "lease-held", "backend-unavailable"]) if status == "failed" else None
            metrics = choose.choice([GAIN, {}, {"groups_left": 2.0}])
            runs.append(ended(status, table=table, minute=minute, problem=problem, metrics=metrics))
        record(history, *runs)
        expected[str(table), "compaction"] = facts_of(
            PastRun(run.status, run.finished_at, run.seconds, run.metrics, run.problem.type if run.problem else None)
            for run in reversed(runs)
            if run.finished_at
        )
    assert history.facts() == expected


def test_operations_and_tables_are_apart(history: History) -> None:
    other = TableId("lake", ("a", "b"))
    record(history, ended("failed"), ended("failed", minute=1), ended(operation="vacuum"), ended(table=other))
    found = history.facts()
    assert {key: value.consecutive_failures for key, value in found.items()} == {
        KEY: 2,
        (str(FLIGHTS), "vacuum"): 0,
        (str(other), "compaction"): 0,
    }
    assert list(history.facts([other])) == [(str(other), "compaction")]
    assert history.facts([]) == {}


def test_recording_the_same_failure_twice_counts_once(history: History) -> None:
    failure = ended("failed", operation_id="op-1")
    record(history, failure, failure)
    assert history.facts()[KEY].consecutive_failures == 1


def test_a_running_operation_and_a_dry_run_are_no_runs(history: History) -> None:
    record(history, ended().model_copy(update={"finished_at": None}), ended(dry_run=True, status="skipped"))
    assert history.facts() == {}
    record(history, ended("failed", dry_run=True, minute=1), ended("failed", minute=2))
    assert history.facts()[KEY].consecutive_failures == 1


def test_a_refused_lease_changes_nothing(history: History) -> None:
    record(history, ended("failed", problem="lease-held"))
    assert history.facts().get(KEY, RunFacts()) == RunFacts()
    record(history, ended("completed", minute=1, metrics=GAIN))
    before = history.facts()
    record(history, *(ended("failed", problem="lease-held", minute=2 + minute) for minute in range(25)))
    assert history.facts() == before


def test_the_last_completion_outlives_many_failures_and_pruning(history: History) -> None:
    record(history, ended(metrics=GAIN))
    completed = history.facts()[KEY].last_completed
    record(history, *(ended("failed", minute=minute) for minute in range(1, 25)))
    assert history.facts()[KEY].last_completed == completed == NOON + timedelta(seconds=10)
    history.prune(NOON + timedelta(days=1))
    assert history.operations() == []
    assert history.facts()[KEY].last_completed == completed
    assert history.facts()[KEY].last_status is MaintenanceStatus.FAILED


def test_runs_of_one_table_recorded_at_once_all_count(history: History) -> None:
    record(history, ended(metrics=GAIN))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda minute: record(history, ended("failed", minute=minute)), range(1, 9)))
    assert history.facts()[KEY].consecutive_failures == 8


@contextmanager
def statements(history: History) -> Iterator[list[str]]:
    seen: list[str] = []
    engine = history._store._engine()

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if not statement.startswith("BEGIN"):
            seen.append(statement)

    yield seen
    event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize("asked", [None, 10, 9_000])
def test_facts_of_a_fleet_are_one_query(history: History, asked: int | None) -> None:
    tables = [TableId("lake", ("n", f"t{number}")) for number in range(10_000)]
    record(history, ended(table=tables[0]))
    plain = {"operation": "compaction", "consecutive_failures": 0, "consecutive_no_gain": 0, "engaged": False}
    with history._store.writing() as connection:
        connection.execute(insert(facts), [{"table_id": str(table), **plain} for table in tables[1:]])
    with statements(history) as seen:
        found = history.facts(None if asked is None else tables[:asked])
    assert len(found) == (asked or len(tables))
    assert len(seen) == 1
