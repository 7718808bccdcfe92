"""Hands over the report and analyzes, table by table; a table that is locked is told and left."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
from psycopg import sql

from aurum_orchestration.errors import AccessDeniedError, AurumError, LockTimeoutError, TableNotFoundError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.connection import Session, patiently
from aurum_orchestration.maintenance.backends.postgres.stats.plan import analyze_statement
from aurum_orchestration.maintenance.backends.postgres.table import Database, PgTable
from aurum_orchestration.maintenance.backends.reports import DirectUnit, handed_over
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    OperationType,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
)

_LOCKED, _LEFT_OUT = "55P03", "01000"


class StatsExecution:
    """The report, then the ANALYZEs of a plan."""

    workers = 1

    def __init__(self, plan: MaintenancePlan, target: Database) -> None:
        self._plan, self._target = plan, target

    def units(self) -> Iterator[Unit]:
        """One unit per step."""
        for step in self._plan.steps:
            yield handed_over(step) if step.action == "report" else _Analyze(step, self._target)


class _Analyze(DirectUnit):
    def __init__(self, step: PlanStep, target: Database) -> None:
        super().__init__(step)
        self._target = target

    def commit(self, run: RunContext) -> UnitOutcome:
        """Analyze one table. One of a database's that is locked or gone is told and left."""
        table = TableId.parse(self.step.detail["table"])
        statement = analyze_statement(self._target.server, table, with_parts=self.step.detail["with_parts"])
        try:
            with self._target.work(OperationType.STATS, run) as session:
                patiently(lambda: _analyze(session, table, statement), run, attempts=2)
        except (LockTimeoutError, TableNotFoundError, AccessDeniedError) as error:
            if isinstance(self._target, PgTable):
                raise
            return UnitOutcome(warnings=[f"{table} was not analyzed: {error.detail}"])
        return UnitOutcome({"tables_analyzed": 1}, undo="nothing to undo: no row was changed")


def _analyze(session: Session, table: TableId, statement: sql.Composed) -> None:
    """Raises LockTimeoutError and AccessDeniedError where the server only warns and leaves the table out."""
    problems: list[AurumError] = []

    def listen(notice: psycopg.errors.Diagnostic) -> None:
        said = notice.message_primary or "it was left out"
        if notice.sqlstate == _LOCKED:
            problems.append(LockTimeoutError(said, table=str(table)))
        elif notice.sqlstate == _LEFT_OUT and notice.severity_nonlocalized == "WARNING":
            problems.append(AccessDeniedError(said, table=str(table)))

    session.connection.add_notice_handler(listen)
    try:
        session.execute(statement)
    finally:
        session.connection.remove_notice_handler(listen)
    if problems:
        raise problems[0]
