"""Backups of a table that is maintained through Trino: refs are made by the embedded engine on the same catalog.

No version of Trino makes tags; branches it makes from 477 on, without a retention of their own. So where the
backend names its catalog the embedded engine makes, verifies, removes and takes back the refs; where it does not,
a backup is refused with what to set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.backup import handler
from aurum_orchestration.maintenance.backends.iceberg.fencing import fenced
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, MaintenanceResult, OperationType, PlanExecution
from aurum_orchestration.maintenance.operations.backup import BackupParameters

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable

BRANCHES_SINCE = 477

_BY = "Trino makes no tags: the embedded engine makes the ref, on the same catalog"


def plan(table: TrinoTable, table_id: TableId, parameters: BackupParameters) -> MaintenancePlan:
    """The embedded engine's plan. Raises UnsupportedError where the backend names no catalog."""
    made = handler.plan(_embedded(table), table_id, parameters)
    return made.model_copy(update={"warnings": [*made.warnings, _BY]}) if made.steps else made


def execution(plan: MaintenancePlan, table: TrinoTable) -> PlanExecution:
    """The steps of a plan."""
    return handler.execution(plan, _embedded(table))


def undo(table: TrinoTable, result: MaintenanceResult) -> MaintenancePlan:
    """The refs as they were. Raises UndoRefusedError."""
    return handler.undo(_embedded(table), result)


def undo_execution(plan: MaintenancePlan, table: TrinoTable) -> PlanExecution:
    """The steps of an undo."""
    return handler.undo_execution(plan, _embedded(table))


def _embedded(table: TrinoTable) -> Table:
    """The table for PyIceberg, committing only while the run holds its lease."""
    if table.embedded is None:
        raise UnsupportedError(
            f"Trino makes no tags, and branches from {BRANCHES_SINCE} on without a retention of their own",
            operation=OperationType.BACKUP,
            hint="Give the backend its `catalog`: then the embedded engine makes the ref. Or use Spark's CREATE TAG.",
        )
    return fenced(table.embedded, table.run.still_mine) if table.run is not None else table.embedded
