"""Whether a VACUUM of a table is of any use now, and with which options."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from aurum_orchestration.errors import AccessDeniedError, UnsupportedError
from aurum_orchestration.maintenance.backends.postgres.connection import Session
from aurum_orchestration.maintenance.backends.postgres.horizon import Holder, Locker, in_the_way
from aurum_orchestration.maintenance.backends.postgres.table import PgTable
from aurum_orchestration.maintenance.backends.postgres.vacuum.state import VacuumState, scene
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType, PlanStep
from aurum_orchestration.maintenance.operations.vacuum import VacuumParameters
from aurum_orchestration.maintenance.planner.words import size

_RISK = (
    "None for rows and readers: it takes no lock that stops reads or writes, and gives up where another maintenance "
    "or an autovacuum has the table."
)
FEW_ROWS = 50
"""Changes below which statistics are never stale, as for autovacuum."""


def plan_vacuum(table: PgTable, parameters: VacuumParameters) -> MaintenancePlan:
    """One VACUUM; no step where nothing is dead, stale or old.

    Raises UnsupportedError naming who makes it useless or is at it already, AccessDeniedError without the right.
    """
    if table.kind == "partitioned":
        raise UnsupportedError("each of its partitions is vacuumed by itself", operation=OperationType.VACUUM)
    table.server.refuse_writes(OperationType.VACUUM)
    require_maintainable(table, OperationType.VACUUM)
    with table.look() as session:
        found = scene(session, table)
    state = found.state
    freeze = freezes(state, parameters)
    reason = reason_for(state, freeze=freeze, analyze=parameters.analyze)
    if reason is None:
        told = "no row is dead, and the statistics are fresh" if parameters.analyze else "no row is dead"
        return table.plan(OperationType.VACUUM, parameters.model_dump(), told, [])
    warnings = [*refuse_where_useless(found.lockers, found.holders, state, freeze=freeze), *found.long]
    step = vacuum_step(table, state, parameters, reason, freeze=freeze)
    return table.plan(OperationType.VACUUM, parameters.model_dump(), reason, [step], warnings)


def vacuum_step(
    table: PgTable, state: VacuumState, parameters: VacuumParameters, reason: str, *, freeze: bool, number: int = 1
) -> PlanStep:
    """The VACUUM as a step."""
    return PlanStep(
        number=number,
        action="sql",
        summary=f"Vacuum {table.id}: {reason}.",
        risk=_RISK,
        detail={
            "sql": statement_for(table, state, parameters, freeze=freeze).as_string(None),
            "settings": {"vacuum_cost_delay": f"{parameters.cost_delay_ms:g}ms"},
            "bytes": state.bytes,
            "dead_tuples": state.dead,
            "xid_age": state.xid_age,
        },
    )


def require_maintainable(table: PgTable, operation: str) -> None:
    """Raise AccessDeniedError with the SQL that helps when the role may not maintain the table."""
    if table.relation.maintainable:
        return
    name, role = table.identifier.as_string(None), sql.Identifier(table.server.user).as_string(None)
    owner = sql.Identifier(table.relation.owner).as_string(None)
    grant = f"GRANT MAINTAIN ON {name} TO {role}" if table.server.major >= 17 else f"GRANT {owner} TO {role}"
    raise AccessDeniedError(
        f"role {table.server.user} may not maintain the table, its owner is {table.relation.owner}",
        table=str(table.id),
        operation=operation,
        hint=f"{grant}; docs/postgres.md has the SQL for a role that can do all of it.",
    )


def freezes(state: VacuumState, parameters: VacuumParameters) -> bool:
    """Whether rows are to be frozen."""
    return parameters.freeze == "always" or (
        parameters.freeze == "auto" and state.freeze_share >= parameters.freeze_at_share
    )


def reason_for(state: VacuumState, *, freeze: bool, analyze: bool) -> str | None:
    """Why to vacuum, None when there is no reason."""
    if freeze:
        return (
            f"its oldest transaction id is {state.xid_age:,} transactions old ({state.freeze_share:.0%} of the limit)"
        )
    if state.dead:
        return f"{state.dead:,.0f} of {state.dead + state.live:,.0f} rows are dead in {size(state.bytes)}"
    if analyze and state.changed >= FEW_ROWS:
        return f"{state.changed:,.0f} rows changed since the last ANALYZE"
    if analyze and state.analyzed is None and state.live:
        return "it was never analyzed"
    return None


def refuse_useless(session: Session, table: PgTable, state: VacuumState, *, freeze: bool) -> list[str]:
    """Warnings about who holds the horizon. Raises UnsupportedError when nothing would go, or another is at it."""
    locked, held, _ = in_the_way(session, table.oid)
    return refuse_where_useless(locked, held, state, freeze=freeze)


def refuse_where_useless(
    locked: Sequence[Locker], held: Sequence[Holder], state: VacuumState, *, freeze: bool
) -> list[str]:
    """The same for what is known to be in the way."""
    for locker in locked:
        if locker.autovacuum and locker.granted:
            urgent = " to prevent wraparound, which nobody should end" if locker.wraparound else ""
            raise UnsupportedError(f"an autovacuum is at work on the table{urgent}: {locker}")
    if not held or not state.dead:
        return []
    first = held[0]
    if _sees_everything(first, state) and not freeze:
        raise UnsupportedError(
            f"a vacuum could remove none of {state.dead:,.0f} dead rows: {first} can still see them",
            hint=way_out(first),
        )
    if first.passing:
        return []
    return [f"dead rows younger than {first} stay: it can still see them. {way_out(first)}"]


def _sees_everything(holder: Holder, state: VacuumState) -> bool:
    """Whether all dead rows are younger than what the holder sees.

    They are when the whole table is, and when a vacuum that ended after the holder began has taken the older ones.
    """
    vacuumed_since = state.vacuumed is not None and holder.since is not None and state.vacuumed > holder.since
    return vacuumed_since or state.xid_age <= holder.xids


def way_out(holder: Holder) -> str:
    """What a person can do about a holder; the service ends nobody's session."""
    match holder.kind:
        case "session":
            return "End that transaction, or SELECT pg_terminate_backend of its pid once its owner agrees."
        case "prepared transaction":
            return "COMMIT PREPARED or ROLLBACK PREPARED it."
        case "standby slot":
            return (
                "End the long query on the standby that reads by it, or set hot_standby_feedback off there; drop the "
                "slot if no standby uses it any more."
            )
        case "slot":
            return "Let its consumer catch up, or drop the replication slot if nothing uses it any more."
        case _:
            return "End the long query on the standby, or set hot_standby_feedback off there."


def statement_for(table: PgTable, state: VacuumState, parameters: VacuumParameters, *, freeze: bool) -> sql.Composed:
    """The VACUUM. SKIP_LOCKED: a lock that is asked for and waited for would end an autovacuum of the table."""
    options: list[sql.Composable] = [sql.SQL("SKIP_LOCKED")]
    if parameters.analyze:
        options.append(sql.SQL("ANALYZE"))
    if freeze:
        options.append(sql.SQL("FREEZE"))
    if not parameters.truncate:
        options.append(sql.SQL("TRUNCATE false"))
    if parameters.parallel_workers is not None and (state.indexes > 1 or parameters.parallel_workers == 0):
        options.append(sql.SQL("PARALLEL {}").format(sql.Literal(parameters.parallel_workers)))
    return sql.SQL("VACUUM ({}) {}").format(sql.SQL(", ").join(options), table.only)
