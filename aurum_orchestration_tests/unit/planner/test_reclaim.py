"""When retention and vacuum start by themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.interfaces import Decision, MaintenanceStatus, TableHealth
from aurum_orchestration.maintenance.operations.retention import RetentionPolicy
from aurum_orchestration.maintenance.operations.vacuum import VacuumPolicy
from aurum_orchestration.maintenance.planner.decide import decide, healthy
from aurum_orchestration.maintenance.planner.facts import RunFacts
from aurum_orchestration_tests.unit.planner.builders import NOW

TABLE = TableId("lake", ("ns", "t"))
DAY = 86_400


def decided(
    operation: str,
    metrics: dict[str, float],
    since: timedelta | None = None,
    status: MaintenanceStatus = MaintenanceStatus.COMPLETED,
    **rules: Any,
) -> Decision:
    """The decision about a table, on which a run of the operation ended ``since`` so long ago."""
    policies: dict[str, type[BaseModel]] = {"retention": RetentionPolicy, "vacuum": VacuumPolicy}
    facts = RunFacts()
    if since is not None:
        done = status is MaintenanceStatus.COMPLETED
        facts = RunFacts(NOW - since, status, NOW - since if done else None, engaged=not done)
    health = TableHealth(TABLE, "lake", "1", NOW, metrics)
    (decision,) = decide(
        health, lambda *_: policies[operation](**rules), {(str(TABLE), operation): facts}, NOW, [operation]
    )
    return decision


def test_retention_acts_when_enough_snapshots_may_go() -> None:
    decision = decided("retention", {"snapshots": 1000, "expirable_snapshots": 400})
    assert (decision.act, decision.code) == (True, "recommended")
    assert decision.reason == "400 of 1,000 snapshots may go"
    assert decision.gain.files == 400
    assert decision.gain.debt_score > 0


@pytest.mark.parametrize(("expirable", "code"), [(0, "healthy"), (19, "not-due"), (20, "recommended")])
def test_below_its_threshold_the_planner_waits_and_a_person_may(expirable: int, code: str) -> None:
    decision = decided("retention", {"snapshots": 30, "expirable_snapshots": expirable})
    assert decision.code == code
    assert healthy([decision]) == (code != "recommended")
    assert decided("retention", {"snapshots": 30, "expirable_snapshots": 5}, trigger_snapshots=5).act


@pytest.mark.parametrize(
    ("expirable", "rules", "code"),
    [
        (4, {}, "not-due"),
        (5, {}, "recommended"),
        (1, {"clear_snapshots": 0}, "recommended"),
        (0, {"clear_snapshots": 0}, "healthy"),
        (5, {"trigger_snapshots": 2, "clear_snapshots": 9}, "recommended"),
    ],
)
def test_a_retention_that_was_cut_short_carries_on_from_a_lower_threshold(
    expirable: int, rules: dict[str, int], code: str
) -> None:
    metrics = {"snapshots": 30.0, "expirable_snapshots": float(expirable)}
    decision = decided("retention", metrics, timedelta(minutes=1), MaintenanceStatus.CANCELLED, **rules)
    assert decision.code == code
    if not rules:
        assert ("carrying on with an unfinished run" in decision.reason) == (code == "recommended")
        assert decided("retention", metrics, timedelta(hours=25)).code == "not-due"


@pytest.mark.parametrize(("gained_nothing", "code"), [(4, "recommended"), (5, "gains-nothing")])
def test_routine_work_that_is_never_finished_and_gains_nothing_is_throttled(gained_nothing: int, code: str) -> None:
    """What it leaves undone, run after run, would start it at every look at the table otherwise."""
    minute = NOW - timedelta(minutes=1)
    facts = RunFacts(minute, MaintenanceStatus.COMPLETED, minute, consecutive_no_gain=gained_nothing, engaged=True)
    health = TableHealth(TABLE, "lake", "1", NOW, {"snapshots": 300.0, "expirable_snapshots": 40.0})
    (decision,) = decide(health, lambda *_: RetentionPolicy(), {(str(TABLE), "retention"): facts}, NOW, ["retention"])
    assert decision.code == code


def test_between_two_runs_a_table_is_healthy() -> None:
    metrics = {"snapshots": 300.0, "expirable_snapshots": 40.0}
    waiting = decided("retention", metrics, timedelta(hours=5))
    assert (waiting.act, waiting.code, healthy([waiting])) == (False, "not-due", True)
    assert decided("retention", metrics, timedelta(hours=25)).act


def test_old_rows_are_looked_for_once_per_cooldown() -> None:
    metrics = {"snapshots": 3.0, "expirable_snapshots": 0.0}
    decision = decided("retention", metrics, time_column="day", retention_days=30)
    assert decision.act
    assert decision.reason == "rows older than 30 days by day are looked for; 0 of 3 snapshots may go"
    assert decided("retention", metrics, timedelta(hours=2), time_column="day").code == "not-due"
    assert decided("retention", {"snapshots": 0.0, "expirable_snapshots": 0.0}, time_column="day").code == "healthy"


def test_what_was_not_measured_is_said() -> None:
    assert decided("retention", {"snapshots": 30}).code == "unmeasured"
    assert decided("vacuum", {}).code == "unmeasured"


@pytest.mark.parametrize(
    ("snapshots", "days", "since", "code"),
    [
        (0, 0, None, "healthy"),
        (5, 1, None, "not-due"),
        (5, 8, None, "recommended"),
        (5, 8, timedelta(days=1), "not-due"),
        (5, 8, timedelta(days=8), "recommended"),
        (5, 1, timedelta(days=8), "recommended"),
    ],
    ids=["empty", "young", "never looked at", "looked at lately", "due", "due, with young snapshots only"],
)
def test_vacuum_looks_once_per_cooldown_at_tables_that_may_have_orphans(
    snapshots: int, days: float, since: timedelta | None, code: str
) -> None:
    metrics = {"snapshots": float(snapshots), **({"oldest_snapshot_seconds": days * DAY} if snapshots else {})}
    decision = decided("vacuum", metrics, since)
    assert decision.code == code
    assert healthy([decision]) == (code != "recommended")


def test_a_table_whose_first_snapshots_are_gone_is_older_than_its_history() -> None:
    """Where snapshots expire after a day no history ever is as old as an orphan has to be."""
    metrics = {"snapshots": 5.0, "oldest_snapshot_seconds": 1.0 * DAY, "history_expired": 1.0}
    assert decided("vacuum", metrics).act
