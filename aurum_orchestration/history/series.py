"""The health series: the numbers of every table over time."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select, tuple_

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.history.codec import metrics_from_text, metrics_to_text, storable
from aurum_orchestration.history.records import HealthPoint
from aurum_orchestration.history.schema import health
from aurum_orchestration.history.sql import upsert

_BATCH = 1000
_MANY_TABLES = 500


def record(connection: Connection, points: Iterable[HealthPoint]) -> None:
    """Write the points; one of the same table and moment is replaced."""
    names = [column.name for column in health.columns]
    values: dict[str, Any] = {name: bindparam(name) for name in names}
    statement = upsert(connection, health, values, key=["table_id", "at"], change=values)
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
    return [
        HealthPoint(
            table,
            row.at,
            row.state_token,
            math.nan if row.debt_score is None else row.debt_score,
            metrics_from_text(row.metrics),
        )
        for row in connection.execute(query)
    ]


def latest(connection: Connection, tables: Collection[TableId]) -> dict[TableId, HealthPoint]:
    """The newest point of each table that has any."""
    newest = select(health.c.table_id, func.max(health.c.at).label("at")).group_by(health.c.table_id)
    ids = {storable(str(table)): table for table in tables}
    if len(ids) <= _MANY_TABLES:
        newest = newest.where(health.c.table_id.in_(list(ids)))
    found = newest.subquery()
    query = select(health).join(found, (health.c.table_id == found.c.table_id) & (health.c.at == found.c.at))
    return {
        ids[row.table_id]: HealthPoint(
            ids[row.table_id], row.at, row.state_token, row.debt_score, metrics_from_text(row.metrics)
        )
        for row in connection.execute(query)
        if row.table_id in ids
    }


def prune(connection: Connection, older_than: datetime, batch: int) -> int:
    """Delete at most ``batch`` of the points from before, the oldest first; how many it were."""
    old = select(health.c.table_id, health.c.at).where(health.c.at < older_than).order_by(health.c.at).limit(batch)
    return connection.execute(delete(health).where(tuple_(health.c.table_id, health.c.at).in_(old))).rowcount
