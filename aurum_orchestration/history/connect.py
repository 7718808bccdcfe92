"""One store behind a URL: connections that read, transactions that write, and errors people can act on.

Nothing is opened before first use. Reading a store that was never made answers "nothing there" and
makes nothing; writing makes it. Every write takes the store's lock at its start (``BEGIN IMMEDIATE``
on SQLite), so that what it reads cannot change before it writes.

What is written survives the death of any process. A SQLite file is told to wait for the disk only where a
write says ``lasting``: docs/adr/0007-what-the-history-waits-for.md has what a power cut may then take back.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, make_url, select
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from aurum_orchestration.errors import ConfigurationError, MissingExtraError, redact
from aurum_orchestration.history.faults import unavailable
from aurum_orchestration.history.migrate import revision, upgrade
from aurum_orchestration.history.schema import HEAD, store_time

WAIT_SECONDS = 10
"""How long a statement waits for a lock, and a connection for its server."""

_BEGIN, _LASTING = "aurum_begin", "aurum_lasting"
_EXAMPLES = "Write sqlite:////folder/history.db or postgresql://user@host:5432/database."


class Store:
    """Connections to one history store. Safe to use from many threads."""

    def __init__(self, url: str) -> None:
        self._url = _checked(url)
        self._path = Path(self._url.database or "") if self._url.get_backend_name() == "sqlite" else None
        self._name = redact(self._url.render_as_string(hide_password=True))
        self._lock = threading.Lock()
        self._made: Engine | None = None
        self._current = False
        self._keepers = 0
        self._kept: Connection | None = None
        self._kept_file: _File | None = None

    def __str__(self) -> str:
        return self._name

    @contextmanager
    def reading(self) -> Iterator[Connection | None]:
        """A connection to read with, or None when the store was never written to.

        An older store is read as if it were migrated and stays as it is: a dry run writes nothing.
        """
        with self._explained():
            found = None if self._missing() else self._revision()
            if found is None:
                yield None
            elif found == HEAD:
                with self._engine().connect() as connection:
                    yield connection
            else:
                with self._transaction() as connection:
                    upgrade(connection)
                    yield connection
                    connection.rollback()

    @contextmanager
    def writing(self, *, lasting: bool = False) -> Iterator[Connection]:
        """A transaction that holds the write lock and commits at the end, or rolls back on any error.

        ``lasting``: it is on the disk when it has ended, also for a power cut. PostgreSQL decides that by itself.
        """
        with self._explained():
            if self._missing():
                self.close()
            if not self._current:
                self._prepare()
            self._keep()
            with self._begin(lasting=lasting) as connection:
                yield connection

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within, a SQLite file stays open once it was written to.

        Whoever closes it last writes its log back and removes it, which takes longer than most writes.
        """
        with self._lock:
            self._keepers += 1
        try:
            yield
        finally:
            with self._lock:
                self._keepers -= 1
                if not self._keepers:
                    self._let_go()

    def look(self) -> tuple[str, datetime] | None:
        """Revision of the schema and the store's clock, None when there is no store. Changes nothing."""
        with self._explained():
            if self._missing():
                return None
            with self._engine().connect() as connection:
                found = revision(connection)
                now = connection.execute(select(store_time(0))).scalar_one()
            return None if found is None else (found, now)

    def close(self) -> None:
        """Close all connections. The store can be used again; calling it twice does nothing more."""
        with self._lock:
            self._let_go()
            engine, self._made, self._current = self._made, None, False
        if engine is not None:
            engine.dispose()

    def _keep(self) -> None:
        if self._path is None or not self._keepers:
            return
        engine, file = self._engine(), _file(self._path)
        with self._lock:
            if not self._keepers or (self._kept is not None and self._kept_file == file):
                return
            self._let_go()  # another file took its place
            kept = engine.connect().execution_options(**{_BEGIN: None})
            self._kept, self._kept_file = kept, file
            kept.exec_driver_sql("PRAGMA schema_version")  # SQLite opens it when it is read
            kept.rollback()

    def _let_go(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()

    def _missing(self) -> bool:
        return self._path is not None and not self._path.exists()

    def _revision(self) -> str | None:
        """The schema's revision, None when there is none; looked up until it is the current one."""
        if not self._current:
            with self._engine().connect() as connection:
                found = revision(connection)
            if found != HEAD:
                return found
            self._current = True
        return HEAD

    def _prepare(self) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _use_wal(self._engine())
        with self._begin(lasting=True) as connection:
            upgrade(connection)
        self._current = True

    @contextmanager
    def _begin(self, *, lasting: bool) -> Iterator[Connection]:
        with self._transaction(lasting=lasting) as connection:
            yield connection
            connection.commit()

    @contextmanager
    def _transaction(self, *, lasting: bool = False) -> Iterator[Connection]:
        """A connection whose transaction holds the write lock from its start; rolled back unless committed."""
        with self._engine().connect() as plain:
            yield plain.execution_options(**{_BEGIN: "BEGIN IMMEDIATE", _LASTING: lasting})

    def _engine(self) -> Engine:
        with self._lock:
            if self._made is None:
                self._made = _sqlite(self._url) if self._path is not None else _postgres(self._url)
            return self._made

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, OSError) as error:
            raise unavailable(error, self._name) from error


_File = tuple[int, int]


def _file(path: Path) -> _File:
    """Which file the path is now."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # the cause's text would show the URL, password and all
        raise ConfigurationError("AURUM_HISTORY_URL is not a database URL", hint=_EXAMPLES) from None
    if parsed.drivername in {"postgres", "postgresql"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in {"sqlite", "sqlite+pysqlite", "postgresql+psycopg"}:
        raise ConfigurationError(f"the history cannot be kept in {parsed.drivername!r}", hint=_EXAMPLES)
    in_file = bool(parsed.database) and parsed.database != ":memory:" and not str(parsed.database).startswith("file:")
    if parsed.get_backend_name() == "sqlite" and not in_file:
        raise ConfigurationError("the history needs a SQLite file that other processes can open too", hint=_EXAMPLES)
    return parsed


def _with_defaults(url: URL, **defaults: Any) -> URL:
    return url.update_query_dict({key: str(value) for key, value in defaults.items() if key not in url.query})


def _sqlite(url: URL) -> Engine:
    # no pool: opening a file that is open costs little, and a kept connection would write to one that was replaced
    engine = create_engine(_with_defaults(url, timeout=WAIT_SECONDS), poolclass=NullPool, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _own_transactions(connection: Any, _record: Any) -> None:
        # the driver's own idea of transactions would start them too late and not for DDL
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        statement = options.get(_BEGIN, "BEGIN")
        if not options.get(_LASTING, True):
            connection.exec_driver_sql("PRAGMA synchronous=NORMAL")
        if statement:
            connection.exec_driver_sql(statement)

    return engine


def _use_wal(engine: Engine) -> None:
    """Let readers read while somebody writes. SQLite itself does not wait for a writer here, hence the retries."""
    for attempt in Retrying(
        retry=retry_if_exception(lambda error: "is locked" in str(error)),
        stop=stop_after_delay(float(str(engine.url.query["timeout"]))),
        wait=wait_random(0.01, 0.1),
        reraise=True,
    ):
        with attempt, engine.connect() as connection:
            connection.execution_options(**{_BEGIN: None}).exec_driver_sql("PRAGMA journal_mode=WAL")


def _postgres(url: URL) -> Engine:
    try:
        engine = create_engine(
            _with_defaults(url, connect_timeout=WAIT_SECONDS, application_name="aurum_orchestration"),
            pool_pre_ping=True,
            hide_parameters=True,
        )
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "a history in PostgreSQL needs the driver psycopg", hint="pip install 'aurum-orchestration[postgres]'"
        ) from error

    @event.listens_for(engine, "connect")
    def _never_wait_for_long(connection: Any, _record: Any) -> None:
        if "lock_timeout" not in str(url.query.get("options")):
            connection.execute(f"SET lock_timeout = '{WAIT_SECONDS}s'")
            connection.commit()

    return engine
