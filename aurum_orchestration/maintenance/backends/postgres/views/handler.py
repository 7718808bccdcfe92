"""Views as the backend calls it."""

from __future__ import annotations

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.table import Database
from aurum_orchestration.maintenance.backends.postgres.views.execute import ViewsExecution
from aurum_orchestration.maintenance.backends.postgres.views.plan import plan_views
from aurum_orchestration.maintenance.interfaces import MaintenancePlan
from aurum_orchestration.maintenance.operations.views import ViewsParameters


def plan(target: Database, table_id: TableId, parameters: ViewsParameters) -> MaintenancePlan:  # noqa: ARG001 - the handlers' protocol
    """The materialized views that are to be refreshed."""
    return plan_views(target, parameters)


def execution(plan: MaintenancePlan, target: Database) -> ViewsExecution:
    """The views, one after the other."""
    return ViewsExecution(plan, target)
