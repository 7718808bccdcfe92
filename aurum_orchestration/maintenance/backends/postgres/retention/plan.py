"""What a retention of a table would do: old rows in batches, or partitions that are old as a whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from psycopg import sql

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.maintenance.backends.postgres.connection import Session
from aurum_orchestration.maintenance.backends.postgres.horizon import long_transactions
from aurum_orchestration.maintenance.backends.postgres.partitions import (
    Bound,
    Detached,
    Partition,
    PartitionKey,
    bounds,
    detached,
    partition_key,
    partitions,
)
from aurum_orchestration.maintenance.backends.postgres.rows.condition import old_rows
from aurum_orchestration.maintenance.backends.postgres.rows.references import referrers
from aurum_orchestration.maintenance.backends.postgres.rows.relation import RowTable, row_table
from aurum_orchestration.maintenance.backends.postgres.rules.engine import PostgresRules
from aurum_orchestration.maintenance.backends.postgres.table import PgTable
from aurum_orchestration.maintenance.backends.rules.chores import Chore
from aurum_orchestration.maintenance.backends.rules.clock import cutoff, date_cutoff, local_cutoff
from aurum_orchestration.maintenance.backends.rules.work import step_of
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType, PlanStep
from aurum_orchestration.maintenance.operations.retention import RetentionParameters

OPERATION = str(OperationType.RETENTION)

_DETACH_RISK = (
    "None for the rows: they stay in the partition, which is a table of its own then. Queries of the table no longer "
    "find them."
)
_WITH_DEFAULT = (
    "The table has a default partition, so PostgreSQL refuses to detach concurrently: the plain way locks the table "
    "for a moment, and gives up after lock_timeout rather than let others wait."
)


def plan_retention(table: PgTable, parameters: RetentionParameters) -> MaintenancePlan:
    """Steps of three kinds: ``drop`` what was detached long enough ago, ``detach``, ``delete``.

    Raises UnsupportedError without time_column or row_days, and for what foreign keys keep or would take along.
    """
    if table.kind not in {"table", "partitioned"}:
        raise UnsupportedError(f"a {table.kind} has no rows of its own that could be deleted", operation=OPERATION)
    if parameters.time_column is None:
        raise UnsupportedError(
            "time_column is not set: nothing says which rows are old",
            operation=OPERATION,
            hint="Set time_column and row_days in the table's retention policy.",
        )
    days = days_of(parameters)
    table.server.refuse_writes(OPERATION)
    engine = PostgresRules(table, OPERATION)
    now = engine.now()
    before = cutoff(now, days)
    with table.look() as session:
        rows = row_table(session, table.id.parts)
        base = rows.column(parameters.time_column).base
        old = old_rows(rows, parameters.time_column, before, parameters.time_zone)
        key = partition_key(session, table.oid)
        by_time = key is not None and key.by_range_of(parameters.time_column)
        parts = partitions(session, table.oid, base) if by_time else []
        limit = bound_limit(base, before, parameters.time_zone)
        former = detached(session, rows.shown) if by_time else []
        whole = [one for one in parts if is_old(one.upper, limit)]
        warnings = [_half_detached(rows, one) for one in parts if one.pending and one not in whole]
        if warnings:
            whole = []  # the server detaches no other meanwhile
        steps = [_drop(one, now, before) for one in former if _due(one, now, base, limit, parameters)]
        steps += [_detach(rows, one, key) for one in sorted(whole, key=lambda one: not one.pending)]
        warnings += [
            f"{one.schema}.{one.name} was detached at {one.at:%Y-%m-%d %H:%M} and waits to be dropped"
            for one in former
            if not _due(one, now, base, limit, parameters)
        ]
        if whole and key is not None and key.has_default:
            warnings.append(_WITH_DEFAULT)
        if by_time:
            warnings += referrers(session, rows, old, cascade=parameters.cascade).warnings
        warnings += long_transactions(session)
    chores = _chores(rows, parts, whole, parameters, by_time=by_time)
    for chore in chores:
        outlook = engine.look(chore, before)
        warnings += outlook.warnings
        if outlook.rows != 0:
            steps.append(step_of(0, chore, before, outlook))
    steps = [step.model_copy(update={"number": number}) for number, step in enumerate(steps, 1)]
    return table.plan(OPERATION, parameters.model_dump(), _reason(steps, before), steps, list(dict.fromkeys(warnings)))


def days_of(parameters: RetentionParameters) -> float:
    """Days that rows are kept. Raises UnsupportedError unless somebody said how many: a default would delete rows."""
    if parameters.row_days is None:
        raise UnsupportedError(
            "row_days is not set: nothing says how long rows are kept",
            operation=OPERATION,
            hint="Set row_days beside time_column in the table's retention policy; retention_days is about snapshots.",
        )
    return parameters.row_days


def bound_limit(base: str, before: datetime, time_zone: str) -> Bound:
    """Up to which upper bound a partition is old as a whole, in the type of its key."""
    match base:
        case "timestamptz":
            return before
        case "timestamp":
            return local_cutoff(before, time_zone)
    return date_cutoff(before, time_zone)


def is_old(upper: Bound, limit: Bound) -> bool:
    """Whether all rows before ``upper`` are old."""
    return upper is not None and limit is not None and upper <= limit  # type: ignore[operator]


def _chores(
    table: RowTable, parts: list[Partition], whole: list[Partition], parameters: RetentionParameters, *, by_time: bool
) -> list[Chore]:
    if not by_time:
        places = [(table.schema, table.name)]
    else:
        wanted = [one for one in parts if one not in whole and (one.default or parameters.rewrite_files)]
        places = [(one.schema, one.name) for one in wanted]
    return [
        Chore(
            title="",
            table=place,
            column=parameters.time_column or "",
            days=days_of(parameters),
            batch=parameters.batch_size,
            time_zone=parameters.time_zone,
            cascade=parameters.cascade,
        )
        for place in places
    ]


def _due(one: Detached, now: datetime, base: str, limit: Bound, parameters: RetentionParameters) -> bool:
    _, upper = bounds(one.bound, base)
    return one.at + timedelta(hours=parameters.drop_after_hours) <= now and is_old(upper, limit)


def _detach(table: RowTable, one: Partition, key: PartitionKey | None) -> PlanStep:
    plain = key is not None and key.has_default
    return PlanStep(
        number=1,
        action="detach",
        summary=f"Detach partition {one.shown} ({one.bound.removeprefix('FOR VALUES ')}), which is old as a whole.",
        risk=_DETACH_RISK,
        detail={
            "sql": detach_statement(table, one, plain=plain).as_string(None),
            "partition": [one.schema, one.name],
            "oid": one.oid,
            "bound": one.bound,
            "plain": plain,
            "bytes": one.bytes,
            "rows_estimated": max(0.0, one.rows),
        },
    )


def detach_statement(table: RowTable, one: Partition, *, plain: bool) -> sql.Composed:
    """The statement that takes a partition out; FINALIZE where one that was killed had begun."""
    how = "FINALIZE" if one.pending else "" if plain else "CONCURRENTLY"
    return sql.SQL("ALTER TABLE {} DETACH PARTITION {} {}").format(table.identifier, one.identifier, sql.SQL(how))


def _half_detached(table: RowTable, one: Partition) -> str:
    return (
        f"{one.shown} is not old, and somebody's DETACH CONCURRENTLY of it was cut short; before that is finished no "
        f"partition can be detached: {detach_statement(table, one, plain=False).as_string(None)};"
    )


def _drop(one: Detached, now: datetime, before: datetime) -> PlanStep:
    hours = (now.astimezone(UTC) - one.at).total_seconds() / 3600
    return PlanStep(
        number=1,
        action="drop",
        summary=f"Drop {one.schema}.{one.name}, which was detached {hours:,.0f} hours ago.",
        risk="The rows are gone for good. It is refused where views or keys still need the table.",
        detail={
            "sql": drop_statement(one).as_string(None),
            "partition": [one.schema, one.name],
            "oid": one.oid,
            "bytes": one.bytes,
            "before": before.astimezone(UTC).isoformat(),
        },
    )


def drop_statement(one: Detached) -> sql.Composed:
    """The statement that drops a former partition."""
    return sql.SQL("DROP TABLE {}").format(one.identifier)


def parent_of(session: Session, table: PgTable) -> RowTable:
    """The table as it is now."""
    return row_table(session, table.id.parts)


def _reason(steps: list[PlanStep], before: datetime) -> str:
    if not steps:
        return f"no row is older than {before:%Y-%m-%d %H:%M} UTC"
    told = []
    for action, words in (("drop", "partitions to drop"), ("detach", "partitions to detach")):
        number = sum(step.action == action for step in steps)
        if number:
            told.append(f"{number:,} {words}")
    rows = [step.detail["rows"] for step in steps if step.action == "delete"]
    if rows:
        told.append(f"{sum(one or 0 for one in rows):,} rows to delete" if None not in rows else "rows to delete")
    return f"{', '.join(told)}: older than {before:%Y-%m-%d %H:%M} UTC"
