"""The one piece of SQL that the two dialects spell alike but SQLAlchemy keeps apart: INSERT ... ON CONFLICT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Table, bindparam

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite


def upsert(
    dialect: str,
    table: Table,
    values: Mapping[str, Any],
    *,
    key: Sequence[str],
    change: Mapping[str, Any],
    where: ColumnElement[bool] | None = None,
) -> postgresql.Insert | sqlite.Insert:
    """Insert ``values``, or, where a row with the same ``key`` is there, ``change`` it if ``where`` holds.

    Locks the row that is there in either case. ``dialect``: the connection's, by name.
    """
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert  # only here: it takes a command that only looks 30 ms
    else:
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
    return insert(table).values(values).on_conflict_do_update(index_elements=list(key), set_=dict(change), where=where)


@cache
def upsert_row(dialect: str, table: Table, key: tuple[str, ...]) -> postgresql.Insert | sqlite.Insert:
    """Insert a row given as parameters, or replace the one with the same ``key``.

    Kept, as are all statements that are run for every table: SQLAlchemy takes longer to make one than to run it.
    """
    row: dict[str, Any] = {column.name: bindparam(column.name) for column in table.columns if column.name != "id"}
    return upsert(dialect, table, row, key=key, change=row)
