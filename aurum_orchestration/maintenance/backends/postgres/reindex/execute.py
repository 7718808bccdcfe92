"""Carries a reindex out, index by index; what a failure leaves is dropped at once, or by the next run."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from aurum_orchestration.errors import AurumError, LockTimeoutError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.connection import Session, patiently
from aurum_orchestration.maintenance.backends.postgres.horizon import lockers, long_transactions
from aurum_orchestration.maintenance.backends.postgres.progress import CREATE_INDEX, watched
from aurum_orchestration.maintenance.backends.postgres.reindex.indexes import Index, indexes_on, leftovers
from aurum_orchestration.maintenance.backends.postgres.reindex.plan import DROP, drop_statement, reindex_statement
from aurum_orchestration.maintenance.backends.postgres.space import rooms
from aurum_orchestration.maintenance.backends.postgres.table import Database, PgTable, load, table_of
from aurum_orchestration.maintenance.backends.reports import DirectUnit
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    OperationType,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
)
from aurum_orchestration.maintenance.operations.reindex import ReindexParameters

_UNDO = "nothing to undo: no row was changed"

_log = logging.getLogger(__name__)


class ReindexExecution:
    """The indexes of a plan, one after the other."""

    workers = 1

    def __init__(self, plan: MaintenancePlan, target: Database) -> None:
        self._plan, self._target = plan, target

    def units(self) -> Iterator[Unit]:
        """One unit per step."""
        parameters = ReindexParameters.model_validate(self._plan.parameters)
        return (_Index(step, self._target, parameters) for step in self._plan.steps)


class _Index(DirectUnit):
    def __init__(self, step: PlanStep, target: Database, parameters: ReindexParameters) -> None:
        super().__init__(step)
        self._target, self._parameters = target, parameters

    def commit(self, run: RunContext) -> UnitOutcome:
        """Drop or build one index. Raises LockTimeoutError naming who is in the way, UnsupportedError without room."""
        table = self._table()
        with table.work(OperationType.REINDEX, run) as session:
            index = self._now(session, table)
            if index is None:
                return UnitOutcome(warnings=[f"{self.step.detail['index']} was replaced or dropped meanwhile"])
            patiently(lambda: _refuse_beside_others(session, table, index), run)
            session.set(lock_timeout=f"{self._parameters.wait_timeout_seconds}s")
            if self.step.action == DROP:
                return self._drop(session, index)
            return self._rebuild(session, table, index, run)

    def _table(self) -> PgTable:
        target = self._target
        if isinstance(target, PgTable):
            return target
        return table_of(
            load(TableId.parse(self.step.detail["table"]), target.sessions, target.server), OperationType.REINDEX
        )

    def _now(self, session: Session, table: PgTable) -> Index | None:
        """The index as it is now, if it is the one that was planned."""
        there = indexes_on(session, [table.oid])
        if self.step.action == DROP:
            there = leftovers(there)
        oid, name = self.step.detail["oid"], self.step.detail["index"]
        return next((one for one in there if one.oid == oid and str(one) == name), None)

    def _drop(self, session: Session, index: Index) -> UnitOutcome:
        session.execute(drop_statement(index))
        return UnitOutcome({"leftovers_dropped": 1, "bytes_freed": index.bytes}, undo=_UNDO)

    def _rebuild(self, session: Session, table: PgTable, index: Index, run: RunContext) -> UnitOutcome:
        parameters = self._parameters
        rooms(session, [index.oid])[index.oid].refuse(
            index.bytes, parameters.free_space_factor, parameters.unknown_space_limit_mb, f"a new {index}"
        )
        statement = reindex_statement(index)
        try:
            with watched(table.sessions, CREATE_INDEX, session.pid, run, f"reindex of {index}"):
                session.execute(statement)
        except LockTimeoutError as error:
            told = "; ".join(long_transactions(session, parameters.wait_timeout_seconds)[:3]) or "nobody any more"
            self._tidy(table)
            raise LockTimeoutError(
                f"{index}: transactions that were open did not end within {parameters.wait_timeout_seconds} s: {told}",
                table=str(table.id),
                hint="End them, or raise wait_timeout_seconds. The old index serves on.",
            ) from error
        except AurumError:
            self._tidy(table)
            raise
        after = next((one for one in indexes_on(session, [table.oid]) if str(one) == str(index)), None)
        left = after.bytes if after else index.bytes
        metrics = {"indexes_rebuilt": 1.0, "bytes_freed": max(0.0, index.bytes - left)}
        return UnitOutcome(metrics, undo=_UNDO)

    def _tidy(self, table: PgTable) -> None:
        """Drop what the failure left, in a session that nobody has cancelled; else the next run does it."""
        try:
            with table.sessions.work(OperationType.REINDEX, None) as session:
                for one in leftovers(indexes_on(session, [table.oid])):
                    if one.relid == self.step.detail["relid"]:
                        session.execute(drop_statement(one))
        except AurumError as error:
            _log.warning("%s: what the failed reindex left stays until the next one: %s", table.id, error)


def _refuse_beside_others(session: Session, table: PgTable, index: Index) -> None:
    """Raise LockTimeoutError when another has a lock that conflicts: waiting for it would end an autovacuum."""
    held = [one for oid in {table.oid, index.relid} for one in lockers(session, oid) if one.granted]
    if held:
        raise LockTimeoutError(f"the table is locked by {'; '.join(map(str, held))}", table=str(table.id))
