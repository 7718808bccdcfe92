"""Why a run stops, and what it leaves in the log when its process is killed."""

from __future__ import annotations

from datetime import UTC, datetime

from aurum_orchestration.errors import LeaseLostError, OperationCancelledError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.history import History
from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, MaintenanceResult, MaintenanceStatus
from aurum_orchestration.maintenance.stopping import StopSignal

TABLE = TableId("disk", ("ns", "events"))


def test_the_first_cause_counts() -> None:
    stop = StopSignal()
    first = OSError("first")
    stop.fail(first)
    stop.fail(OSError("second"))
    assert (stop.cause, stop.final, stop.event.is_set()) == (first, False, True)


def test_a_new_attempt_forgets_a_failure_but_not_an_end() -> None:
    stop = StopSignal()
    stop.fail(OSError("x"))
    assert not stop.begin().is_set()
    assert [stop.cause] == [None]
    lost = LeaseLostError("lost")
    stop.fail(OSError("y"))
    stop.end(lost)  # an end goes before a failure: it decides whether another attempt starts
    stop.cancel()
    assert stop.begin().is_set()
    assert (stop.cause, stop.final) == (lost, True)


def test_a_cancel_says_how_to_go_on() -> None:
    stop = StopSignal()
    stop.cancel()
    assert isinstance(stop.cause, OperationCancelledError)
    assert "Run again" in (stop.cause.hint or "")


def test_only_what_others_left_running_is_closed_and_counts_as_a_failure(history: History) -> None:
    for operation_id, table in (("mine", "disk.ns.events"), ("killed", "disk.ns.events"), ("other", "disk.ns.other")):
        config = MaintenanceConfig(operation_type="compaction", target_table=table)
        running = MaintenanceResult(
            operation_id=operation_id, config=config, status=MaintenanceStatus.RUNNING, started_at=datetime.now(UTC)
        )
        history.record(running, who=f"ann on {operation_id}")

    assert history.end_abandoned(TABLE, besides="mine") == 1

    states = {one.operation_id: one for one in history.operations()}
    assert {name: str(one.status) for name, one in states.items()} == {
        "mine": "running",
        "killed": "failed",
        "other": "running",
    }
    problem = states["killed"].problem
    assert problem is not None
    assert (problem.type, problem.instance, problem.table) == ("lease-lost", "killed", "disk.ns.events")
    assert "ann on killed" in (problem.detail or "")
    facts = history.facts([TABLE])[str(TABLE), "compaction"]
    assert (facts.consecutive_failures, facts.engaged) == (1, True)
    assert history.end_abandoned(TABLE, besides="mine") == 0
