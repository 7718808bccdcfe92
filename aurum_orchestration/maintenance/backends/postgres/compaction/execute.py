"""Writes a table anew, and looks whether it has been."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from aurum_orchestration.errors import (
    AurumError,
    BackendUnavailableError,
    EngineError,
    LockTimeoutError,
    TableNotFoundError,
)
from aurum_orchestration.maintenance.backends.postgres.compaction.client import find_client, last_lines, repack
from aurum_orchestration.maintenance.backends.postgres.compaction.leftovers import remove
from aurum_orchestration.maintenance.backends.postgres.compaction.plan import (
    DROP,
    VACUUM_FULL,
    full_statement,
    refuse_repack,
    refuse_without_room,
)
from aurum_orchestration.maintenance.backends.postgres.connection import Session, patiently
from aurum_orchestration.maintenance.backends.postgres.horizon import lockers, long_transactions
from aurum_orchestration.maintenance.backends.postgres.progress import watched
from aurum_orchestration.maintenance.backends.postgres.table import PgTable
from aurum_orchestration.maintenance.backends.reports import DirectUnit
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    OperationType,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
)
from aurum_orchestration.maintenance.operations.compaction import CompactionParameters

_UNDO = "nothing to undo: no row was changed"

_CLUSTER = """
SELECT phase, heap_blks_scanned::float8 AS done, heap_blks_total::float8 AS total, 'blocks' AS unit
  FROM pg_stat_progress_cluster WHERE pid = %s
"""

_STATE = """
SELECT pg_relation_filenode(oid)::bigint AS filenode, pg_total_relation_size(oid)::float8 AS bytes
  FROM pg_class WHERE oid = %s::oid
"""

# what pg_repack asks again and again while transactions are open that began before it
_WAITS = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name = 'pg_repack'
   AND query LIKE 'SELECT pid FROM pg_locks WHERE locktype = ''virtualxid''%%'
"""

_log = logging.getLogger(__name__)


class CompactionExecution:
    """The steps of a plan, one after the other."""

    workers = 1

    def __init__(self, plan: MaintenancePlan, table: PgTable) -> None:
        self._plan, self._table = plan, table

    def units(self) -> Iterator[Unit]:
        """One unit per step."""
        parameters = CompactionParameters.model_validate(self._plan.parameters)
        return (_Step(step, self._table, parameters) for step in self._plan.steps)


class _Step(DirectUnit):
    def __init__(self, step: PlanStep, table: PgTable, parameters: CompactionParameters) -> None:
        super().__init__(step)
        self._table, self._parameters = table, parameters

    def commit(self, run: RunContext) -> UnitOutcome:
        """Remove leftovers, or rewrite. Raises LockTimeoutError naming who is in the way, EngineError."""
        with self._table.work(OperationType.COMPACTION, run) as session:
            if self.step.action == DROP:
                found = patiently(lambda: remove(session, self._table), run)
                return UnitOutcome({"leftovers_dropped": found}, undo=_UNDO)
            before = self._state(session)
            refuse_without_room(session, self._table, self._parameters, before.bytes)
            rewrite = self._full if self.step.action == VACUUM_FULL else self._repack
            told = rewrite(session, run)
            after = self._state(session)
        if after.filenode == before.filenode:
            raise self._not_done(told)
        metrics = {"tables_rewritten": 1.0, "bytes_freed": max(0.0, before.bytes - after.bytes)}
        return UnitOutcome(metrics, undo=_UNDO)

    def _state(self, session: Session) -> Any:
        row = session.row(_STATE, (self._table.oid,))
        if row is None:
            raise TableNotFoundError("the table was dropped meanwhile", table=str(self._table.id))
        return row

    def _full(self, session: Session, run: RunContext) -> str:
        table = self._table
        try:
            with watched(table.sessions, _CLUSTER, session.pid, run, f"VACUUM FULL of {table.id}"):
                patiently(lambda: session.execute(full_statement(table)), run)
        except LockTimeoutError as error:
            there = "; ".join(map(str, lockers(session, table.oid))) or "; ".join(long_transactions(session, 0)[:3])
            raise LockTimeoutError(
                f"{error.detail}; in the way: {there or 'nobody any more'}", table=str(table.id)
            ) from error
        return ""

    def _repack(self, session: Session, run: RunContext) -> str:
        table, patience = self._table, self._parameters.wait_timeout_seconds
        refuse_repack(session, table)
        try:
            return repack(find_client(table.server), table, patience, run, _impatient(session, patience))
        except EngineError as error:
            _refuse_without_server(session, error)
            self._tidy()
            raise
        except AurumError:
            self._tidy()
            raise

    def _not_done(self, told: str) -> AurumError:
        self._tidy()
        if "timed out" in told or "Unable to obtain" in told:
            with self._table.look(OperationType.COMPACTION) as session:
                there = "; ".join(long_transactions(session, 0)[:3]) or "nobody any more"
            return LockTimeoutError(
                f"pg_repack did not get the table within {self._parameters.wait_timeout_seconds} s: {there}",
                table=str(self._table.id),
            )
        return EngineError(f"the table was not rewritten: {last_lines(told)}", table=str(self._table.id))

    def _tidy(self) -> None:
        """Remove what the failure left, in a session that nobody has cancelled; else the next run does it."""
        table = self._table
        try:
            with table.sessions.work(OperationType.COMPACTION, None) as session:
                patiently(lambda: remove(session, table), attempts=3)
        except AurumError as error:
            _log.warning("%s: what the failed pg_repack left stays until the next run: %s", table.id, error)


def _refuse_without_server(session: Session, error: EngineError) -> None:
    """Raise BackendUnavailableError where pg_repack failed because the server did: our session has ended, too."""
    try:
        session.value("SELECT 1")
    except BackendUnavailableError as gone:
        hint = "The table is whole. Run again: it removes what pg_repack left."
        raise BackendUnavailableError(f"{gone.detail}; {error.detail}", hint=hint) from error


def _impatient(session: Session, patience: float) -> Callable[[], str | None]:
    """Says for whom pg_repack waits once that has lasted too long: of itself it would wait for ever."""
    since: list[float] = []

    def waiting() -> str | None:
        if not session.value(_WAITS, ()):
            since.clear()
            return None
        if not since:
            since.append(time.monotonic())
        if time.monotonic() - since[0] < patience:
            return None
        return "; ".join(long_transactions(session, patience)[:3]) or "transactions that were open before it"

    return waiting
