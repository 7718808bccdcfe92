"""Statistics of a SQLite database: a report, the integrity check, and ANALYZE where its numbers are stale."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from aurum_orchestration.maintenance.backends.reports import DirectUnit, PlannedReport, report_step
from aurum_orchestration.maintenance.backends.sqlite.catalog import Table, Target, indexes_of, integrity, tables_of
from aurum_orchestration.maintenance.backends.sqlite.connection import transaction
from aurum_orchestration.maintenance.backends.sqlite.measure import analyzed_rows, highest, rows_about
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    OperationType,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
)
from aurum_orchestration.maintenance.operations.stats import StatsParameters
from aurum_orchestration.maintenance.planner.words import count

_RISK = "None: it reads the indexes and writes what the query planner goes by. Writers wait for it meanwhile."
_FEW = 50


def plan(target: Target, parameters: StatsParameters) -> MaintenancePlan:
    """The report, and one ANALYZE for each table whose statistics are missing or stale."""
    with target.database.look() as connection:
        tables = [target.table] if target.table else tables_of(connection)
        analyzed = analyzed_rows(connection)
        wrong = integrity(connection, target.table)
        about = {table.name: rows_about(connection, table, analyzed) for table in tables}
        indexes = indexes_of(connection, target.table)
        stale = [table for table in tables if _stale(connection, table, analyzed, parameters)]
    largest = sorted(about.items(), key=lambda one: -(one[1] or 0.0))[: parameters.top]
    where = "it" if target.table else "the file"
    integral = f"SQLite finds nothing wrong in {where}" if not wrong else f"SQLite finds {wrong[0]}"
    stale_told = f"{count(len(stale), 'table')} to analyze" if stale else "no statistics are stale"
    reason = f"{count(len(tables), 'table')} with {len(indexes):,} indexes; {integral}; {stale_told}"
    detail: dict[str, Any] = {
        "metrics": {"integrity_errors": float(len(wrong))},
        "integrity": wrong or ["ok"],
        "tables": dict(largest),
        "indexes": [{"index": index, "table": table} for index, table in indexes],
        "missing": [f"SQLite finds {text}" for text in wrong],
    }
    steps = [report_step(reason, detail), *(_step(number, table) for number, table in enumerate(stale, 2))]
    return target.plan(OperationType.STATS, parameters.model_dump(), reason, steps)


def _stale(
    connection: sqlite3.Connection, table: Table, analyzed: dict[str, float], parameters: StatsParameters
) -> bool:
    if parameters.analyze != "stale":
        return parameters.analyze == "all"
    there = highest(connection, table)
    if table.name not in analyzed:
        return bool(there) or (there is None and bool(connection.execute(f"SELECT 1 FROM {table.sql}").fetchone()))
    return there is not None and there - analyzed[table.name] >= _FEW + parameters.stale_ratio * analyzed[table.name]


def _step(number: int, table: Table) -> PlanStep:
    return PlanStep(
        number=number,
        action="sql",
        summary=f"Analyze {table.name}.",
        risk=_RISK,
        detail={"sql": f"ANALYZE {table.sql}"},
    )


def execution(plan: MaintenancePlan, target: Target) -> _Execution:
    """The report, and the tables one after the other."""
    return _Execution(plan, target)


class _Execution:
    workers = 1

    def __init__(self, plan: MaintenancePlan, target: Target) -> None:
        self._plan, self._target = plan, target

    def units(self) -> Iterator[Unit]:
        """One unit per step."""
        for step in self._plan.steps:
            if step.action == "report":
                yield from PlannedReport(self._plan.model_copy(update={"steps": [step]})).units()
            else:
                yield _Analyze(step, self._target)


class _Analyze(DirectUnit):
    def __init__(self, step: PlanStep, target: Target) -> None:
        super().__init__(step)
        self._database = target.database

    def commit(self, run: RunContext) -> UnitOutcome:
        """Run it. Raises LockTimeoutError, TableNotFoundError."""
        with self._database.work(run) as connection, transaction(connection):
            connection.execute(self.step.detail["sql"])
        return UnitOutcome({"tables_analyzed": 1}, undo="nothing to undo: no row was changed")
