"""Which materialized views are refreshed, in which order, and how."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from aurum_orchestration.errors import RequestError, UnsupportedError, nearest
from aurum_orchestration.maintenance.backends.postgres.connection import Session
from aurum_orchestration.maintenance.backends.postgres.horizon import long_transactions
from aurum_orchestration.maintenance.backends.postgres.server import ServerFacts
from aurum_orchestration.maintenance.backends.postgres.table import Database, PgTable
from aurum_orchestration.maintenance.backends.postgres.vacuum.plan import require_maintainable
from aurum_orchestration.maintenance.backends.postgres.views.catalog import View, views_of
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType, PlanStep
from aurum_orchestration.maintenance.operations.views import ViewsParameters
from aurum_orchestration.maintenance.planner.words import count, size

_BESIDE_READERS = "None: readers see the old rows until the new ones are there, all at once."
_LOCKS_OUT = "Readers of the view wait while it is refreshed; rows are replaced all at once."


def known_views(session: Session, server: ServerFacts) -> list[View]:
    """All materialized views, each after those that it is made of."""
    return views_of(session, maintain=server.major >= 17, everything=server.maintains_everything)


def plan_views(target: Database, parameters: ViewsParameters) -> MaintenancePlan:
    """A step for each view that can be refreshed, what others are made of first; a warning for each that cannot.

    Raises UnsupportedError for a table that is no materialized view, RequestError for views that are not there.
    """
    target.server.refuse_writes(OperationType.VIEWS)
    if isinstance(target, PgTable):
        if target.kind != "matview":
            raise UnsupportedError(f"it is no materialized view but a {target.kind}", operation=OperationType.VIEWS)
        require_maintainable(target, OperationType.VIEWS)
    with target.look() as session:
        there = known_views(session, target.server)
        chosen = _chosen(target, there, parameters)
        steps, warnings = _steps(target, chosen, parameters)
        warnings += _stale_sources(there, chosen)
        if steps:
            warnings += long_transactions(session)
    if not chosen:
        reason = "the database has no materialized view"
    elif not steps:
        reason = f"{count(len(chosen), 'materialized view')}, none can be refreshed: {'; '.join(warnings[:3])}"
    else:
        plain = sum(1 for step in steps if step.detail["plain"])
        reason = f"{count(len(steps), 'materialized view')} of {len(chosen):,}" + (
            f", {plain:,} of them with readers locked out" if plain else ""
        )
    return target.plan(OperationType.VIEWS, parameters.model_dump(), reason, steps, warnings)


def _chosen(target: Database, there: Sequence[View], parameters: ViewsParameters) -> list[View]:
    if isinstance(target, PgTable):
        return [view for view in there if view.oid == target.oid]
    names = [str(view) for view in there]
    for name in parameters.views:
        if name not in names:
            raise RequestError(
                f"no materialized view {name!r} in the database",
                operation=OperationType.VIEWS,
                hint=nearest(name, names) or "Write schema.name.",
            )
    return [view for view in there if not parameters.views or str(view) in parameters.views]


def _steps(target: Database, chosen: Sequence[View], parameters: ViewsParameters) -> tuple[list[PlanStep], list[str]]:
    steps: list[PlanStep] = []
    warnings: list[str] = []
    for view in chosen:
        if not view.maintainable:
            warnings.append(f"{view} is left: role {target.server.user} may not refresh it, its owner is {view.owner}")
        elif view.only_plain and not parameters.allow_plain:
            warnings.append(
                f"{view} is left: {view.only_plain}, so a refresh would lock its readers out; allow_plain allows that"
            )
        else:
            steps.append(_step(len(steps) + 1, view))
    return steps, warnings


def _step(number: int, view: View) -> PlanStep:
    why = (
        f"with its readers locked out: {view.only_plain}"
        if view.only_plain
        else f"beside its readers, by its unique index {view.usable}"
    )
    return PlanStep(
        number=number,
        action="sql",
        summary=f"Refresh {view} ({size(view.bytes)}) {why}.",
        risk=_LOCKS_OUT if view.only_plain else _BESIDE_READERS,
        detail={
            "sql": refresh_statement(view).as_string(None),
            "view": str(view),
            "oid": view.oid,
            "plain": view.only_plain is not None,
            "bytes": view.bytes,
        },
    )


def refresh_statement(view: View) -> sql.Composed:
    """As the view needs it now."""
    how = "REFRESH MATERIALIZED VIEW {}" if view.only_plain else "REFRESH MATERIALIZED VIEW CONCURRENTLY {}"
    return sql.SQL(how).format(view.identifier)


def _stale_sources(there: Sequence[View], chosen: Sequence[View]) -> list[str]:
    """Warnings about views that are refreshed from others that are not."""
    refreshed = {view.oid for view in chosen}
    found = []
    for view in chosen:
        old = [str(one) for one in there if one.oid in view.needs - refreshed]
        if old:
            found.append(f"{view} is made of {', '.join(old)}, which is not refreshed with it")
    return found
