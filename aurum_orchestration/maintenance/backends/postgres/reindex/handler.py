"""Reindex as the backend calls it."""

from __future__ import annotations

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.reindex.execute import ReindexExecution
from aurum_orchestration.maintenance.backends.postgres.reindex.plan import plan_reindex
from aurum_orchestration.maintenance.backends.postgres.table import Database
from aurum_orchestration.maintenance.interfaces import MaintenancePlan
from aurum_orchestration.maintenance.operations.reindex import ReindexParameters


def plan(target: Database, table_id: TableId, parameters: ReindexParameters) -> MaintenancePlan:  # noqa: ARG001 - the handlers' protocol
    """The indexes of a table or of the database that are to be built anew or dropped."""
    return plan_reindex(target, parameters)


def execution(plan: MaintenancePlan, target: Database) -> ReindexExecution:
    """The indexes, one after the other."""
    return ReindexExecution(plan, target)
