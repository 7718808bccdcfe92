"""Views of a hypertable: its continuous aggregates are refreshed, on the TSL edition."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.connection import patiently
from aurum_orchestration.maintenance.backends.postgres.native import driven
from aurum_orchestration.maintenance.backends.postgres.table import Database, PgTable
from aurum_orchestration.maintenance.backends.reports import DirectUnit
from aurum_orchestration.maintenance.backends.timescale.aggregates import Aggregate, aggregates_of
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


def plan(target: Database, table_id: TableId, parameters: ViewsParameters) -> MaintenancePlan:  # noqa: ARG001 - the handlers' protocol
    """One refresh for each continuous aggregate that has no policy. Raises UnsupportedError on the Apache edition."""
    table = hypertable_of(target, OperationType.VIEWS)
    require_tsl(table.server, OperationType.VIEWS, NEEDS)
    table.server.refuse_writes(OperationType.VIEWS)
    with table.look() as session:
        views = aggregates_of(session, table)
        chunks = chunks_of(session, table)
        native = driven(session, table.server)
        steps: list[PlanStep] = []
        warnings: list[str] = []
        for view in views:
            told = native.get((view.schema, view.name), {}).get(OperationType.VIEWS.value)
            if parameters.views and str(view) not in parameters.views:
                continue
            if told is not None:
                warnings.append(f"{view} is left out: {told}")
            elif chunks:
                oldest = chunks[0].begin
                since = oldest if view.has_before(session, oldest) else None
                steps.append(_step(len(steps) + 1, view, since))
    reason = f"{count(len(steps), 'continuous aggregate')} of {len(views):,} to refresh"
    return table.plan(OperationType.VIEWS, parameters.model_dump(), reason, steps, warnings)


def _step(number: int, view: Aggregate, since: str | None) -> PlanStep:
    """Where the view has more than there are rows, from the oldest chunk on: what was dropped would be emptied."""
    name = view.identifier.as_string(None)
    return PlanStep(
        number=number,
        action="refresh_aggregate",
        summary=f"Refresh {view}." if since is None else f"Refresh {view} from {since} on: older rows may be dropped.",
        risk=_RISK,
        detail={"sql": _statement(name, since).as_string(None), "view": name, "since": since},
    )


def _statement(name: str, since: str | None) -> sql.Composed:
    """Without a cast the server reads the time as of the type of the view's column."""
    return sql.SQL("CALL refresh_continuous_aggregate({}::regclass, {}, NULL)").format(
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
