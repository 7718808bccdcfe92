"""Partition evolution as the backend calls it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from psycopg import sql

from aurum_orchestration.errors import EngineError, VerificationError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.connection import Session, patiently
from aurum_orchestration.maintenance.backends.postgres.partition_evolution.moving import require_movable
from aurum_orchestration.maintenance.backends.postgres.partition_evolution.plan import (
    OPERATION,
    future_owner,
    plan_partition_evolution,
    statements_for,
    within,
)
from aurum_orchestration.maintenance.backends.postgres.partition_evolution.ranges import Range, Ranges
from aurum_orchestration.maintenance.backends.postgres.partitions import partition_key, partitions
from aurum_orchestration.maintenance.backends.postgres.rows.ledger import Page
from aurum_orchestration.maintenance.backends.postgres.rows.relation import row_table
from aurum_orchestration.maintenance.backends.postgres.table import Database, PgTable, table_of
from aurum_orchestration.maintenance.backends.reports import DirectUnit, PlannedReport
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    OperationType,
    PlanExecution,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
)
from aurum_orchestration.maintenance.operations.partition_evolution import PartitionEvolutionParameters


def plan(target: Database, table_id: TableId, parameters: PartitionEvolutionParameters) -> MaintenancePlan:  # noqa: ARG001 - the handlers' protocol
    """The partitions that are missing, or a proposal."""
    return plan_partition_evolution(table_of(target, OperationType.PARTITION_EVOLUTION), parameters)


def execution(plan: MaintenancePlan, target: Database) -> PlanExecution:
    """Its steps."""
    if all(step.action == "report" for step in plan.steps):
        return PlannedReport(plan)
    return _Attachments(plan, table_of(target, OperationType.PARTITION_EVOLUTION))


class _Attachments:
    workers = 1

    def __init__(self, plan: MaintenancePlan, table: PgTable) -> None:
        self._plan, self._table = plan, table

    def units(self) -> Iterator[Unit]:
        given = PartitionEvolutionParameters.model_validate(self._plan.parameters)
        return (_Attach(step, self._table, given) for step in self._plan.steps)


class _Attach(DirectUnit):
    """One partition: made, filled and attached in one transaction, so that a kill leaves nothing."""

    def __init__(self, step: PlanStep, table: PgTable, parameters: PartitionEvolutionParameters) -> None:
        super().__init__(step)
        self._table, self._parameters = table, parameters

    def commit(self, run: RunContext) -> UnitOutcome:
        """Attach it. Raises LockTimeoutError when the default partition stays locked by others."""
        with self._table.work(OPERATION, run) as session:
            moved = patiently(lambda: self._once(session), run)
        name = sql.Identifier(self._table.relation.schema, self.step.detail["partition"]).as_string(None)
        parent = self._table.identifier.as_string(None)
        return UnitOutcome(
            metrics={"partitions_created": 1.0, "rows_moved": float(moved)},
            undo=f"ALTER TABLE {parent} DETACH PARTITION {name}, and INSERT its rows into {parent} again",
        )

    def _once(self, session: Session) -> int:
        table = row_table(session, self._table.id.parts)
        key = partition_key(session, self._table.oid)
        if key is None or key.column is None or key.base is None:
            raise EngineError("the table is not partitioned any more")
        parts = partitions(session, self._table.oid, key.base)
        ranges = Ranges(self._table.id.name, parts, key.base, self._parameters.time_zone)
        default = next((one for one in parts if one.default), None)
        lower, upper = (ranges.parsed(self.step.detail[end]) for end in ("lower", "upper"))
        one = Range(self.step.detail["partition"], lower, upper)
        moved, owner = 0, future_owner(session, self._table)
        ledger = None
        if default is not None:  # rows that refer to some may have come meanwhile
            ledger = require_movable(session, table, default, within(key.column, ranges, one))
        with ExitStack() as held:
            held.enter_context(session.transaction())
            page = held.enter_context(ledger.page(session)) if ledger else Page()
            for statement in statements_for(table, default, key.column, ranges, one, owner=owner):
                touched = session.execute(statement)
                if statement.as_string(None).startswith("WITH moved"):
                    moved = page.deleted = touched
            new = sql.Identifier(table.schema, one.name)
            there = session.value(sql.SQL("SELECT count(*) FROM ONLY {}").format(new))
            if there != moved:
                raise VerificationError(f"{one.name} has {there} rows instead of the {moved} that were moved")
        return moved
