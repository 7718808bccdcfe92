"""Which rows are old, as SQL: by columns with and without a zone, never those without a time."""

from __future__ import annotations

from datetime import datetime

from psycopg import sql

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.maintenance.backends.postgres.rows.relation import TIMES, Column, RowTable
from aurum_orchestration.maintenance.backends.rules.clock import date_cutoff, local_cutoff


def old_rows(table: RowTable, column: str, before: datetime, time_zone: str, marked: str | None = None) -> sql.Composed:
    """The condition for rows older than an aware moment; ``marked``: and with this column true or set.

    Nulls and infinite times are not old. Raises UnsupportedError for a column that is no time or no mark.
    """
    given = table.column(column)
    found = [
        sql.SQL("{} < {}").format(sql.Identifier(column), _limit(table, given, before, time_zone)),
        sql.SQL("isfinite({})").format(sql.Identifier(column)),
    ]
    if marked is not None:
        found.append(_mark(table, table.column(marked)))
    return sql.SQL(" AND ").join(found)


def not_old_rows(table: RowTable, column: str, before: datetime, time_zone: str) -> sql.Composed:
    """The condition for rows that are not older than an aware moment, or have no time.

    Written so that the planner sees from a partition's own check constraint that it has none, without reading it.
    """
    limit = _limit(table, table.column(column), before, time_zone)
    return sql.SQL("({column} >= {limit} OR {column} IS NULL)").format(column=sql.Identifier(column), limit=limit)


def surely_old(table: RowTable, column: str, moment: sql.Composable, before: datetime, time_zone: str) -> sql.Composed:
    """The same about a value ``moment`` of the column, reckoned by the server's own time zones: judges a deletion."""
    limit = sql.Literal(before.isoformat())
    match table.column(column).base:
        case "timestamptz":
            left = moment
        case "timestamp":
            left = sql.SQL("({} AT TIME ZONE {})").format(moment, sql.Literal(time_zone))
        case _:
            return sql.SQL("(({} + 1)::timestamp AT TIME ZONE {}) <= {}::timestamptz").format(
                moment, sql.Literal(time_zone), limit
            )
    return sql.SQL("{} < {}::timestamptz").format(left, limit)


def _limit(table: RowTable, column: Column, before: datetime, time_zone: str) -> sql.Composed:
    match column.base:
        case "timestamptz":
            return sql.SQL("{}::timestamptz").format(sql.Literal(before.isoformat()))
        case "timestamp":
            return sql.SQL("{}::timestamp").format(sql.Literal(local_cutoff(before, time_zone).isoformat(" ")))
        case "date":
            return sql.SQL("{}::date").format(sql.Literal(date_cutoff(before, time_zone).isoformat()))
    raise UnsupportedError(
        f"column {column.name} of {table.shown} is {column.type}: only {', '.join(TIMES)} say how old a row is"
    )


def _mark(table: RowTable, column: Column) -> sql.Composed:
    if column.base == "bool":
        return sql.SQL("{} IS TRUE").format(sql.Identifier(column.name))
    if column.base in TIMES:
        return sql.SQL("{} IS NOT NULL").format(sql.Identifier(column.name))
    raise UnsupportedError(f"column {column.name} of {table.shown} is {column.type}, which marks nothing as deleted")
