"""Backup as the backend calls it."""

from __future__ import annotations

from pyiceberg.table import Table

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.backup.execute import BackupExecution
from aurum_orchestration.maintenance.backends.iceberg.backup.plan import plan_backup
from aurum_orchestration.maintenance.backends.iceberg.backup.undo import BackupUndo, plan_undo
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, MaintenanceResult
from aurum_orchestration.maintenance.operations.backup import BackupParameters


def plan(table: Table, table_id: TableId, parameters: BackupParameters) -> MaintenancePlan:
    """The ref to make and those to remove."""
    return plan_backup(table, table_id, parameters)


def execution(plan: MaintenancePlan, table: Table) -> BackupExecution:
    """The refs of a plan, ready to be made."""
    return BackupExecution(plan, table)


def undo(table: Table, result: MaintenanceResult) -> MaintenancePlan:
    """The refs as they were before."""
    return plan_undo(table, result)


def undo_execution(plan: MaintenancePlan, table: Table) -> BackupUndo:
    """The change of the refs."""
    return BackupUndo(plan, table)
