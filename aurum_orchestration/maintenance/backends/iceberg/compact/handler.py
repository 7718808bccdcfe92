"""Compaction as the backend calls it."""

from __future__ import annotations

import weakref

from pyiceberg.table import Table

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.compact.execute import CompactionExecution
from aurum_orchestration.maintenance.backends.iceberg.compact.plan import plan_compaction
from aurum_orchestration.maintenance.backends.iceberg.compact.state import read_state
from aurum_orchestration.maintenance.backends.iceberg.entries import EntryReader
from aurum_orchestration.maintenance.backends.iceberg.rollback import RollbackExecution, plan_rollback
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, MaintenanceResult
from aurum_orchestration.maintenance.operations.compaction import CompactionParameters

_PLANS_KEPT = 2
_read: dict[int, tuple[str, EntryReader]] = {}
"""The manifests that the last plans were made from, by the plan's identity, as long as it lives: with the metadata
file that listed them. An :class:`EntryReader` bounds what it holds."""


def plan(table: Table, table_id: TableId, parameters: CompactionParameters) -> MaintenancePlan:
    """The groups to rewrite. Raises UnsupportedError with the reason when the table cannot be rewritten safely."""
    reader = EntryReader(table.io)
    made = plan_compaction(read_state(table, reader), table_id, parameters)
    if made.steps:
        for older in list(_read)[: 1 - _PLANS_KEPT]:
            _read.pop(older, None)
        _read[id(made)] = table.metadata_location, reader
        weakref.finalize(made, _read.pop, id(made), None)
    return made


def execution(plan: MaintenancePlan, table: Table) -> CompactionExecution:
    """The groups of a plan, ready to stage. What planning read is not read again while the table is unchanged."""
    location, reader = _read.pop(id(plan), ("", EntryReader(table.io)))
    if location != table.metadata_location:
        reader = EntryReader(table.io)
    return CompactionExecution(plan, read_state(table, reader), reader)


def undo(table: Table, result: MaintenanceResult) -> MaintenancePlan:
    """Main back to the snapshot before the first group."""
    return plan_rollback(table, result)


def undo_execution(plan: MaintenancePlan, table: Table) -> RollbackExecution:
    """The move of main."""
    return RollbackExecution(plan, table)
