"""Sessions on one database: pooled, named after what runs in them, bounded by timeouts, cancelled with their run."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, LiteralString, TypeVar

import psycopg
import psycopg_pool
from psycopg import sql
from psycopg.rows import namedtuple_row
from tenacity import Retrying, retry_if_exception_type, sleep_using_event, stop_after_attempt, wait_random_exponential

from aurum_orchestration.errors import BackendUnavailableError, CommitConflictError, LockTimeoutError
from aurum_orchestration.fleet.postgres import PostgresBackendConfig
from aurum_orchestration.maintenance.backends.postgres.errors import as_typed, typed_errors
from aurum_orchestration.maintenance.interfaces import RunContext

T = TypeVar("T")
_Pool = psycopg_pool.ConnectionPool[psycopg.Connection[Any]]
Query = LiteralString | sql.SQL | sql.Composed
"""Text of a statement: a constant, or composed by psycopg.sql. Never a formatted string."""
Question = tuple[Query, Sequence[Any] | dict[str, Any] | None]
"""A statement and its parameters."""

ATTEMPTS = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""How often, and at what distance in seconds (doubling, with jitter), a lock that was not had is asked for again."""

CANCEL_EVERY = 0.25
"""Seconds between two looks at whether the run is to stop, and between two requests to the server to stop."""

_ONLY_WHERE_SAID = 2**31
"""After so many uses the driver prepares a statement by itself."""

_APPLICATION_NAME = 63  # the server cuts off what is longer


class Session:
    """One connection in use, in autocommit. Errors are typed; every statement is bounded by the timeouts.

    ``pid``: the process on the server, as the server tells it: a pooler between tells the driver another number.
    """

    def __init__(self, connection: psycopg.Connection[Any], run: RunContext | None, pid: int) -> None:
        self.connection = connection
        self.pid = pid
        self.run = run

    def rows(
        self, query: Query, parameters: Sequence[Any] | dict[str, Any] | None = None, *, again: bool = False
    ) -> list[Any]:
        """The rows of a statement, as named tuples. ``again``: one on the catalogs that comes with every table."""
        self._check()
        with typed_errors(self.run), self.connection.cursor(row_factory=namedtuple_row) as cursor:
            return cursor.execute(query, parameters, prepare=again).fetchall()

    def tuples(
        self,
        query: Query,
        parameters: Sequence[Any] | dict[str, Any] | None = None,
        *,
        binary: bool = False,
    ) -> list[tuple[Any, ...]]:
        """The rows of a statement as plain tuples, for many rows at once; ``binary`` for many numbers."""
        self._check()
        with typed_errors(self.run), self.connection.cursor(binary=binary) as cursor:
            return cursor.execute(query, parameters).fetchall()

    def row(
        self, query: Query, parameters: Sequence[Any] | dict[str, Any] | None = None, *, again: bool = False
    ) -> Any:
        """The first row, None when there is none."""
        found = self.rows(query, parameters, again=again)
        return found[0] if found else None

    def value(
        self, query: Query, parameters: Sequence[Any] | dict[str, Any] | None = None, *, again: bool = False
    ) -> Any:
        """The first value of the first row, None when there is none."""
        found = self.row(query, parameters, again=again)
        return found[0] if found else None

    def together(self, *questions: Question) -> list[list[Any]]:
        """The rows of each of several statements, as named tuples, in one round trip and one transaction.

        The server keeps their plans for the next time: to plan what reads the catalogs takes longer than to run it.
        """
        self._check()
        if self.connection.prepare_threshold is None:
            return self._in_one_text(questions)
        cursors = [self.connection.cursor(row_factory=namedtuple_row) for _ in questions]
        with typed_errors(self.run), self.connection.pipeline():
            for cursor, question in zip(cursors, questions, strict=True):
                cursor.execute(*question, prepare=True)
        return [cursor.fetchall() for cursor in cursors]

    def _in_one_text(self, questions: Sequence[Question]) -> list[list[Any]]:
        with typed_errors(self.run), psycopg.ClientCursor(self.connection, row_factory=namedtuple_row) as cursor:
            # only text that holds its values may have several statements
            cursor.execute("; ".join(cursor.mogrify(*question) for question in questions).encode())
            answers = [cursor.fetchall()]
            while cursor.nextset():
                answers.append(cursor.fetchall())
            return answers

    def execute(self, query: Query, parameters: Sequence[Any] | dict[str, Any] | None = None) -> int:
        """Run a statement; how many rows it touched."""
        self._check()
        with typed_errors(self.run), self.connection.cursor() as cursor:
            return cursor.execute(query, parameters).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Statements that count together or not at all."""
        with typed_errors(self.run), self.connection.transaction():
            yield

    def set(self, **settings: str | float) -> None:
        """Server settings for this session, such as ``vacuum_cost_delay="2ms"``; the next session has none of them."""
        for name, value in settings.items():
            self.execute("SELECT set_config(%s, %s, false)", (name, str(value)))

    def _check(self) -> None:
        if self.run is not None:
            self.run.check()


class Sessions:
    """The connections to one database. Nothing is opened before the first session; safe to use from threads."""

    def __init__(self, config: PostgresBackendConfig) -> None:
        self.config = config
        self._guard = threading.Lock()
        self._opened: _Pool | None = None
        self._used: weakref.WeakSet[psycopg.Connection[Any]] = weakref.WeakSet()
        self._shared = threading.local()

    @contextmanager
    def sharing(self, operation: str) -> Iterator[None]:
        """Within, this thread looks everything up over one session, unless a run's cancellation is to stop it."""
        with self.look(operation) as session:
            self._shared.session = session
            try:
                yield
            finally:
                self._shared.session = None

    @contextmanager
    def look(self, operation: str = "measure", run: RunContext | None = None) -> Iterator[Session]:
        """A session for statements that only look, bounded by statement_timeout."""
        shared = getattr(self._shared, "session", None)
        if shared is not None and run is None:
            yield shared
            return
        with self._session(operation, run, self.config.statement_timeout) as session:
            yield session

    @contextmanager
    def work(self, operation: str, run: RunContext | None, **settings: str) -> Iterator[Session]:
        """A session for the work itself, bounded by work_timeout, with settings. Without a run nothing cancels it."""
        with self._session(operation, run, self.config.work_timeout, **settings) as session:
            try:
                yield session
            except BaseException:
                session.connection.close()  # its locks end with it: giving them back may have been cancelled, too
                raise

    @contextmanager
    def _session(self, operation: str, run: RunContext | None, seconds: float, **more: str) -> Iterator[Session]:
        settings = self._settings(application_name(operation, run), seconds, more)
        with self._connection(settings, run) as (connection, pid), _cancelled_with(connection, run):
            yield Session(connection, run, pid)

    @contextmanager
    def _connection(self, settings: bytes, run: RunContext | None) -> Iterator[tuple[psycopg.Connection[Any], int]]:
        pool = self._pool()
        connection, pid = self._answering(pool, settings, run)
        try:
            yield connection, pid
        finally:
            pool.putconn(connection)

    def _answering(self, pool: _Pool, settings: bytes, run: RunContext | None) -> tuple[psycopg.Connection[Any], int]:
        """A connection of the pool as ``settings`` want it. Those that died while they waited there are let go."""
        while True:
            try:
                connection = pool.getconn(timeout=self.config.connect_timeout)
            except psycopg_pool.PoolTimeout as error:
                self.probe()  # the pool does not tell why it has no connection
                raise BackendUnavailableError(
                    f"no connection became free within {self.config.connect_timeout} s",
                    hint="Raise pool_size, or lower max_parallel of the backend.",
                ) from error
            try:
                told = connection.execute(settings)
                told.nextset()
                pid = (told.fetchone() or (0,))[0]
            except psycopg.Error as error:
                # one that was made just now must answer; else a server that takes and drops them would hold us for ever
                died = connection.closed and connection in self._used
                pool.putconn(connection)
                if not died:
                    raise as_typed(error, run) from error
            except BaseException:
                pool.putconn(connection)
                raise
            else:
                self._used.add(connection)
                # prepared statements do not survive a pooler between us and the server, which makes up its own numbers
                direct = pid == connection.info.backend_pid
                connection.prepare_threshold = _ONLY_WHERE_SAID if direct else None
                return connection, pid

    def probe(self) -> None:
        """Open a connection and close it. Raises what is wrong."""
        try:
            psycopg.connect(self.config.conninfo(), **self.options).close()
        except psycopg.Error as error:
            raise as_typed(error, doing="cannot connect") from error

    def _pool(self) -> _Pool:
        with self._guard:
            if self._opened is None:
                pool: _Pool = psycopg_pool.ConnectionPool(
                    self.config.conninfo(),
                    kwargs=self.options,
                    min_size=0,
                    max_size=self.config.pool_size,
                    max_idle=60,
                    open=False,
                    name="aurum",
                )
                pool.open()
                self._opened = pool
            return self._opened

    @property
    def options(self) -> dict[str, Any]:
        """How connections are made, besides where to."""
        # of a SQL_ASCII database the driver would answer bytes instead of text
        return {
            "autocommit": True,
            "prepare_threshold": None,
            "application_name": "aurum",
            "client_encoding": "utf8",
        }

    def _settings(self, name: str, statement_seconds: float, more: Mapping[str, str]) -> bytes:
        """What a session begins with: nothing of the one before. One message, which also shows that it answers."""
        settings = {
            "lock_timeout": f"{int(self.config.lock_timeout * 1000)}ms",
            "timezone": "UTC",
            "datestyle": "ISO",  # the only one that the driver reads
            "idle_in_transaction_session_timeout": "60s",
            "statement_timeout": f"{int(statement_seconds * 1000)}ms",
            **more,
        }
        return _beginning(tuple(settings.items())) + sql.Literal(name).as_bytes(None) + b", false)"

    def close(self) -> None:
        """Close every connection."""
        with self._guard:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()


@lru_cache(maxsize=64)
def _beginning(settings: tuple[tuple[str, str], ...]) -> bytes:
    """The message up to the name of the application: the rest is the same for many sessions."""
    parts = [
        sql.SQL("set_config({}, {}, false), ").format(sql.Literal(key), sql.Literal(value)) for key, value in settings
    ]
    first = sql.SQL("RESET ALL; SELECT pg_backend_pid(), pg_advisory_unlock_all(), {}set_config('application_name', ")
    return first.format(sql.Composed(parts)).as_bytes(None)


def application_name(operation: str, run: RunContext | None) -> str:
    """How our sessions are named on the server: ``aurum:<operation>:<run>``."""
    return f"aurum:{operation}:{run.operation_id if run else '-'}"[:_APPLICATION_NAME]


def patiently(work: Callable[[], T], run: RunContext | None = None, *, attempts: int = ATTEMPTS) -> T:
    """Do work that is complete on its own, again when it did not get a lock or was in conflict with another.

    Between the attempts nothing is held, so nobody queues behind us. Raises the last error.
    """
    retrying = Retrying(
        retry=retry_if_exception_type((LockTimeoutError, CommitConflictError)),
        stop=stop_after_attempt(attempts),
        wait=wait_random_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE),
        sleep=sleep_using_event(run.cancelled if run else threading.Event()),
        reraise=True,
    )
    return retrying(work)


@contextmanager
def _cancelled_with(connection: psycopg.Connection[Any], run: RunContext | None) -> Iterator[None]:
    """Within, what runs on the connection is cancelled on the server as soon as the run is."""
    if run is None:
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(CANCEL_EVERY):
            if run.cancelled.is_set():
                # again and again: a request between two statements hits none
                _request_cancel(connection)

    watcher = threading.Thread(target=watch, name="cancel", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _request_cancel(connection: psycopg.Connection[Any]) -> None:
    """Ask the server to stop what runs on the connection; that this fails changes nothing."""
    try:
        connection.cancel_safe(timeout=5)
    except psycopg.Error:
        return
