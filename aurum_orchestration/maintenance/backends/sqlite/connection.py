"""Connections to a SQLite file, names in SQL, and what SQLite's errors mean."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aurum_orchestration.errors import (
    AccessDeniedError,
    AurumError,
    BackendUnavailableError,
    CorruptTableError,
    EngineError,
    LockTimeoutError,
    OperationCancelledError,
    RequestError,
    StorageWriteError,
    TableNotFoundError,
)
from aurum_orchestration.fleet.sqlite import SqliteBackendConfig
from aurum_orchestration.maintenance.interfaces import RunContext

STEPS = 20_000
"""So many steps of SQLite's machine between two looks at whether the run is to stop."""

_BUSY = "Somebody else is writing; run again, or raise the backend's lock_timeout."
_MEANINGS: dict[int, tuple[type[AurumError], str | None]] = {
    sqlite3.SQLITE_BUSY: (LockTimeoutError, _BUSY),
    sqlite3.SQLITE_LOCKED: (LockTimeoutError, _BUSY),
    sqlite3.SQLITE_CANTOPEN: (BackendUnavailableError, "Check the path and the rights on its folder."),
    sqlite3.SQLITE_CORRUPT: (CorruptTableError, "Stop writing, take a copy, and restore the last backup."),
    sqlite3.SQLITE_NOTADB: (CorruptTableError, "The file is no SQLite database, or its first page is damaged."),
    sqlite3.SQLITE_FULL: (StorageWriteError, "Make room on the disk."),
    sqlite3.SQLITE_IOERR: (StorageWriteError, None),
    sqlite3.SQLITE_READONLY: (AccessDeniedError, "Give this user the right to write the file and its folder."),
    sqlite3.SQLITE_PERM: (AccessDeniedError, None),
}


class Database:
    """One file. Nothing is opened before the first use, and nothing is kept open."""

    def __init__(self, config: SqliteBackendConfig) -> None:
        self.config = config
        self.path = Path(config.path).expanduser().absolute()

    @contextmanager
    def look(self, run: RunContext | None = None) -> Iterator[sqlite3.Connection]:
        """A connection that writes nothing, and leaves nothing beside the file."""
        # who may not write cannot take the log away again that SQLite makes for readers, too
        mode = "rw" if self._logs_and_is_closed() and os.access(self.path, os.W_OK) else "ro"
        with self._opened(mode, run) as connection:
            connection.execute("PRAGMA query_only = ON")
            yield connection

    def _logs_and_is_closed(self) -> bool:
        """Whether it has a write-ahead log when it is open, and nobody has it open now."""
        if not self.path.is_file() or self.path.with_name(f"{self.path.name}-wal").exists():
            return False
        with self.path.open("rb") as file:
            return file.read(20)[18:20] == b"\x02\x02"

    @contextmanager
    def work(self, run: RunContext | None) -> Iterator[sqlite3.Connection]:
        """A connection that can write, in autocommit, with foreign keys enforced; it never makes a new file."""
        with self._opened("rw", run) as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            yield connection

    @contextmanager
    def _opened(self, mode: str, run: RunContext | None) -> Iterator[sqlite3.Connection]:
        if not self.path.is_file():
            raise BackendUnavailableError(f"there is no file {self.path}", hint="Check the backend's path.")
        with typed_errors(run), closing(connect(self.path, mode, self.config.lock_timeout)) as connection:
            if run is not None:
                connection.set_progress_handler(run.cancelled.is_set, STEPS)
            yield connection


def connect(path: Path, mode: str, timeout: float = 5.0) -> sqlite3.Connection:
    """A connection in autocommit. ``mode``: ``ro``, ``rw`` or ``ro&immutable=1`` for a file that nobody writes."""
    uri = f"file:{quote(str(path))}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout, check_same_thread=False)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Statements that count together or not at all; the right to write is had at once or not."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.execute("COMMIT")


@contextmanager
def typed_errors(run: RunContext | None = None) -> Iterator[None]:
    """SQLite's errors raised within become typed ones."""
    try:
        yield
    except sqlite3.Error as error:
        raise as_typed(error, run) from error


def as_typed(error: sqlite3.Error, run: RunContext | None = None) -> AurumError:
    """What an error of SQLite's means."""
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_INTERRUPT and run is not None and run.cancelled.is_set():
        return OperationCancelledError("the run was cancelled", hint="Run again: it carries on from what is done.")
    if str(error).startswith("no such table"):
        return TableNotFoundError(str(error))
    kind, hint = _MEANINGS.get((code or 0) & 0xFF, (EngineError, None))
    return kind(str(error), hint=hint)


def name(*parts: str) -> str:
    """A name of a table, column or index as it stands in SQL: each part in double quotes, quotes in it doubled.

    The driver has no way to bind names. Raises RequestError for a NUL, at which SQLite would end the statement.
    """
    if any("\0" in part for part in parts):
        raise RequestError("a name holds a NUL character")
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def value(connection: sqlite3.Connection, statement: str, parameters: Any = ()) -> Any:
    """The first value of the first row, None when there is none."""
    row = connection.execute(statement, parameters).fetchone()
    return row[0] if row else None
