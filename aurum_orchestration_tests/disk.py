"""SQLite without waiting for the disk, in every process that imports this: what kill -9 leaves is the same.

Only a power cut would lose something, and no test cuts the power. Syncs are most of what SQLite costs: a test with a
catalog, a history and a Dagster instance of its own makes hundreds. PostgreSQL runs with ``fsync=off`` likewise.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine


@event.listens_for(Engine, "connect")
def _do_not_wait(connection: Any, _record: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        with suppress(sqlite3.Error):  # a file that is no database is for the first statement to find
            connection.execute("PRAGMA synchronous=OFF").close()


@contextmanager
def waited_for() -> Iterator[None]:
    """Connections that are opened in here wait for the disk as those of users do."""
    event.remove(Engine, "connect", _do_not_wait)
    try:
        yield
    finally:
        event.listen(Engine, "connect", _do_not_wait)
