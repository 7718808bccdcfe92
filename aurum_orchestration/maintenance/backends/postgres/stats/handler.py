"""Stats as the backend calls them."""

from __future__ import annotations

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.stats.execute import StatsExecution
from aurum_orchestration.maintenance.backends.postgres.stats.plan import plan_stats
from aurum_orchestration.maintenance.backends.postgres.table import Database
from aurum_orchestration.maintenance.interfaces import MaintenancePlan
from aurum_orchestration.maintenance.operations.stats import StatsParameters


def plan(target: Database, table_id: TableId, parameters: StatsParameters) -> MaintenancePlan:  # noqa: ARG001 - the handlers' protocol
    """The report, and the tables whose statistics are stale."""
    return plan_stats(target, parameters)


def execution(plan: MaintenancePlan, target: Database) -> StatsExecution:
    """The report, then the tables, one after the other."""
    return StatsExecution(plan, target)
