"""Names and values as Trino's SQL writes them. Every statement is put together from these, never by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

from aurum_orchestration.errors import RequestError
from aurum_orchestration.fleet.table_id import TableId

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import IdentifierPreparer


@lru_cache(maxsize=1)
def _preparer() -> IdentifierPreparer:
    from trino.sqlalchemy.dialect import TrinoDialect

    return TrinoDialect().identifier_preparer  # type: ignore[no-untyped-call]


def ident(name: str) -> str:
    """A name in double quotes. Trino folds names to lower case all the same."""
    if not name or "\0" in name:
        raise RequestError(f"{name!r} is no name that Trino can have")
    return _preparer().quote_identifier(name)


def relation(catalog: str, table: TableId, suffix: str = "") -> str:
    """The three-part name of a table, or of its metadata table (``suffix``: ``$files``, ``$snapshots``, ...).

    Namespaces of several levels are one schema in Trino, their names joined by dots.
    """
    return ".".join([ident(catalog), ident(schema_of(table)), ident(table.name + suffix)])


def schema_of(table: TableId) -> str:
    """The name of Trino's schema that holds the table. Raises RequestError for an id without a namespace."""
    if not table.namespace:
        raise RequestError(f"{table} has no namespace", hint="Write backend.namespace.table.")
    return ".".join(table.namespace)


def literal(value: str | float | bool | datetime | date | Decimal | Sequence[str] | None) -> str:
    """A value: text, number, boolean, date, time stamp (with its zone, if any), NULL, or an array of text."""
    match value:
        case None:
            text = "NULL"
        case bool():
            text = str(value).lower()
        case int():
            text = str(value)
        case float():
            text = repr(value).upper() if "e" in repr(value) else f"{value!r}E0"
        case Decimal():
            text = f"DECIMAL '{value}'"
        case datetime():
            text = f"TIMESTAMP '{value.replace(tzinfo=None).isoformat(' ', 'microseconds')}{_zone(value)}'"
        case date():
            text = f"DATE '{value.isoformat()}'"
        case str():
            text = "'" + value.replace("'", "''") + "'"
        case _:
            text = f"ARRAY[{', '.join(map(literal, value))}]"
    return text


def _zone(value: datetime) -> str:
    offset = value.strftime("%z")
    return f" {offset[:3]}:{offset[3:5]}" if offset else ""
