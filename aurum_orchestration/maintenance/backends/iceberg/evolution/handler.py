"""Partition evolution as the backend calls it."""

from __future__ import annotations

from pyiceberg.table import Table

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.evolution.execute import EvolutionExecution
from aurum_orchestration.maintenance.backends.iceberg.evolution.plan import plan_evolution
from aurum_orchestration.maintenance.backends.iceberg.evolution.undo import SET_SPEC, SpecUndo, plan_undo
from aurum_orchestration.maintenance.backends.iceberg.rollback import RollbackExecution
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, MaintenanceResult
from aurum_orchestration.maintenance.operations.partition_evolution import PartitionEvolutionParameters


def plan(table: Table, table_id: TableId, parameters: PartitionEvolutionParameters) -> MaintenancePlan:
    """The spec to set and the groups to rewrite into it."""
    return plan_evolution(table, table_id, parameters)


def execution(plan: MaintenancePlan, table: Table) -> EvolutionExecution:
    """The steps of a plan."""
    return EvolutionExecution(plan, table)


def undo(table: Table, result: MaintenanceResult) -> MaintenancePlan:
    """The former spec as the default again."""
    return plan_undo(table, result)


def undo_execution(plan: MaintenancePlan, table: Table) -> SpecUndo | RollbackExecution:
    """The change of the spec, or the move of main for an operation that only rewrote."""
    sets_spec = any(step.action == SET_SPEC for step in plan.steps)
    return SpecUndo(plan, table) if sets_spec else RollbackExecution(plan, table)
