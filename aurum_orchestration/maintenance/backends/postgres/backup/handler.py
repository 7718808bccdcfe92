"""Backup as the backend calls it."""

from __future__ import annotations

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.backup.execute import BackupExecution
from aurum_orchestration.maintenance.backends.postgres.backup.plan import plan_backup
from aurum_orchestration.maintenance.backends.postgres.table import Database, database_of
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType
from aurum_orchestration.maintenance.operations.backup import BackupParameters


def plan(target: Database, table_id: TableId, parameters: BackupParameters) -> MaintenancePlan:  # noqa: ARG001 - the handlers' protocol
    """A dump of the database. Raises UnsupportedError without programs that can."""
    return plan_backup(database_of(target, OperationType.BACKUP), parameters)


def execution(plan: MaintenancePlan, target: Database) -> BackupExecution:
    """The dump and the pruning."""
    return BackupExecution(plan, database_of(target, OperationType.BACKUP))
