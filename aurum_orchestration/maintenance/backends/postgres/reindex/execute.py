"""Carries a reindex out, index by index; what a failure leaves is dropped at once, or by the next run."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from aurum_orchestration.errors import AurumError, LockTimeoutError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.connection import Session, patiently
from aurum_orchestration.maintenance.backends.postgres.horizon import (
    lockers_question,
    long_transactions,
    read_lockers,
)
from aurum_orchestration.maintenance.backends.postgres.progress import CREATE_INDEX, watched
from aurum_orchestration.maintenance.backends.postgres.reindex.indexes import (
    Index,
    built_bytes,
    index_question,
    indexes_on,
    indexes_question,
    leftovers,
    read_indexes,
)
from aurum_orchestration.maintenance.backends.postgres.reindex.plan import DROP, drop_statement, reindex_statement
from aurum_orchestration.maintenance.backends.postgres.space import Room, read_rooms, rooms_question
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
            found = patiently(lambda: self._ready(session, table), run)
            if found is None:
                return UnitOutcome(warnings=[f"{self.step.detail['index']} was replaced or dropped meanwhile"])
            index, room = found
            if self.step.action == DROP:
                return self._drop(session, index)
            return self._rebuild(session, table, index, room, run)

    def _table(self) -> PgTable:
        target = self._target
        if isinstance(target, PgTable):
            return target
        return table_of(
            load(TableId.parse(self.step.detail["table"]), target.sessions, target.server), OperationType.REINDEX
        )

    def _ready(self, session: Session, table: PgTable) -> tuple[Index, Room] | None:
        """The index as it is now and the room for it; None when it is not the one that was planned.

        From then on the session waits for locks as long as a build may. Raises LockTimeoutError when another has one
        that conflicts: waiting for it would end an autovacuum.
        """
        detail, patience = self.step.detail, f"{self._parameters.wait_timeout_seconds}s"
        found, locks, folders, _ = session.together(
            indexes_question(table.server, [table.oid])
            if self.step.action == DROP
            else index_question(detail["index"], detail["relid"], table.oid),
            lockers_question(table.oid, detail["relid"]),
            rooms_question([detail["oid"]]),
            ("SELECT set_config('lock_timeout', %s, false)", (patience,)),
        )
        there = leftovers(read_indexes(found)) if self.step.action == DROP else read_indexes(found)
        index = next((one for one in there if one.oid == detail["oid"] and str(one) == detail["index"]), None)
        if index is None:
            return None
        held = [one for one in read_lockers(locks) if one.granted]
        if held:
            raise LockTimeoutError(f"the table is locked by {'; '.join(map(str, held))}", table=str(table.id))
        return index, read_rooms(session, folders)[index.oid]

    def _drop(self, session: Session, index: Index) -> UnitOutcome:
        session.execute(drop_statement(index))
        return UnitOutcome({"leftovers_dropped": 1, "bytes_freed": index.bytes}, undo=_UNDO)

    def _rebuild(self, session: Session, table: PgTable, index: Index, room: Room, run: RunContext) -> UnitOutcome:
        parameters = self._parameters
        room.refuse(index.bytes, parameters.free_space_factor, parameters.unknown_space_limit_mb, f"a new {index}")
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
        metrics = {"indexes_rebuilt": 1.0, "bytes_freed": max(0.0, index.bytes - built_bytes(session, index))}
        return UnitOutcome(metrics, undo=_UNDO)

    def _tidy(self, table: PgTable) -> None:
        """Drop what the failure left, in a session that nobody has cancelled; else the next run does it."""
        try:
            with table.sessions.work(OperationType.REINDEX, None) as session:
                for one in leftovers(indexes_on(session, table.server, [table.oid])):
                    if one.relid == self.step.detail["relid"]:
                        session.execute(drop_statement(one))
        except AurumError as error:
            _log.warning("%s: what the failed reindex left stays until the next one: %s", table.id, error)
