"""Compaction as the backend calls it."""

from __future__ import annotations

from pyiceberg.table import Table

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.compact.execute import CompactionExecution
from aurum_orchestration.maintenance.backends.iceberg.compact.plan import plan_compaction
from aurum_orchestration.maintenance.backends.iceberg.compact.state import read_state
from aurum_orchestration.maintenance.backends.iceberg.entries import EntryReader
from aurum_orchestration.maintenance.backends.iceberg.rollback import RollbackExecution, plan_rollback
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, MaintenanceResult
from aurum_orchestration.maintenance.operations.compaction import CompactionParameters


def plan(table: Table, table_id: TableId, parameters: CompactionParameters) -> MaintenancePlan:
    """The groups to rewrite. Raises UnsupportedError with the reason when the table cannot be rewritten safely."""
    return plan_compaction(read_state(table, EntryReader(table.io)), table_id, parameters)


def execution(plan: MaintenancePlan, table: Table) -> CompactionExecution:
    """The groups of a plan, ready to stage."""
    reader = EntryReader(table.io)
    return CompactionExecution(plan, read_state(table, reader), reader)


def undo(table: Table, result: MaintenanceResult) -> MaintenancePlan:
    """Main back to the snapshot before the first group."""
    return plan_rollback(table, result)


def undo_execution(plan: MaintenancePlan, table: Table) -> RollbackExecution:
    """The move of main."""
    return RollbackExecution(plan, table)
