"""One coordinator, asked: sends statements, cancels them when their run is cancelled, and explains failures.

The protocol makes repeating safe: a statement starts when its first page is asked for, and a page may be
asked for twice. So the library repeats requests when the network or a proxy fails; a whole statement is
repeated only when it reads, and only after an error that passes by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from aurum_orchestration.errors import (
    AurumError,
    BackendUnavailableError,
    CommitStateUnknownError,
    MissingExtraError,
    UnsupportedError,
)
from aurum_orchestration.maintenance.backends.iceberg.trino.connection import TrinoConnection
from aurum_orchestration.maintenance.backends.iceberg.trino.failures import of_query, of_transport

if TYPE_CHECKING:
    from requests import Session
    from trino.dbapi import Connection, Cursor

    from aurum_orchestration.maintenance.interfaces import RunContext

_log = logging.getLogger(__name__)

_TAG_BREAKERS = str.maketrans({",": "_", "\r": "_", "\n": "_"})


@dataclass(frozen=True)
class Answer:
    """What a statement returned, and what it took: seconds of wall and of CPU, bytes of memory and of input.

    ``changed`` is the number of rows that a statement says it changed, None where it says nothing.
    """

    rows: list[tuple[Any, ...]]
    columns: list[str]
    query_id: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    processed_bytes: int = 0
    changed: int | None = None
    warnings: list[str] = field(default_factory=list)

    def first(self) -> tuple[Any, ...]:
        """The first row. Raises IndexError without one."""
        return self.rows[0]

    def records(self) -> list[dict[str, Any]]:
        """The rows by column name."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class TrinoClient:
    """Statements of one backend (``name``, for texts). Safe for several threads; nothing is sent before first use."""

    def __init__(self, connection: TrinoConnection, name: str) -> None:
        self.connection = connection
        self.name = name
        self._sessions: list[Session] = []
        self._probing = threading.Lock()
        self._version: int | None = None
        self.unsure: dict[str, list[str]] = {}
        """By table the ids of statements that were not seen to commit, and whose commit may yet arrive."""

    @property
    def catalog(self) -> str:
        """Trino's name of the catalog."""
        return self.connection.trino_catalog

    @property
    def version(self) -> int:
        """The coordinator's version, 476 say; asked for once."""
        with self._probing:
            if self._version is None:
                self._version = version_number(
                    str(self.query("SELECT version()", operation="probe", retry=True).first()[0])
                )
            return self._version

    def close(self) -> None:
        """Close the connections that are not in use. The client may be used again."""
        while self._sessions:
            with suppress(IndexError):
                self._sessions.pop().close()

    def ping(self, timeout: float | None = None) -> str:
        """Ask for the version's text, once, waiting no longer than the health check may. Raises the client's errors."""
        seconds = self.connection.health_timeout_seconds if timeout is None else timeout
        return str(self.query("SELECT version()", operation="health", timeout=seconds).first()[0])

    def query(
        self,
        sql: str,
        *,
        run: RunContext | None = None,
        operation: str = "",
        session: Mapping[str, str] | None = None,
        retry: bool = False,
        timeout: float | None = None,
    ) -> Answer:
        """What a statement returns, complete.

        ``operation`` and the run's id go along as client tags, ``session`` as session properties of this statement
        alone. With ``retry`` (for what changes nothing) it is sent again after errors that pass by themselves.
        ``timeout``: seconds for one answer of the coordinator, without sending requests again.

        Raises the package's errors: see :mod:`.failures`; OperationCancelledError once the run is cancelled, after
        telling Trino to stop.
        """
        attempts = self.connection.statement_attempts if retry else 1
        retrying = Retrying(
            stop=stop_after_attempt(attempts),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            retry=retry_if_exception_type(BackendUnavailableError),
            sleep=(lambda seconds: _pause(seconds, run)),
            reraise=True,
        )
        answer: Answer = retrying(self._once, sql, run, operation, session or {}, timeout)
        return answer

    def change(
        self,
        sql: str,
        *,
        run: RunContext,
        operation: str,
        session: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a statement that changes a table, once, and only while the run holds its lease.

        Raises CommitStateUnknownError when the way to Trino broke after the statement had started: it may have
        committed or may still, and only reading the table back tells. Every other error came from Trino itself
        or before the start.
        """
        run.check()
        run.still_mine()
        return self._once(sql, run, operation, session or {}, None, changes=True)

    def _once(
        self,
        sql: str,
        run: RunContext | None,
        operation: str,
        properties: Mapping[str, str],
        timeout: float | None,
        *,
        changes: bool = False,
    ) -> Answer:
        if run is not None:
            run.check()
        http = self._session()
        started = time.monotonic()
        connection = self._connect(http, run, operation, properties, timeout)
        cursor = connection.cursor(stats_callback=_checking(run))
        try:
            cursor.execute(sql)
            rows = [tuple(row) for row in cursor.fetchall()]
            answer = _answer(cursor, rows, time.monotonic() - started)
        except BaseException as error:
            self._end(cursor)
            http.close()
            self._explain(error, cursor, changes=changes)
        self._sessions.append(http)
        return answer

    def _session(self) -> Session:
        with suppress(IndexError):
            return self._sessions.pop()
        try:
            from aurum_orchestration.maintenance.backends.iceberg.trino.sessions import TrinoSession
        except ModuleNotFoundError as error:
            raise _missing(error) from None
        return TrinoSession(self.connection.trusted())

    def _connect(
        self,
        http: Session,
        run: RunContext | None,
        operation: str,
        properties: Mapping[str, str],
        timeout: float | None,
    ) -> Connection:
        try:
            from trino.dbapi import Connection
        except ModuleNotFoundError as error:
            raise _missing(error) from None
        given = self.connection
        tags = ["aurum", operation, run.operation_id if run is not None else "", *given.client_tags]
        arguments = given.library_arguments
        if timeout is not None:
            arguments |= {"request_timeout": timeout, "max_attempts": 1}
        return Connection(
            http_session=http,
            source=given.source,
            client_tags=list(dict.fromkeys(tag.translate(_TAG_BREAKERS) for tag in tags if tag)),
            session_properties={**given.session_properties, **properties},
            **arguments,
        )

    def _end(self, cursor: Cursor) -> None:
        """Tell Trino to stop a statement that nobody waits for; where it cannot be told, its own timeout does it."""
        try:
            cursor.cancel()  # type: ignore[no-untyped-call]
        except Exception as error:
            _log.debug("Trino of %s: query %s was not cancelled: %s", self.name, cursor.query_id, error)

    def _explain(self, error: BaseException, cursor: Cursor, *, changes: bool) -> NoReturn:
        from trino.exceptions import TrinoQueryError

        if not isinstance(error, Exception):
            raise error
        query_id = cursor.query_id
        if isinstance(error, AurumError):
            error.query_id = query_id
            raise error
        if isinstance(error, TrinoQueryError):
            told = of_query(error, self.name)
            told.query_id = error.query_id or query_id
            raise told from None
        told = of_transport(error, self.name, self.connection.address, started=query_id is not None)
        if changes and query_id is not None:
            told = CommitStateUnknownError(
                f"{told.detail}: the connection broke while query {query_id} ran",
                hint="See whether that query made the newest snapshot; running again plans from what is there.",
            )
        told.query_id = query_id
        raise told from None


def version_number(text: str) -> int:
    """The number in a version: ``476``, ``476-e.3``, ``0.215``. Raises UnsupportedError for one without."""
    digits = text.removeprefix("0.").split("-")[0].split(".")[0]
    if not digits.isdecimal():
        raise UnsupportedError(f"Trino says that its version is {text!r}, which is no number")
    return int(digits)


def _checking(run: RunContext | None) -> Callable[[dict[str, Any]], None] | None:
    """Called with every answer of the coordinator, about once a second: ends the statement of a cancelled run."""
    if run is None:
        return None
    return lambda _stats: run.check()


def _pause(seconds: float, run: RunContext | None) -> None:
    if run is None:
        time.sleep(seconds)
    else:
        run.cancelled.wait(seconds)
        run.check()


def _answer(cursor: Cursor, rows: list[tuple[Any, ...]], seconds: float) -> Answer:
    stats = cursor.stats or {}
    changed = cursor.rowcount
    return Answer(
        rows=rows,
        columns=[column.name for column in cursor.description or ()],
        query_id=str(cursor.query_id),
        seconds=seconds,
        cpu_seconds=stats.get("cpuTimeMillis", 0) / 1000,
        peak_memory_bytes=stats.get("peakMemoryBytes", 0),
        processed_bytes=stats.get("processedBytes", 0),
        changed=None if changed < 0 else changed,
        warnings=[str(warning.get("message", warning)) for warning in cursor.warnings or ()],
    )


def _missing(error: ModuleNotFoundError) -> MissingExtraError:
    from aurum_orchestration.extras import how_to_install

    return MissingExtraError(
        f"the engine trino needs {error.name}, which is not installed", hint=how_to_install("trino")
    )
