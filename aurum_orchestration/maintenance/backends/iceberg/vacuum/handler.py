"""Vacuum as the backend calls it."""

from __future__ import annotations

from pyiceberg.table import Table

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.vacuum.execute import VacuumExecution
from aurum_orchestration.maintenance.backends.iceberg.vacuum.plan import plan_vacuum
from aurum_orchestration.maintenance.backends.iceberg.vacuum.undo import RestoreExecution, plan_restore
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, MaintenanceResult
from aurum_orchestration.maintenance.operations.vacuum import VacuumParameters


def plan(table: Table, table_id: TableId, parameters: VacuumParameters) -> MaintenancePlan:
    """The orphans and the quarantines that are over. Raises UnsupportedError with the reason when nothing may go."""
    return plan_vacuum(table, table_id, parameters)


def execution(plan: MaintenancePlan, table: Table) -> VacuumExecution:
    """The steps of a plan."""
    return VacuumExecution(plan, table)


def undo(table: Table, result: MaintenanceResult) -> MaintenancePlan:
    """Every file back from quarantine."""
    return plan_restore(table, result)


def undo_execution(plan: MaintenancePlan, table: Table) -> RestoreExecution:
    """The move back."""
    return RestoreExecution(plan, table)
