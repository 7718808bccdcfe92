"""Which tables a SQLite database has, and what they are like."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from aurum_orchestration.errors import StateDriftedError, TableNotFoundError, UnsupportedError
from aurum_orchestration.fleet.fleet import DATABASE
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.sqlite.connection import Database, name, value
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, PlanStep

MAIN = "main"
"""SQLite's own name of the database that a connection was opened for."""

_TABLES = """
SELECT name, wr FROM pragma_table_list
 WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name
"""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its declared type in capitals, and its place in the primary key from 1 (0: not in it)."""

    name: str
    type: str
    key: int


@dataclass(frozen=True, slots=True)
class Table:
    """A table that people made. ``key``: what a row is found by, its rowid or its primary key."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    @property
    def sql(self) -> str:
        """Its name in SQL."""
        return name(MAIN, self.name)

    def has(self, column: str) -> bool:
        """Whether there is a column of that name, in any case of letters, as SQLite takes it."""
        return any(one.name.lower() == column.lower() for one in self.columns)


@dataclass(frozen=True)
class Target:
    """What an operation is asked for on: the database (``table`` is None) or one of its tables."""

    id: TableId
    database: Database
    table: Table | None

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Which file it is, and which table."""
        found = self.database.path.stat()
        return {"file": f"{found.st_dev}:{found.st_ino}", "table": self.table.name if self.table else None}

    def plan(
        self,
        operation: str,
        parameters: dict[str, Any],
        reason: str,
        steps: list[PlanStep],
        warnings: list[str] | None = None,
    ) -> MaintenancePlan:
        """A plan for this target. It is refused once another file stands in its place."""
        return MaintenancePlan(
            table=str(self.id),
            backend=self.id.backend,
            operation=operation,
            parameters=parameters,
            reason=reason,
            fingerprint=self.fingerprint,
            steps=steps,
            warnings=warnings or [],
        )

    def require_planned(self, plan: MaintenancePlan) -> None:
        """Raise StateDriftedError when the plan was made for another file."""
        if plan.fingerprint != self.fingerprint:
            raise StateDriftedError(f"another file is at {self.database.path} since the plan", table=str(self.id))

    def require_database(self, operation: str) -> None:
        """Raise UnsupportedError for a table, naming the database's id."""
        if self.table is not None:
            raise UnsupportedError(
                f"{operation} runs on the database as a whole: {self.id.backend}.{MAIN}", operation=operation
            )


def tables_of(connection: sqlite3.Connection) -> list[Table]:
    """All tables but SQLite's own and virtual ones, by name."""
    return [_table(connection, row[0], without_rowid=bool(row[1])) for row in connection.execute(_TABLES).fetchall()]


def _table(connection: sqlite3.Connection, table: str, *, without_rowid: bool) -> Table:
    rows = connection.execute("SELECT name, type, pk FROM pragma_table_info(?, ?)", (table, MAIN)).fetchall()
    columns = tuple(Column(row[0], row[1].upper(), row[2]) for row in rows)
    names = {column.name.lower() for column in columns}
    if without_rowid:
        keyed = sorted((column.key, column.name) for column in columns if column.key)
        return Table(table, columns, tuple(column for _, column in keyed))
    rowid = next((one for one in ("rowid", "_rowid_", "oid") if one not in names), None)
    return Table(table, columns, (rowid,) if rowid else ())


def load(id: TableId, database: Database) -> Target:
    """The target that an id means: ``db.main`` or ``db.main.table``. Raises TableNotFoundError."""
    if id.parts[0] != MAIN or len(id.parts) > 2:
        raise TableNotFoundError(
            f"a SQLite database has one schema, {MAIN}",
            table=str(id),
            hint=f"Write {id.backend}.{MAIN}.{id.name} for a table, {id.backend}.{MAIN} for the database.",
        )
    if len(id.parts) == 1:
        with database.look() as connection:
            value(connection, "SELECT count(*) FROM sqlite_schema")
        return Target(id, database, None)
    with database.look() as connection:
        found = next((table for table in tables_of(connection) if table.name == id.name), None)
    if found is None:
        raise TableNotFoundError(f"no table {id.name} in {database.path}", table=str(id))
    return Target(id, database, found)


def indexes_of(connection: sqlite3.Connection, table: Table | None = None) -> list[tuple[str, str]]:
    """Name and table of each index, of one table or of all."""
    rows = connection.execute(
        "SELECT name, tbl_name FROM main.sqlite_schema WHERE type = 'index' AND (? IS NULL OR tbl_name = ?) ORDER BY 1",
        (table.name if table else None, table.name if table else None),
    )
    return [(row[0], row[1]) for row in rows]


def rows_of(connection: sqlite3.Connection, table: Table) -> int:
    """Rows of a table, counted."""
    return int(value(connection, f"SELECT count(*) FROM {table.sql}"))


def integrity(connection: sqlite3.Connection, table: Table | None = None, *, quick: bool = False) -> list[str]:
    """What SQLite finds wrong in the file, or in one table and its indexes: none when all is well."""
    check = "quick_check" if quick else "integrity_check"
    rows = connection.execute(f"PRAGMA {check}({name(table.name) if table else 100})").fetchall()
    return [text for (text,) in rows if text != "ok"]


KIND = {True: DATABASE, False: "table"}
"""Whether it is the database -> kind."""
