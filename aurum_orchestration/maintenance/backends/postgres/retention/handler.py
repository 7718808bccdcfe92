"""Retention as the backend calls it."""

from __future__ import annotations

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.retention.execute import RetentionExecution
from aurum_orchestration.maintenance.backends.postgres.retention.plan import plan_retention
from aurum_orchestration.maintenance.backends.postgres.table import Database, table_of
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType
from aurum_orchestration.maintenance.operations.retention import RetentionParameters


def plan(target: Database, table_id: TableId, parameters: RetentionParameters) -> MaintenancePlan:  # noqa: ARG001 - the handlers' protocol
    """Old rows in batches; partitions that are old as a whole are detached, and dropped later."""
    return plan_retention(table_of(target, OperationType.RETENTION), parameters)


def execution(plan: MaintenancePlan, target: Database) -> RetentionExecution:
    """Its steps."""
    return RetentionExecution(plan, table_of(target, OperationType.RETENTION))
