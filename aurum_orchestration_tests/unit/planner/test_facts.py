from __future__ import annotations

from datetime import timedelta

import pytest

from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration.maintenance.planner.facts import GIB, NO_FACTS, PastRun, facts_of, gained
from aurum_orchestration_tests.unit.planner.builders import NOW

GOOD = {"files_rewritten": 10.0, "files_added": 1.0}
EMPTY = {"files_rewritten": 0.0, "files_added": 0.0}


def run(status: str, hours_ago: float = 1, metrics: dict[str, float] | None = None, **more: object) -> PastRun:
    finished = NOW - timedelta(hours=hours_ago)
    return PastRun(MaintenanceStatus(status), finished, metrics=metrics, **more)  # type: ignore[arg-type]


def test_without_runs_nothing_is_known() -> None:
    assert facts_of([]) == NO_FACTS


def test_the_newest_run_and_the_newest_that_completed() -> None:
    facts = facts_of([run("failed", 1), run("completed", 2, GOOD), run("completed", 3, GOOD)])
    assert facts.last_finished == NOW - timedelta(hours=1)
    assert facts.last_status is MaintenanceStatus.FAILED
    assert facts.last_completed == NOW - timedelta(hours=2)


@pytest.mark.parametrize("never_ran", [run("planned", 0), run("running", 0), run("pending", 0)])
def test_runs_that_did_not_run_do_not_count(never_ran: PastRun) -> None:
    assert facts_of([never_ran]) == NO_FACTS


def test_a_lease_held_by_another_is_no_failure_of_this_table() -> None:
    assert facts_of([run("failed", problem="lease-held")]) == NO_FACTS
    assert facts_of([run("failed", problem="corrupt-table")]).consecutive_failures == 1


@pytest.mark.parametrize(
    ("statuses", "failures"),
    [
        (["failed", "failed", "completed", "failed"], 2),
        (["failed", "cancelled", "failed", "skipped"], 2),
        (["skipped", "failed"], 0),
        (["completed"], 0),
    ],
)
def test_failures_in_a_row(statuses: list[str], failures: int) -> None:
    assert facts_of([run(status, 1, GOOD) for status in statuses]).consecutive_failures == failures


def test_runs_without_gain_in_a_row() -> None:
    idle = [run("skipped"), run("failed"), run("completed", 2, EMPTY), run("cancelled"), run("completed", 3, GOOD)]
    assert facts_of(idle).consecutive_no_gain == 2
    assert facts_of(idle[::-1]).consecutive_no_gain == 0


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (GOOD, True),
        ({"files_rewritten": 3.0, "files_added": 3.0}, False),
        ({"files_deleted": 1.0}, True),
        ({"rows_deleted": 1.0}, True),
        ({}, False),
    ],
)
def test_what_counts_as_gain(metrics: dict[str, float], expected: bool) -> None:
    assert gained(metrics) is expected


def test_the_rate_is_over_bytes_read_plus_written_of_the_newest_five() -> None:
    moved = {"bytes_rewritten": GIB * 0.75, "bytes_added": GIB * 0.25}
    recent = [run("completed", 1, moved, seconds=20.0) for _ in range(5)]
    old = run("completed", 9, moved, seconds=10_000.0)
    assert facts_of([*recent, old]).seconds_per_gib == pytest.approx(20)
    assert facts_of([run("failed", 1, moved, seconds=99.0), *recent]).seconds_per_gib == pytest.approx(20)
    assert facts_of([run("completed", 1, EMPTY, seconds=5.0)]).seconds_per_gib is None


@pytest.mark.parametrize(
    ("newest", "engaged"),
    [
        (run("failed"), True),
        (run("cancelled"), True),
        (run("completed", 1, {**GOOD, "groups_left": 2.0}), True),
        (run("completed", 1, GOOD), False),
        (run("skipped"), False),
    ],
)
def test_a_run_that_left_planned_work_keeps_the_table_engaged(newest: PastRun, engaged: bool) -> None:
    assert facts_of([newest, run("failed", 5)]).engaged is engaged


def test_times_without_a_zone_are_utc() -> None:
    naive = PastRun(MaintenanceStatus.COMPLETED, NOW.replace(tzinfo=None))
    assert facts_of([naive]).last_finished == facts_of([naive]).last_completed == NOW
