"""The health series: the numbers of every table over time."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import CTE, Connection, Row, Text, column, delete, func, select, tuple_, values

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.history.codec import metrics_from_text, metrics_to_text, storable
from aurum_orchestration.history.records import HealthPoint
from aurum_orchestration.history.schema import health
from aurum_orchestration.history.sql import upsert_row

_BATCH = 1000
_MANY_TABLES = 500


def record(connection: Connection, points: Iterable[HealthPoint]) -> None:
    """Write the points; one of the same table and moment is replaced."""
    statement = upsert_row(connection.dialect.name, health, ("table_id", "at"))
    rows = (
        {
            "table_id": storable(str(point.table)),
            "at": point.at,
            "state_token": storable(point.state_token),
            "debt_score": None if math.isnan(point.debt_score) else point.debt_score,
            "metrics": metrics_to_text(point.metrics),
        }
        for point in points
    )
    while batch := list(islice(rows, _BATCH)):
        connection.execute(statement, batch)


def points(connection: Connection, table: TableId, since: datetime | None) -> list[HealthPoint]:
    """The points of one table, oldest first."""
    query = select(health).where(health.c.table_id == storable(str(table))).order_by(health.c.at)
    if since is not None:
        query = query.where(health.c.at >= since)
    return [_point(table, row) for row in connection.execute(query)]


def latest(connection: Connection, tables: Collection[TableId]) -> dict[TableId, HealthPoint]:
    """The newest point of each table that has any, in one query that looks at no older ones."""
    names = {storable(str(table)): table for table in tables}
    if not names:
        return {}
    ids = _given(list(names)) if len(names) <= _MANY_TABLES else _all_tables()
    other = health.alias()
    newest = select(func.max(other.c.at)).where(other.c.table_id == ids.c.table_id).scalar_subquery()
    query = select(health).join(ids, (health.c.table_id == ids.c.table_id) & (health.c.at == newest))
    rows = connection.execute(query)
    return {names[row.table_id]: _point(names[row.table_id], row) for row in rows if row.table_id in names}


def prune(connection: Connection, older_than: datetime, batch: int) -> int:
    """Delete at most ``batch`` of the points from before, the oldest first; how many it were."""
    old = select(health.c.table_id, health.c.at).where(health.c.at < older_than).order_by(health.c.at).limit(batch)
    return connection.execute(delete(health).where(tuple_(health.c.table_id, health.c.at).in_(old))).rowcount


def _point(table: TableId, row: Row[Any]) -> HealthPoint:
    debt = math.nan if row.debt_score is None else row.debt_score
    return HealthPoint(table, row.at, row.state_token, debt, metrics_from_text(row.metrics))


def _given(tables: Sequence[str]) -> CTE:
    return values(column("table_id", Text), name="given").data([(table,) for table in tables]).cte("ids")


def _all_tables() -> CTE:
    """Every table of the series: from each the index is asked for the next, because DISTINCT would read it all."""
    ids = select(func.min(health.c.table_id).label("table_id")).cte("ids", recursive=True)
    after = select(func.min(health.c.table_id)).where(health.c.table_id > ids.c.table_id).scalar_subquery()
    return ids.union_all(select(after).where(ids.c.table_id.is_not(None)))
