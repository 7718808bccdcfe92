"""Bloat as the backend calls it: the plan is the report."""

from __future__ import annotations

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.bloat.report import of_database, of_table
from aurum_orchestration.maintenance.backends.postgres.table import Database, PgTable
from aurum_orchestration.maintenance.backends.reports import PlannedReport
from aurum_orchestration.maintenance.interfaces import MaintenancePlan
from aurum_orchestration.maintenance.operations.bloat import BloatParameters


def plan(target: Database, table_id: TableId, parameters: BloatParameters) -> MaintenancePlan:  # noqa: ARG001 - the handlers' protocol
    """The report on a table, or on all tables of the database."""
    return of_table(target, parameters) if isinstance(target, PgTable) else of_database(target, parameters)


def execution(plan: MaintenancePlan, target: Database) -> PlannedReport:  # noqa: ARG001 - the handlers' protocol
    """The report as it is in the plan."""
    return PlannedReport(plan)
