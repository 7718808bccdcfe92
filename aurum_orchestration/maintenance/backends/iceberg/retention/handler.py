"""Retention as the backend calls it."""

from __future__ import annotations

from pyiceberg.table import Table

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.retention.execute import RetentionExecution
from aurum_orchestration.maintenance.backends.iceberg.retention.plan import plan_retention
from aurum_orchestration.maintenance.interfaces import MaintenancePlan
from aurum_orchestration.maintenance.operations.retention import RetentionParameters


def plan(table: Table, table_id: TableId, parameters: RetentionParameters) -> MaintenancePlan:
    """What would be expired and deleted now. Raises UnsupportedError with the reason when nothing may be."""
    return plan_retention(table, table_id, parameters)


def execution(plan: MaintenancePlan, table: Table) -> RetentionExecution:
    """The steps of a plan."""
    return RetentionExecution(plan, table)
