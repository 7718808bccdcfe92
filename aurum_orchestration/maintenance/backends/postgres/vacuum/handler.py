"""Vacuum as the backend calls it."""

from __future__ import annotations

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.table import Database, table_of
from aurum_orchestration.maintenance.backends.postgres.vacuum.execute import VacuumExecution
from aurum_orchestration.maintenance.backends.postgres.vacuum.plan import plan_vacuum
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType
from aurum_orchestration.maintenance.operations.vacuum import VacuumParameters


def plan(target: Database, table_id: TableId, parameters: VacuumParameters) -> MaintenancePlan:  # noqa: ARG001 - the handlers' protocol
    """One VACUUM of the table. Raises UnsupportedError with who or what makes it useless."""
    return plan_vacuum(table_of(target, OperationType.VACUUM), parameters)


def execution(plan: MaintenancePlan, target: Database) -> VacuumExecution:
    """The VACUUM."""
    return VacuumExecution(plan, table_of(target, OperationType.VACUUM))
