"""Compaction as the backend calls it."""

from __future__ import annotations

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.compaction.execute import CompactionExecution
from aurum_orchestration.maintenance.backends.postgres.compaction.plan import plan_compaction
from aurum_orchestration.maintenance.backends.postgres.table import Database, table_of
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType
from aurum_orchestration.maintenance.operations.compaction import CompactionParameters


def plan(target: Database, table_id: TableId, parameters: CompactionParameters) -> MaintenancePlan:  # noqa: ARG001 - the handlers' protocol
    """The rewrite of one table, where it is allowed and worth it."""
    return plan_compaction(table_of(target, OperationType.COMPACTION), parameters)


def execution(plan: MaintenancePlan, target: Database) -> CompactionExecution:
    """The rewrite."""
    return CompactionExecution(plan, table_of(target, OperationType.COMPACTION))
