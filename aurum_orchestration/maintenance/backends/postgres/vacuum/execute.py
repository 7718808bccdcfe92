"""Carries a VACUUM out, and says what it did: a VACUUM that removed nothing is not told as done."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg

from aurum_orchestration.errors import LockTimeoutError, TableNotFoundError, UnsupportedError
from aurum_orchestration.maintenance.backends.postgres.connection import Session, patiently
from aurum_orchestration.maintenance.backends.postgres.horizon import lockers
from aurum_orchestration.maintenance.backends.postgres.progress import VACUUM, watched
from aurum_orchestration.maintenance.backends.postgres.table import PgTable
from aurum_orchestration.maintenance.backends.postgres.vacuum.plan import (
    freezes,
    refuse_where_useless,
    statement_for,
    way_out,
)
from aurum_orchestration.maintenance.backends.postgres.vacuum.state import Scene, VacuumState, scene, vacuum_state
from aurum_orchestration.maintenance.backends.reports import DirectUnit
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    OperationType,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
)
from aurum_orchestration.maintenance.operations.vacuum import VacuumParameters

_LOCK_NOT_AVAILABLE = "55P03"
_STATISTICS_SECONDS = 1.5  # PostgreSQL 14 tells its statistics with a delay


class VacuumExecution:
    """The one VACUUM of a plan."""

    workers = 1

    def __init__(self, plan: MaintenancePlan, table: PgTable) -> None:
        self._plan, self._table = plan, table

    def units(self) -> Iterator[Unit]:
        """One unit per step."""
        parameters = VacuumParameters.model_validate(self._plan.parameters)
        return (_Vacuum(step, self._table, parameters) for step in self._plan.steps)


class _Vacuum(DirectUnit):
    def __init__(self, step: PlanStep, table: PgTable, parameters: VacuumParameters) -> None:
        super().__init__(step)
        self._table, self._parameters = table, parameters

    def commit(self, run: RunContext) -> UnitOutcome:
        """Run it and compare. Raises UnsupportedError when nothing could be removed, LockTimeoutError."""
        table = self._table
        with table.work(
            OperationType.VACUUM, run, vacuum_cost_delay=f"{self._parameters.cost_delay_ms:g}ms"
        ) as session:
            with watched(table.sessions, VACUUM, session.pid, run, f"vacuum of {table.id}"):
                found = patiently(lambda: self._once(session), run)
            after = self._state_after(session, found.state)
        return self._outcome(found, after)

    def _once(self, session: Session) -> Scene:
        """Vacuum; what was found just before."""
        found = scene(session, self._table)
        freeze = freezes(found.state, self._parameters)
        refuse_where_useless(found.lockers, found.holders, found.state, freeze=freeze)
        statement = statement_for(self._table, found.state, self._parameters, freeze=freeze)
        skipped: list[str] = []

        def listen(notice: psycopg.errors.Diagnostic) -> None:
            if notice.sqlstate == _LOCK_NOT_AVAILABLE:
                skipped.append(notice.message_primary or "lock not available")

        session.connection.add_notice_handler(listen)
        try:
            session.execute(statement)
        finally:
            session.connection.remove_notice_handler(listen)
        if skipped:
            there = "; ".join(str(one) for one in lockers(session, self._table.oid)) or "nobody any more"
            raise LockTimeoutError(f"{skipped[0]}; the table is locked by {there}", table=str(self._table.id))
        return found

    def _state(self, session: Session) -> VacuumState:
        state = vacuum_state(session, self._table)
        if state is None:
            raise TableNotFoundError("the table was dropped meanwhile", table=str(self._table.id))
        return state

    def _state_after(self, session: Session, before: VacuumState) -> VacuumState:
        deadline = time.monotonic() + _STATISTICS_SECONDS
        while (after := self._state(session)).vacuumed == before.vacuumed and time.monotonic() < deadline:
            time.sleep(0.1)
        return after

    def _outcome(self, found: Scene, after: VacuumState) -> UnitOutcome:
        before, held = found.state, found.holders
        removed = max(0.0, before.dead - after.dead)
        frozen = max(0, before.xid_age - after.xid_age)
        left = held[0] if held and after.dead else None
        if left is not None and before.dead and removed < before.dead / 100 and not freezes(before, self._parameters):
            raise UnsupportedError(
                f"the vacuum could remove none of {before.dead:,.0f} dead rows: {left} can still see them",
                hint=way_out(left),
            )
        warnings = (
            [] if left is None else [f"{after.dead:,.0f} dead rows stay: {left} can still see them. {way_out(left)}"]
        )
        metrics = {
            "dead_tuples_removed": removed,
            "dead_tuples_left": after.dead,
            "bytes_freed": max(0.0, before.bytes - after.bytes),
            "xids_frozen": float(frozen),
        }
        if self._parameters.analyze:
            metrics["tables_analyzed"] = 1.0
        return UnitOutcome(metrics=metrics, undo="nothing to undo: no row was changed", warnings=warnings)
