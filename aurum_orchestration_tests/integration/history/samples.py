"""Results and points that the tests of the history record."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from aurum_orchestration.errors import ProblemDetail
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.history import HealthPoint
from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, MaintenanceResult

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
FLIGHTS = TableId("lake", ("flights", "flights"))


def ended(
    status: str = "completed",
    *,
    table: TableId | str = FLIGHTS,
    operation: str = "compaction",
    minute: float = 0,
    seconds: float = 10,
    problem: str | None = None,
    dry_run: bool = False,
    **more: Any,
) -> MaintenanceResult:
    """A result that started ``minute`` minutes after noon."""
    start = NOON + timedelta(minutes=minute)
    return MaintenanceResult(
        config=MaintenanceConfig(operation_type=operation, target_table=str(table), dry_run=dry_run),
        status=status,
        started_at=start,
        finished_at=start + timedelta(seconds=seconds),
        problem=ProblemDetail(type=problem, title=problem, status=500) if problem else None,
        **more,
    )


def point(minute: float = 0, *, table: TableId = FLIGHTS, debt: float = 12.5, **metrics: float) -> HealthPoint:
    """A health point ``minute`` minutes after noon."""
    return HealthPoint(table, NOON + timedelta(minutes=minute), f"snapshot-{minute}", debt, metrics)


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that must come, however slow the machine is."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"still not so after 30 s: {what}"
        time.sleep(0.01)
