"""Rewriting manifests as the backend calls it."""

from __future__ import annotations

from pyiceberg.table import Table

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.execute import ManifestsExecution
from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.plan import plan_manifests
from aurum_orchestration.maintenance.backends.iceberg.rollback import RollbackExecution, plan_rollback
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, MaintenanceResult
from aurum_orchestration.maintenance.operations.manifests import ManifestsParameters


def plan(table: Table, table_id: TableId, parameters: ManifestsParameters) -> MaintenancePlan:
    """The manifests to rewrite. Raises UnsupportedError with the reason when that cannot be done safely."""
    return plan_manifests(table, table_id, parameters)


def execution(plan: MaintenancePlan, table: Table) -> ManifestsExecution:
    """The groups of a plan, ready to stage."""
    return ManifestsExecution(plan, table)


def undo(table: Table, result: MaintenanceResult) -> MaintenancePlan:
    """Main back to the snapshot before."""
    return plan_rollback(table, result)


def undo_execution(plan: MaintenancePlan, table: Table) -> RollbackExecution:
    """The move of main."""
    return RollbackExecution(plan, table)
