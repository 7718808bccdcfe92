"""What a SQLite database tells of itself: sizes and indexes. It counts no use of them, and has no sessions to show."""

from __future__ import annotations

import sqlite3
from contextlib import suppress

from aurum_orchestration.maintenance.backends.sqlite.connection import Database, value
from aurum_orchestration.maintenance.database_report import DatabaseInfo, IndexInfo, LockWait, LongQuery, TableSize

_INDEXES = """
SELECT i.name, t.name, i."unique", i.origin <> 'c', coalesce(s.sql, '')
  FROM main.sqlite_schema t, pragma_index_list(t.name, 'main') i
  LEFT JOIN main.sqlite_schema s ON s.type = 'index' AND s.name = i.name
 WHERE t.type = 'table' ORDER BY 1
"""


class SqliteInspector:
    """One file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def info(self) -> DatabaseInfo:
        """Which file it is."""
        engine = f"SQLite {sqlite3.sqlite_version}"
        return DatabaseInfo(database_type="sqlite", engine=engine, name=str(self._database.path))

    def size(self) -> int:
        """Bytes of the file and of its write-ahead log."""
        whole = self._database.path.stat().st_size
        with suppress(FileNotFoundError):
            whole += self._database.path.with_name(f"{self._database.path.name}-wal").stat().st_size
        return whole

    def table_sizes(self, limit: int | None) -> list[TableSize]:
        """Tables with their pages, the largest first. Empty where SQLite was built without ``dbstat``."""
        query = """
            SELECT s.tbl_name, sum(d.pgsize), sum(d.pgsize) FILTER (WHERE s.type = 'table')
              FROM dbstat d JOIN main.sqlite_schema s ON s.name = d.name
             WHERE s.tbl_name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND d.aggregate = 1
             GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT ?
        """
        with self._database.look() as connection:
            if not value(connection, "SELECT count(*) FROM pragma_module_list WHERE name = 'dbstat'"):
                return []
            rows = connection.execute(query, (-1 if limit is None else limit,)).fetchall()
        return [
            TableSize(
                table=f"main.{one[0]}", total_bytes=one[1], table_bytes=one[2] or 0, index_bytes=one[1] - (one[2] or 0)
            )
            for one in rows
        ]

    def indexes(self) -> list[IndexInfo]:
        """All indexes by name."""
        with self._database.look() as connection:
            rows = connection.execute(_INDEXES).fetchall()
        return [
            IndexInfo(
                index=f"main.{one[0]}",
                table=f"main.{one[1]}",
                unique=bool(one[2]),
                needed=bool(one[2] or one[3]),
                definition=one[4],
            )
            for one in rows
        ]

    def connections(self) -> int:
        """Ours: SQLite knows no other."""
        return 1

    def long_running(self, seconds: float) -> list[LongQuery]:  # noqa: ARG002 - the protocol
        """None that could be seen."""
        return []

    def locks(self) -> list[LockWait]:
        """None that could be seen."""
        return []
