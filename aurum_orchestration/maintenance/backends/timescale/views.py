"""Views of a hypertable: its continuous aggregates are refreshed, on the TSL edition."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from psycopg import sql

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.connection import patiently
from aurum_orchestration.maintenance.backends.postgres.native import driven
from aurum_orchestration.maintenance.backends.postgres.table import Database, PgTable
from aurum_orchestration.maintenance.backends.reports import DirectUnit
from aurum_orchestration.maintenance.backends.timescale.hypertable import chunks_of, hypertable_of, require_tsl
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    OperationType,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
)
from aurum_orchestration.maintenance.operations.views import ViewsParameters
from aurum_orchestration.maintenance.planner.words import count

NEEDS = "a continuous aggregate"
_RISK = "None for rows of the hypertable; readers of the view see the former state until it is refreshed."
_AGGREGATES = """
SELECT view_schema::text AS schema, view_name::text AS name FROM timescaledb_information.continuous_aggregates
 WHERE hypertable_schema = %s AND hypertable_name = %s ORDER BY 1, 2
"""


def plan(target: Database, table_id: TableId, parameters: ViewsParameters) -> MaintenancePlan:  # noqa: ARG001 - the handlers' protocol
    """One refresh for each continuous aggregate that has no policy. Raises UnsupportedError on the Apache edition."""
    table = hypertable_of(target, OperationType.VIEWS)
    require_tsl(table.server, OperationType.VIEWS, NEEDS)
    table.server.refuse_writes(OperationType.VIEWS)
    with table.look() as session:
        views = session.rows(_AGGREGATES, (table.relation.schema, table.relation.name))
        chunks = chunks_of(session, table)
        native = driven(session, table.server)
    since = chunks[0].start if chunks else None
    steps: list[PlanStep] = []
    warnings: list[str] = []
    for view in views:
        name = sql.Identifier(view.schema, view.name).as_string(None)
        told = native.get((view.schema, view.name), {}).get(OperationType.VIEWS.value)
        if parameters.views and f"{view.schema}.{view.name}" not in parameters.views:
            continue
        if told is not None:
            warnings.append(f"{name} is left out: {told}")
        elif since is not None:
            steps.append(_step(len(steps) + 1, name, since))
    reason = f"{count(len(steps), 'continuous aggregate')} of {len(views):,} to refresh"
    return table.plan(OperationType.VIEWS, parameters.model_dump(), reason, steps, warnings)


def _step(number: int, name: str, since: datetime) -> PlanStep:
    """From the oldest chunk on: a refresh of what was dropped would empty the view there."""
    return PlanStep(
        number=number,
        action="refresh_aggregate",
        summary=f"Refresh {name} from {since:%Y-%m-%d %H:%M} on.",
        risk=_RISK,
        detail={"sql": _statement(name, str(since)).as_string(None), "view": name, "since": str(since)},
    )


def _statement(name: str, since: str) -> sql.Composed:
    return sql.SQL("CALL refresh_continuous_aggregate({}::regclass, {}::timestamptz, NULL)").format(
        sql.Literal(name), sql.Literal(since)
    )


def execution(plan: MaintenancePlan, target: Database) -> _Execution:
    """The views, one after the other."""
    return _Execution(plan, hypertable_of(target, OperationType.VIEWS))


class _Execution:
    workers = 1

    def __init__(self, plan: MaintenancePlan, table: PgTable) -> None:
        self._plan, self._table = plan, table

    def units(self) -> Iterator[Unit]:
        """One unit per step."""
        return (_Refresh(step, self._table) for step in self._plan.steps)


class _Refresh(DirectUnit):
    def __init__(self, step: PlanStep, table: PgTable) -> None:
        super().__init__(step)
        self._table = table

    def commit(self, run: RunContext) -> UnitOutcome:
        """Run it. Raises LockTimeoutError, and UnsupportedError where it is refused."""
        statement = _statement(self.step.detail["view"], self.step.detail["since"])
        with self._table.work(OperationType.VIEWS, run) as session:
            patiently(lambda: session.execute(statement), run)
        return UnitOutcome({"views_refreshed": 1}, undo="nothing to undo: a view holds no rows of its own")
