"""Shapes with fixed numbers, one for every case that text output treats in its own way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from aurum_orchestration.errors import BackendUnavailableError, LeaseHeldError, VerificationError
from aurum_orchestration.maintenance.interfaces import (
    MaintenanceConfig,
    MaintenanceResult,
    MaintenanceStatus,
    PlanStep,
    Verification,
)
from aurum_orchestration.maintenance.shapes import (
    CostShape,
    DecisionShape,
    GainShape,
    HistoryEntry,
    OperationReport,
    TableStatus,
)

START = datetime(2026, 1, 31, 6, 30, tzinfo=UTC)
LONG_ID = 'lake."trading desk.emea"."curves_intraday_continuous_settlement_snapshots_with_corrections"'


def decision(operation: str | None, code: str, reason: str, gain: float = 0, files: float = 0) -> DecisionShape:
    return DecisionShape(
        operation=operation,
        code=code,
        reason=reason,
        predicted_gain=GainShape(debt_score=gain, files=files, bytes=0),
        predicted_cost=CostShape(seconds=gain / 10, bytes=files * 1024),
    )


def table_status(table: str, **changes: Any) -> TableStatus:
    nothing = decision(None, "healthy", "no partition has 5 small files: nothing to win")
    fields: dict[str, Any] = {
        "table": table,
        "backend": table.partition(".")[0],
        "healthy": True,
        "debt_score": 0.0,
        "metrics": {"data_files": 6.0, "data_bytes": 734_003_200.0},
        "decision": nothing,
        "decisions": [nothing],
    }
    return TableStatus(**{**fields, **changes})


def statuses() -> list[TableStatus]:
    sick = decision("compaction", "recommended", "1,180 of 1,204 files could be saved (trigger: 20)", 86.4, 1180)
    waits = decision(None, "cooldown", "40 files could be saved, but compaction ran 12 minutes ago (cooldown 60)")
    unmeasured = decision(None, "unmeasured", "could not be measured: the catalog does not answer")
    down = BackendUnavailableError("connection refused by 10.0.0.7:9083", hint="Is the catalog up?")
    return [
        table_status("lake.flights.planes", metrics={"data_files": 1.0, "data_bytes": 41_287.0}),
        table_status(
            "lake.flights.flights",
            healthy=False,
            debt_score=86.4,
            metrics={"data_files": 1204.0, "data_bytes": 50_541_363.0},
            decision=sick,
            decisions=[sick],
        ),
        table_status(
            "lake.flights.weather",
            healthy=False,
            debt_score=23.0,
            metrics={"data_files": 46.0, "data_bytes": 912_680.0},
            decision=waits,
            decisions=[waits],
        ),
        table_status(
            "archive.meters.readings",
            healthy=False,
            metrics={},
            decision=unmeasured,
            decisions=[],
            problem=down.problem(table="archive.meters.readings"),
        ),
    ]


def steps(count: int) -> list[PlanStep]:
    return [
        PlanStep(
            number=number,
            action="rewrite",
            summary=f"rewrite 40 files (1.6 MiB) of day=2026-01-{number:02d} into 1",
            risk="a concurrent delete in the same partition makes this group plan again",
            detail={"files": 40, "bytes": 1_677_721},
        )
        for number in range(1, count + 1)
    ]


def result(table: str, status: MaintenanceStatus, **changes: Any) -> MaintenanceResult:
    fields: dict[str, Any] = {
        "operation_id": "0" * 32,
        "config": MaintenanceConfig(
            operation_type="compaction", target_table=table, dry_run=status is MaintenanceStatus.PLANNED
        ),
        "backend": table.partition(".")[0],
        "status": status,
        "started_at": START,
        "finished_at": START + timedelta(seconds=2.34),
    }
    return MaintenanceResult(**{**fields, **changes})


def plans() -> list[OperationReport]:
    return [
        OperationReport.of(
            result(
                "lake.flights.flights",
                MaintenanceStatus.PLANNED,
                reason="1,180 of 1,204 files could be saved",
                plan_id="9f86d081884c7d65",
                steps=steps(12),
                warnings=["day=2026-01-31 is being written to; its newest files are left alone"],
            )
        ),
        OperationReport.of(
            result("lake.flights.planes", MaintenanceStatus.SKIPPED, reason="1 file: nothing to win", steps=[])
        ),
    ]


def runs() -> list[MaintenanceResult]:
    held = LeaseHeldError("ann@etl-1:4711 holds the lease of lake.flights.weather until 06:35:00Z")
    broken = VerificationError("row count differs: 1,000 before, 999 after")
    return [
        result(
            "lake.flights.flights",
            MaintenanceStatus.COMPLETED,
            reason="1,204 files became 24",
            metrics={"files_rewritten": 1204.0, "files_added": 24.0},
            verification=Verification(
                method="row-count+multiset-checksum", rows_before=336_776, rows_after=336_776, checksum_equal=True
            ),
            undo="aurum does not undo by itself: roll back to snapshot 42",
        ),
        result(
            "lake.flights.weather",
            MaintenanceStatus.FAILED,
            reason="the lease is held by another",
            problem=held.problem(table="lake.flights.weather", operation="compaction"),
        ),
        result(
            "lake.flights.airports",
            MaintenanceStatus.FAILED,
            reason="what was written differs from what was read; nothing was committed",
            verification=Verification(
                method="row-count+multiset-checksum", rows_before=1000, rows_after=999, checksum_equal=False
            ),
            problem=broken.problem(table="lake.flights.airports", operation="compaction"),
            warnings=["2 staged files were removed"],
        ),
        result("lake.flights.planes", MaintenanceStatus.SKIPPED, reason="1 file: nothing to win"),
        result(
            "lake.flights.airlines", MaintenanceStatus.CANCELLED, reason="interrupted after 2 of 9 groups", steps=None
        ),
    ]


def reports() -> list[OperationReport]:
    return [OperationReport.of(one) for one in runs()]


def entries() -> list[HistoryEntry]:
    return [HistoryEntry.of(one) for one in runs()]
