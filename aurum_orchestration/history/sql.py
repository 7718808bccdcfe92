"""The one piece of SQL that the two dialects spell alike but SQLAlchemy keeps apart: INSERT ... ON CONFLICT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

Insert = postgresql.Insert | sqlite.Insert


def upsert(
    connection: Connection,
    table: Table,
    values: Mapping[str, Any],
    *,
    key: Sequence[str],
    change: Mapping[str, Any],
    where: ColumnElement[bool] | None = None,
) -> Insert:
    """Insert ``values``, or, where a row with the same ``key`` is there, ``change`` it if ``where`` holds.

    Locks the row that is there in either case.
    """
    insert: Insert = (
        postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
    ).values(values)
    return insert.on_conflict_do_update(index_elements=list(key), set_=dict(change), where=where)
