"""Which range partitions are missing: ahead of time, and for rows that strayed into the default one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg import sql

from aurum_orchestration.errors import AccessDeniedError, UnsupportedError
from aurum_orchestration.maintenance.backends.postgres.connection import Session
from aurum_orchestration.maintenance.backends.postgres.horizon import long_transactions
from aurum_orchestration.maintenance.backends.postgres.partition_evolution.moving import (
    require_movable,
    trigger_warnings,
)
from aurum_orchestration.maintenance.backends.postgres.partition_evolution.proposal import propose
from aurum_orchestration.maintenance.backends.postgres.partition_evolution.ranges import Range, Ranges
from aurum_orchestration.maintenance.backends.postgres.partitions import Partition, partition_key, partitions
from aurum_orchestration.maintenance.backends.postgres.rows.relation import TIMES, RowTable, row_table
from aurum_orchestration.maintenance.backends.postgres.table import PgTable
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType, PlanStep
from aurum_orchestration.maintenance.operations.partition_evolution import PartitionEvolutionParameters

OPERATION = str(OperationType.PARTITION_EVOLUTION)
MOST_STRAYS = 200
"""Ranges of stray rows that one plan looks for; the next run carries on."""

_RISK = (
    "None for rows: a new table is filled and attached in one transaction. Writers wait for it, readers hardly; it "
    "gives up where it gets no lock."
)
_OWNS = (
    "SELECT pg_has_role(current_user, c.relowner, 'USAGE'), c.relowner::regrole::text FROM pg_class c WHERE c.oid = %s"
)

_GIVEN_TO = """
SELECT pg_get_userbyid(c.relowner)::text
  FROM pg_class c, pg_roles me
 WHERE c.oid = %(table)s::oid AND me.rolname = current_user AND c.relowner <> me.oid
   AND (me.rolsuper OR (pg_has_role(c.relowner, %(right)s)
                        AND has_schema_privilege(c.relowner, c.relnamespace, 'CREATE')))
"""
_SET_ROLE_IS_A_RIGHT = 16


def plan_partition_evolution(table: PgTable, parameters: PartitionEvolutionParameters) -> MaintenancePlan:
    """A step for each partition that is missing; of a large table without partitions a report that proposes some.

    Raises UnsupportedError with the reason where neither is possible.
    """
    if parameters.spec is not None or parameters.add or parameters.remove:
        raise UnsupportedError(
            "PostgreSQL cannot partition a table in place: spec, add and remove are Iceberg's",
            operation=OPERATION,
            hint="Without them, future partitions are made and large tables get a proposal.",
        )
    if table.kind == "table":
        return propose(table, parameters)
    if table.kind != "partitioned":
        raise UnsupportedError(f"a {table.kind} has no range partitions", operation=OPERATION)
    table.server.refuse_writes(OPERATION)
    with table.look() as session:
        rows = row_table(session, table.id.parts)
        key = partition_key(session, table.oid)
        if key is None or key.strategy != "r" or key.columns != 1 or key.base not in TIMES or key.column is None:
            raise UnsupportedError("it is not partitioned by ranges of one column with a time", operation=OPERATION)
        require_owner(session, table)
        parts = partitions(session, table.oid, key.base)
        ranges = Ranges(table.id.name, parts, key.base, parameters.time_zone)
        default = next((one for one in parts if one.default), None)
        now: datetime = session.value("SELECT now()")
        ahead = () if ranges.open_ended else ranges.ahead(now, parameters.premake)
        wanted = {one.name: one for one in ahead}
        warnings = long_transactions(session)
        if ranges.open_ended:
            warnings.append("a partition reaches up to MAXVALUE, so none can be made after it")
        strays: dict[str, int] = {}
        if default is not None:
            strays = _strays(session, default, key.column, ranges, wanted=wanted, warnings=warnings)
            _leave_kept(session, rows, default, key.column, ranges, wanted=wanted, strays=strays, warnings=warnings)
            warnings += trigger_warnings(session, rows, default) if any(strays.values()) else []
        owner = future_owner(session, table)
    steps = [
        step
        for number, one in enumerate(sorted(wanted.values(), key=lambda one: one.lower), 1)
        if (step := _step(number, rows, default, key.column, ranges, one, owner, strays, parameters, warnings))
        is not None
    ]
    moved = sum(step.detail["rows"] for step in steps)
    told = f"{len(steps):,} partitions of {ranges.step} are missing, {moved:,} rows wait for them in the default one"
    if not steps:
        stray = f"{sum(strays.values()):,} rows of the default one stay there" if strays else "no row strayed"
        told = f"partitions reach up to {ranges.end:%Y-%m-%d %H:%M}, and {stray}"
    return table.plan(OPERATION, parameters.model_dump(), told, steps, warnings)


def require_owner(session: Session, table: PgTable) -> None:
    """Raise AccessDeniedError unless the role may attach partitions, which only the owner may."""
    owns, owner = session.tuples(_OWNS, (table.oid,))[0]
    if not owns:
        raise AccessDeniedError(
            f"only the owner, {owner}, may attach partitions",
            hint=f"GRANT {owner} TO {sql.Identifier(table.server.user).as_string(None)};",
        )


def future_owner(session: Session, table: PgTable) -> str | None:
    """To whom a new partition is to be given, the table's owner; None where that is this role, or it may not."""
    right = "SET" if table.server.major >= _SET_ROLE_IS_A_RIGHT else "MEMBER"
    owner: str | None = session.value(_GIVEN_TO, {"table": table.oid, "right": right})
    return owner


def _strays(
    session: Session,
    default: Partition,
    column: str,
    ranges: Ranges,
    *,
    wanted: dict[str, Range],
    warnings: list[str],
) -> dict[str, int]:
    """Rows of the default partition by the range that they belong to; ranges that are not wanted yet are added."""
    found: dict[str, int] = {}
    after: Any = None
    name = sql.Identifier(column)
    for _ in range(MOST_STRAYS):
        beyond = sql.SQL("") if after is None else sql.SQL("AND {} >= {}").format(name, sql.Literal(after))
        first = session.value(
            sql.SQL("SELECT min({}) FROM ONLY {} WHERE isfinite({}) {}").format(name, default.identifier, name, beyond)
        )
        if first is None:
            return found
        one = ranges.around(ranges.wall(first))
        if one is None:
            warnings.append(f"rows from {first} on stay in {default.shown}: a partition of another width is in the way")
            return found
        one = wanted.setdefault(one.name, one)
        count = session.value(
            sql.SQL("SELECT count(*) FROM ONLY {} WHERE {}").format(default.identifier, within(column, ranges, one))
        )
        found[one.name] = int(count)
        after = ranges.bound(one.upper)
    warnings.append(f"more than {MOST_STRAYS} ranges have rows in {default.shown}; the next run carries on")
    return found


def _leave_kept(
    session: Session,
    table: RowTable,
    default: Partition,
    column: str,
    ranges: Ranges,
    *,
    wanted: dict[str, Range],
    strays: dict[str, int],
    warnings: list[str],
) -> None:
    """Take those ranges out of the wanted ones whose rows cannot leave the default partition."""
    for name, rows in strays.items():
        if not rows:
            continue
        try:
            require_movable(session, table, default, within(column, ranges, wanted[name]))
        except UnsupportedError as refused:
            del wanted[name]
            warnings.append(" ".join(filter(None, (f"{name} is not made: {refused.detail}.", refused.hint))))


def within(column: str, ranges: Ranges, one: Range) -> sql.Composed:
    """The condition for rows of a range."""
    return sql.SQL("{0} >= {1} AND {0} < {2}").format(
        sql.Identifier(column), sql.Literal(ranges.bound(one.lower)), sql.Literal(ranges.bound(one.upper))
    )


def _step(  # noqa: PLR0917 - what a step is made of
    number: int,
    table: RowTable,
    default: Partition | None,
    column: str,
    ranges: Ranges,
    one: Range,
    owner: str | None,
    strays: dict[str, int],
    parameters: PartitionEvolutionParameters,
    warnings: list[str],
) -> PlanStep | None:
    rows = strays.get(one.name, 0)
    if rows > parameters.max_move_rows:
        warnings.append(
            f"{one.name} is not made: {rows:,} rows of the default partition belong there, more than max_move_rows"
        )
        return None
    statements = statements_for(table, default, column, ranges, one, owner=owner)
    told = f", with {rows:,} rows of {default.shown}" if rows and default else ""
    return PlanStep(
        number=number,
        action="attach",
        summary=f"Make partition {table.schema}.{one.name} from {one.lower} to {one.upper}{told}.",
        risk=_RISK,
        detail={
            "sql": ";\n".join(statement.as_string(None) for statement in statements),
            "partition": one.name,
            "lower": ranges.bound(one.lower),
            "upper": ranges.bound(one.upper),
            "rows": rows,
            "default": None if default is None else [default.schema, default.name],
        },
    )


def statements_for(
    table: RowTable, default: Partition | None, column: str, ranges: Ranges, one: Range, *, owner: str | None
) -> Sequence[sql.Composed]:
    """The statements of one transaction, from the lock of the default partition to ATTACH. ``owner``: who gets it.

    Writers of the table wait meanwhile. With only the default partition locked, those whose row was on its way there
    would fail when it must not go there any more.
    """
    new = sql.Identifier(table.schema, one.name)
    lower, upper = sql.Literal(ranges.bound(one.lower)), sql.Literal(ranges.bound(one.upper))
    made = sql.SQL(
        "CREATE TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE "
        "INCLUDING COMMENTS)"
    ).format(new, table.identifier)
    attach = sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
        table.identifier, new, lower, upper
    )
    given = [sql.SQL("ALTER TABLE {} OWNER TO {}").format(new, sql.Identifier(owner))] if owner else []
    if default is None:
        return [made, *given, attach]
    kept = sql.SQL(", ").join(sql.Identifier(each.name) for each in table.columns if not each.generated)
    key = sql.Identifier(column)
    check = sql.SQL("ALTER TABLE {} ADD CHECK ({} IS NOT NULL AND {} >= {} AND {} < {})").format(
        new, key, key, lower, key, upper
    )
    return [
        sql.SQL("LOCK TABLE ONLY {}, ONLY {} IN SHARE ROW EXCLUSIVE MODE").format(table.identifier, default.identifier),
        made,
        sql.SQL(
            "WITH moved AS (DELETE FROM ONLY {} WHERE {} RETURNING {}) INSERT INTO {} ({}) SELECT {} FROM moved"
        ).format(default.identifier, within(column, ranges, one), kept, new, kept, kept),
        check,
        *given,
        attach,
    ]
