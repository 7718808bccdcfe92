"""Carries a retention out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from psycopg import sql

from aurum_orchestration.errors import AurumError, EngineError, VerificationError
from aurum_orchestration.maintenance.backends.postgres.connection import Session, patiently
from aurum_orchestration.maintenance.backends.postgres.partitions import (
    Detached,
    Partition,
    detached,
    marked,
    partition_key,
    partitions,
)
from aurum_orchestration.maintenance.backends.postgres.retention.plan import (
    OPERATION,
    detach_statement,
    drop_statement,
    parent_of,
)
from aurum_orchestration.maintenance.backends.postgres.rows.condition import not_old_rows
from aurum_orchestration.maintenance.backends.postgres.rows.relation import require_all_visible, row_table
from aurum_orchestration.maintenance.backends.postgres.rules.engine import PostgresRules
from aurum_orchestration.maintenance.backends.postgres.table import PgTable
from aurum_orchestration.maintenance.backends.reports import DirectUnit
from aurum_orchestration.maintenance.backends.rules.work import ChoreUnit
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, PlanStep, RunContext, Unit, UnitOutcome
from aurum_orchestration.maintenance.operations.retention import RetentionParameters

_COMMENT = "SELECT obj_description(%s::oid, 'pg_class')"


class RetentionExecution:
    """The steps of a retention, one after the other."""

    workers = 1

    def __init__(self, plan: MaintenancePlan, table: PgTable) -> None:
        self._plan, self._table = plan, table

    def units(self) -> Iterator[Unit]:
        """One unit per step. What a deletion committed before it failed counts; the failure is raised after it.

        A former partition that must not or cannot be dropped keeps no other step back; that is raised at the end.
        """
        given = RetentionParameters.model_validate(self._plan.parameters)
        kept: list[AurumError] = []
        engine = PostgresRules(self._table, OPERATION)
        for step in self._plan.steps:
            match step.action:
                case "drop":
                    yield _Drop(step, self._table, given, kept)
                case "detach":
                    yield _Detach(step, self._table)
                case _:
                    unit = ChoreUnit(step, engine, given.pause_ms, given.max_rows)
                    yield unit
                    if unit.failure is not None:
                        raise unit.failure
        if kept:
            raise kept[0]


class _PartitionUnit(DirectUnit):
    def __init__(self, step: PlanStep, table: PgTable) -> None:
        super().__init__(step)
        self._table = table

    @property
    def _shown(self) -> str:
        return ".".join(self.step.detail["partition"])


class _Detach(_PartitionUnit):
    """The comment comes first: whatever is detached by us says so, also when we are killed in between."""

    def commit(self, run: RunContext) -> UnitOutcome:
        """Take the partition out. One that is gone, or has other bounds by now, is left alone."""
        with self._table.work(OPERATION, run) as session:
            found = self._partition(session)
            if found is None:
                return UnitOutcome(warnings=[f"{self._shown} is no partition of that range any more; left alone"])
            parent = parent_of(session, self._table)
            comment = marked(
                session.value(_COMMENT, (found.oid,)), parent.shown, found.bound, session.value("SELECT now()")
            )
            patiently(
                lambda: session.execute(
                    sql.SQL("COMMENT ON TABLE {} IS {}").format(found.identifier, sql.Literal(comment))
                ),
                run,
            )
            patiently(lambda: self._once(session), run)
        attach = sql.SQL("COMMENT ON TABLE {child} IS NULL; ALTER TABLE {parent} ATTACH PARTITION {child} ").format(
            child=found.identifier, parent=parent.identifier
        )
        return UnitOutcome(
            metrics={"partitions_detached": 1.0}, undo=f"{attach.as_string(None)}{found.bound}, before it is dropped"
        )

    def _once(self, session: Session) -> None:
        found = self._partition(session)
        if found is None:
            return  # an attempt that timed out had done it
        parent = parent_of(session, self._table)
        session.execute(detach_statement(parent, found, plain=self.step.detail["plain"]))

    def _partition(self, session: Session) -> Partition | None:
        key = partition_key(session, self._table.oid)
        parts = partitions(session, self._table.oid, key.base if key else None)
        same = (self.step.detail["oid"], self.step.detail["bound"])
        return next((one for one in parts if (one.oid, one.bound) == same), None)


class _Drop(_PartitionUnit):
    def __init__(self, step: PlanStep, table: PgTable, given: RetentionParameters, kept: list[AurumError]) -> None:
        super().__init__(step, table)
        self._given, self._kept = given, kept

    def commit(self, run: RunContext) -> UnitOutcome:
        """Drop it, unless somebody has attached it, or taken our comment away, since the plan.

        That it holds a row that is not old, or that something depends on it, is kept for the end.
        """
        try:
            with self._table.work(OPERATION, run) as session:
                dropped = patiently(lambda: self._once(session), run)
        except (VerificationError, EngineError) as error:
            self._kept.append(error)
            return UnitOutcome(warnings=[error.detail])
        if not dropped:
            return UnitOutcome(warnings=[f"{self._shown} is no detached partition of ours any more; left alone"])
        return UnitOutcome(
            metrics={"partitions_dropped": 1.0, "bytes_freed": float(self.step.detail["bytes"])},
            undo="nothing takes a dropped partition back but a backup",
        )

    def _once(self, session: Session) -> bool:
        with session.transaction():
            parent = parent_of(session, self._table)
            wanted = [one for one in detached(session, parent.shown) if one.oid == self.step.detail["oid"]]
            for one in wanted:
                session.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(one.identifier))
                if one in detached(session, parent.shown):
                    if self._given.verify:
                        self._require_old(session, one)
                    session.execute(drop_statement(one))
                    return True
        return False

    def _require_old(self, session: Session, one: Detached) -> None:
        """Once it is a table of its own, rows of any age may have been written to it."""
        session.execute("SET LOCAL constraint_exclusion = on")
        column, before = self._given.time_column or "", datetime.fromisoformat(self.step.detail["before"])
        rows = row_table(session, (one.schema, one.name))
        require_all_visible(rows)
        younger = not_old_rows(rows, column, before, self._given.time_zone)
        if session.value(sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {})").format(rows.identifier, younger)):
            raise VerificationError(
                f"{self._shown} holds rows that are not older than {before:%Y-%m-%d %H:%M} UTC; it is not dropped",
                hint="They were written to it after it was detached: move them, or take the line aurum:detached out of "
                "its comment.",
            )
