"""Carries a reindex out, index by index; what a failure leaves is dropped at once, or by the next run."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from aurum_orchestration.errors import AurumError, EngineError, LockTimeoutError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.connection import Session, patiently
from aurum_orchestration.maintenance.backends.postgres.horizon import (
    Locker,
    lockers_question,
    long_transactions,
    read_lockers,
)
from aurum_orchestration.maintenance.backends.postgres.progress import CREATE_INDEX, watched
from aurum_orchestration.maintenance.backends.postgres.reindex.indexes import (
    Index,
    built_bytes,
    indexes_on,
    indexes_question,
    leftovers,
    read_indexes,
    some_question,
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
_WRONG = "Mend the rows that it does not allow, or drop the index: it is written to and serves no query."
_LOCK_TIMEOUT = "SELECT set_config('lock_timeout', %s, false)"

CHECK_HOLDS = 1.0
"""Seconds for which what was seen of a table counts for its next index, too. Small ones take less each."""

_log = logging.getLogger(__name__)


class ReindexExecution:
    """The indexes of a plan, one after the other."""

    workers = 1

    def __init__(self, plan: MaintenancePlan, target: Database) -> None:
        self._plan, self._target = plan, target

    def units(self) -> Iterator[Unit]:
        """One unit per step. The session that they share ends with the iterator.

        Raises at the end what is wrong with single indexes, such as a unique one whose rows are not: the others are
        built by then.
        """
        parameters = ReindexParameters.model_validate(self._plan.parameters)
        sitting = _Sitting(self._plan.steps)
        failed: list[EngineError] = []
        try:
            for step in self._plan.steps:
                yield _Index(step, self._target, parameters, sitting, failed)
        finally:
            sitting.end()
        if len(failed) == len(self._plan.steps) == 1:
            raise failed[0]
        if failed:
            told = "; ".join(error.detail for error in failed)
            raise EngineError(
                f"{len(failed)} of {len(self._plan.steps)} indexes were not built anew: {told}", hint=_WRONG
            )


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was found of a table at a moment: its indexes by oid, who has a lock on it, rows about the disk."""

    at: float
    indexes: dict[int, Index]
    held: list[Locker]
    folders: Sequence[Any]


class _Sitting:
    """One session for the steps on one table, which holds the table's lock from the first of them to the last."""

    def __init__(self, steps: Sequence[PlanStep]) -> None:
        self.seen: _Seen | None = None
        self._steps = steps
        self._open = ExitStack()
        self._session: Session | None = None
        self._oid = 0

    @contextmanager
    def session(self, table: PgTable, run: RunContext) -> Iterator[Session]:
        """The session for the table, made when it is not there yet. What fails within ends it at once."""
        if self._session is None or self._oid != table.oid:
            self.end()
            self._session = self._open.enter_context(table.work(OperationType.REINDEX, run))
            self._oid = table.oid
        try:
            yield self._session
        except BaseException:
            self._session = None
            self._open.__exit__(*sys.exc_info())
            raise

    def end(self) -> None:
        """Give the session and the lock back."""
        self._session = self.seen = None
        self._open.close()

    def from_here(self, step: PlanStep) -> list[PlanStep]:
        """The indexes that are to be built on the table of the step, from this one on."""
        return [
            one
            for one in self._steps
            if one.number >= step.number and one.action != DROP and one.detail["table"] == step.detail["table"]
        ]


class _Index(DirectUnit):
    def __init__(
        self,
        step: PlanStep,
        target: Database,
        parameters: ReindexParameters,
        sitting: _Sitting,
        failed: list[EngineError],
    ) -> None:
        super().__init__(step)
        self._failed = failed
        self._target, self._parameters, self._sitting = target, parameters, sitting

    def commit(self, run: RunContext) -> UnitOutcome:
        """Drop or build one index; what is wrong with this one alone is kept for the end.

        Raises LockTimeoutError naming who is in the way, UnsupportedError without room.
        """
        try:
            return self._done(run)
        except EngineError as error:
            if type(error) is not EngineError:
                raise
            self._failed.append(EngineError(f"{self.step.detail['index']}: {error.detail}", hint=_WRONG))
            return UnitOutcome(warnings=[self._failed[-1].detail])

    def _done(self, run: RunContext) -> UnitOutcome:
        table = self._table()
        with self._sitting.session(table, run) as session:
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
        detail, seen = self.step.detail, self._sitting.seen
        if self.step.action == DROP or seen is None or time.monotonic() - seen.at > CHECK_HOLDS:
            seen, self._sitting.seen = self._look(session, table), None
        index = seen.indexes.get(detail["oid"])
        if index is None or str(index) != detail["index"]:
            return None
        if seen.held:
            raise LockTimeoutError(f"the table is locked by {'; '.join(map(str, seen.held))}", table=str(table.id))
        if self.step.action != DROP:
            self._sitting.seen = seen
        return index, read_rooms(session, seen.folders)[index.oid]

    def _look(self, session: Session, table: PgTable) -> _Seen:
        steps = [self.step] if self.step.action == DROP else self._sitting.from_here(self.step)
        oids, relids = ([step.detail[name] for step in steps] for name in ("oid", "relid"))
        began = time.monotonic()
        _, found, locks, folders, _ = session.together(
            # to look, it waits no longer than others do
            (_LOCK_TIMEOUT, (f"{int(table.config.lock_timeout * 1000)}ms",)),
            indexes_question(table.server, [table.oid])
            if self.step.action == DROP
            else some_question(oids, relids, table.oid),
            lockers_question(table.oid, *relids),
            rooms_question(oids),
            (_LOCK_TIMEOUT, (f"{self._parameters.wait_timeout_seconds}s",)),
        )
        there = leftovers(read_indexes(found)) if self.step.action == DROP else read_indexes(found)
        held = [one for one in read_lockers(locks) if one.granted]
        return _Seen(began, {one.oid: one for one in there}, held, folders)

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
