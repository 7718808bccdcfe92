"""Retention as the backend calls it."""

from __future__ import annotations

from pyiceberg.table import Table

from aurum_orchestration.errors import UndoRefusedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.retention.execute import NO_UNDO, RetentionExecution
from aurum_orchestration.maintenance.backends.iceberg.retention.plan import plan_retention
from aurum_orchestration.maintenance.backends.iceberg.rollback import RollbackExecution, plan_rollback
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, MaintenanceResult
from aurum_orchestration.maintenance.operations.retention import RetentionParameters


def plan(table: Table, table_id: TableId, parameters: RetentionParameters) -> MaintenancePlan:
    """What would be deleted and expired now. Raises UnsupportedError with the reason when nothing may be."""
    return plan_retention(table, table_id, parameters)


def execution(plan: MaintenancePlan, table: Table) -> RetentionExecution:
    """The steps of a plan."""
    return RetentionExecution(plan, table)


def undo(table: Table, result: MaintenanceResult) -> MaintenancePlan:
    """Main back to the snapshot that still has the rows. Raises UndoRefusedError where only snapshots expired."""
    plan = plan_rollback(table, result)
    if not plan.steps and result.undo_data is None:
        raise UndoRefusedError(f"nothing takes {result.config.operation_type} back: {result.undo or NO_UNDO}")
    return plan


def undo_execution(plan: MaintenancePlan, table: Table) -> RollbackExecution:
    """The move of main."""
    return RollbackExecution(plan, table)
