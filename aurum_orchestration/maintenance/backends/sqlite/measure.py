"""Health of a SQLite database and its tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime

from aurum_orchestration.errors import TableNotFoundError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.sqlite.catalog import MAIN, Table, tables_of
from aurum_orchestration.maintenance.backends.sqlite.connection import Database, value
from aurum_orchestration.maintenance.interfaces import OperationType, TableHealth

REFUSALS = {
    OperationType.COMPACTION.value: "SQLite has no files to compact: vacuum writes the database anew",
    OperationType.RETENTION.value: "old rows of a SQLite table go by rule groups: cleanup, logs or sessions",
    OperationType.PARTITION_EVOLUTION.value: "SQLite has no partitions",
    OperationType.MANIFESTS.value: "SQLite has no manifests",
    OperationType.VIEWS.value: "SQLite has no materialized views",
    OperationType.BLOAT.value: "SQLite keeps no dead rows: `aurum status` tells its free pages, vacuum gives them back",
}
"""What SQLite cannot do, and why."""

_WHOLE = "it is done for the whole database at once"
_OF_TABLES = {
    **REFUSALS,
    OperationType.VACUUM.value: f"{_WHOLE}: ask for it on {MAIN}",
    OperationType.BACKUP.value: f"{_WHOLE}: ask for it on {MAIN}",
}
_GROUPS = ("cleanup", "logs", "sessions")


def measure(backend: str, database: Database, tables: Sequence[TableId]) -> list[TableHealth]:
    """Health of the database and its tables, in the order given, over one connection."""
    now = datetime.now(UTC)
    with database.look() as connection:
        token = str(value(connection, "PRAGMA schema_version")) + f".{_changes(database)}"
        known = {table.name: table for table in tables_of(connection)}
        analyzed = analyzed_rows(connection)
        groups = database.config.counts()
        healths = []
        for id in tables:
            if id.parts == (MAIN,):
                metrics = _database(connection, database)
                healths.append(TableHealth(id, backend, token, now, metrics=metrics, refusals=REFUSALS))
            elif len(id.parts) == 2 and id.parts[0] == MAIN and id.name in known:
                about = dict.fromkeys((f"{name}_groups" for name in _GROUPS), 0.0) | groups.get(id.parts, {})
                metrics = _table(connection, known[id.name], analyzed) | about
                healths.append(TableHealth(id, backend, token, now, metrics=metrics, refusals=_OF_TABLES))
            else:
                missing = TableNotFoundError(f"no such table in {database.path}", table=str(id))
                healths.append(TableHealth(id, backend, "", now, problem=missing.problem()))
    return healths


def _changes(database: Database) -> str:
    """What changes with every write: the file's time and size, and those of its log."""
    parts = []
    for path in (database.path, database.path.with_name(f"{database.path.name}-wal")):
        if path.exists():
            found = path.stat()
            parts.append(f"{found.st_mtime_ns}.{found.st_size}")
    return ".".join(parts)


def _database(connection: sqlite3.Connection, database: Database) -> dict[str, float]:
    pages, free, page = (
        float(value(connection, f"PRAGMA {pragma}")) for pragma in ("page_count", "freelist_count", "page_size")
    )
    log = database.path.with_name(f"{database.path.name}-wal")
    return {
        "database_bytes": pages * page,
        "pages": pages,
        "free_pages": free,
        "free_bytes": free * page,
        "wal_bytes_kept": float(log.stat().st_size) if log.exists() else 0.0,
        **{f"{name}_groups": float(len(database.config.groups(name))) for name in _GROUPS},
    }


def _table(connection: sqlite3.Connection, table: Table, analyzed: dict[str, float]) -> dict[str, float]:
    indexes = value(connection, "SELECT count(*) FROM pragma_index_list(?, ?)", (table.name, MAIN))
    metrics = {"indexes": float(indexes)}
    rows = rows_about(connection, table, analyzed)
    return metrics if rows is None else {"rows": rows, **metrics}


def rows_about(connection: sqlite3.Connection, table: Table, analyzed: dict[str, float]) -> float | None:
    """Rows as the last ANALYZE counted them, else at most the highest rowid; None where neither is known."""
    if table.name in analyzed:
        return analyzed[table.name]
    return highest(connection, table)


def highest(connection: sqlite3.Connection, table: Table) -> float | None:
    """The highest rowid, had at once: no fewer than the rows where they were never numbered by hand."""
    if table.key and not table.has(table.key[0]):
        return float(value(connection, f"SELECT max({table.key[0]}) FROM {table.sql}") or 0)
    return None


def analyzed_rows(connection: sqlite3.Connection) -> dict[str, float]:
    """Rows by table, as the last ANALYZE counted them."""
    if not value(connection, "SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_stat1'"):
        return {}
    # a table without an index has a row whose stat is the number of its rows alone; a partial index counts fewer
    rows = connection.execute("SELECT tbl, max(CAST(stat AS INTEGER)) FROM main.sqlite_stat1 GROUP BY tbl")
    return {row[0]: float(row[1]) for row in rows}
