"""Foreign keys that refer to rows that are to go."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.maintenance.backends.sqlite.catalog import MAIN, Table, tables_of
from aurum_orchestration.maintenance.backends.sqlite.connection import name, value


@dataclass(frozen=True, slots=True)
class Reference:
    """``child`` refers to the table; ``rows`` of its rows refer to old ones, and ``action`` is what happens to them."""

    child: str
    columns: tuple[str, ...]
    action: str
    rows: int

    def __str__(self) -> str:
        return f"{self.child} ({', '.join(self.columns)}), ON DELETE {self.action}, {self.rows:,} rows"


def require_free(
    connection: sqlite3.Connection, table: Table, old: str, limits: dict[str, str | float], *, cascade: bool
) -> list[str]:
    """Sentences about rows that go along. Raises UnsupportedError when others refer to old rows and may not."""
    found = [one for one in _references(connection, table, old, limits) if one.rows]
    kept = [one for one in found if one.action in {"NO ACTION", "RESTRICT"} or not cascade]
    if kept:
        raise UnsupportedError(
            f"rows of other tables refer to old rows of {table.name}: {'; '.join(map(str, kept))}",
            hint="Clean those tables first, or write cascade: true where their rows may go along or be changed.",
        )
    return [f"foreign keys take along or change rows of {one}" for one in found]


def _references(
    connection: sqlite3.Connection, table: Table, old: str, limits: dict[str, str | float]
) -> list[Reference]:
    primary = tuple(one.name for one in sorted(table.columns, key=lambda one: one.key) if one.key)
    found = []
    for child in tables_of(connection):
        keys: dict[int, list[tuple[str, str | None, str]]] = {}
        rows = connection.execute(
            'SELECT id, "table", "from", "to", on_delete FROM pragma_foreign_key_list(?, ?) ORDER BY id, seq',
            (child.name, MAIN),
        )
        for number, parent, column, to, action in rows.fetchall():
            if parent.lower() == table.name.lower():
                keys.setdefault(number, []).append((column, to, action))
        for parts in keys.values():
            columns = tuple(column for column, _, _ in parts)
            to_columns = tuple(to for _, to, _ in parts if to) or primary
            query = (
                f"SELECT count(*) FROM {child.sql} AS child WHERE EXISTS ("
                f"SELECT 1 FROM {table.sql} AS parent WHERE {old} AND {_joined(columns, to_columns)})"
            )
            found.append(Reference(child.name, columns, parts[0][2], int(value(connection, query, limits))))
    return found


def _joined(columns: tuple[str, ...], to: tuple[str, ...]) -> str:
    return " AND ".join(
        f"parent.{name(parent)} = child.{name(column)}" for column, parent in zip(columns, to, strict=True)
    )
