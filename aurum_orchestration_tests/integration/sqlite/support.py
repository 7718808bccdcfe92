"""A database in a file, and the service on it."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aurum_orchestration.maintenance.backends.sqlite.backend import SqliteMaintenanceBackend
from aurum_orchestration.maintenance.interfaces import MaintenanceResult
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.settings import AurumSettings

DB = "db.main"

RULES = """\
    logs:
      - {title: Audit Logs, table: main.audit, time_column: at, age_days: 90, batch_size: 100}
    sessions:
      - {title: Sessions, table: main.sessions, expiry_column: expires}
    cleanup:
      - {title: Failed Tasks, table: main.failed, time_column: at, archive_table: main.failed_archive}
"""

SCHEMA = """
CREATE TABLE audit (id INTEGER PRIMARY KEY, at TEXT, note TEXT);
CREATE INDEX audit_at ON audit (at);
CREATE TABLE sessions (key TEXT PRIMARY KEY, expires INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE failed (id INTEGER PRIMARY KEY, at TEXT, why TEXT);
CREATE TABLE failed_archive (id INTEGER PRIMARY KEY, at TEXT, why TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
INSERT INTO audit SELECT i, datetime('now', '-' || (i * 4 - 2) || ' hours'), 'note ' || i FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
INSERT INTO sessions SELECT 'key' || i, unixepoch('now') + (i - 100) * 3600 FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
INSERT INTO failed SELECT i, datetime('now', '-' || (i * 10 - 3) || ' days'), 'why ' || i FROM n;
"""
"""1,000 entries of 4 hours each, 300 sessions of which about 100 have expired, 100 failed tasks of 10 days each."""


@dataclass
class File:
    """One database; the fleet has it as ``db``."""

    path: Path
    home: Path

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of one statement, committed."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            return connection.execute(statement, parameters).fetchall()

    def script(self, text: str) -> None:
        """Several statements."""
        with closing(sqlite3.connect(self.path)) as connection:
            connection.executescript(text)

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of all tables."""
        tables = self.sql("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
        return {name: sorted(self.sql(f'SELECT * FROM "{name}"')) for (name,) in tables}

    def digests(self) -> dict[str, str]:
        """What is in the folder of the file: it, and what SQLite puts beside it."""
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.path.parent.iterdir()
            if path.is_file()
        }

    def backend(self, **config: Any) -> SqliteMaintenanceBackend:
        """A backend of its own."""
        return SqliteMaintenanceBackend({"path": str(self.path), **config}, name="db")

    def settings(self, extra: str = RULES) -> AurumSettings:
        """Settings whose fleet has this database as ``db``; ``extra`` are lines of YAML below it."""
        self.home.mkdir(exist_ok=True)
        fleet = self.home / "fleet.yaml"
        fleet.write_text(f'version: 1\nbackends:\n  db:\n    type: sqlite\n    path: "{self.path}"\n{extra}')
        return AurumSettings(home=self.home, fleet=fleet, history_url=f"sqlite:///{self.home}/history.db")

    def maintain(
        self, operation: str, tables: Sequence[str] = (DB,), *, dry_run: bool = False, extra: str = RULES, **given: Any
    ) -> list[MaintenanceResult]:
        """One round of an operation, as ``aurum run --operation`` does it."""
        settings = self.settings(extra)

        async def go() -> list[MaintenanceResult]:
            async with MaintenanceService(settings) as service:
                return await service.maintain(list(tables), [operation], dry_run, parameters=given)

        return asyncio.run(go())

    def run(self, operation: str, table: str = DB, **options: Any) -> MaintenanceResult:
        """The result of an operation on one table."""
        (result,) = self.maintain(operation, [table], **options)
        return result
