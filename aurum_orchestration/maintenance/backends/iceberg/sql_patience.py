"""A SQL catalog's server is not waited for without end: it may take a connection and never answer."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError

from aurum_orchestration.maintenance.backends.iceberg.failures import translate

TIMEOUT = "sql.timeout"
"""The property with the seconds that a transaction in the catalog may take."""

_DEFAULT_TIMEOUT = 60.0
_CONNECTING = 10
_DRIVERS = frozenset({"psycopg", "psycopg2"})
_KEY = "aurum_conversation"


def be_patient_only_so_long(engine: Engine, name: str, properties: Mapping[str, str]) -> None:
    """Bound what a new engine waits for its server; ``name`` is the catalog's, ``properties`` are its own.

    A connection that is not made in time is BackendUnavailableError: nothing was asked. One that is in use for
    longer than ``sql.timeout`` is cut off, which reads as any broken connection: a commit may have taken place.
    SQLite has no server, and other drivers have their own ways.
    """
    if engine.driver not in _DRIVERS:
        return
    seconds = float(properties.get(TIMEOUT) or _DEFAULT_TIMEOUT)
    watch = _Watch(seconds)

    def connecting(_dialect: Any, _record: Any, _arguments: Any, named: dict[str, Any]) -> None:
        named.setdefault("connect_timeout", max(2, min(_CONNECTING, math.ceil(seconds))))

    def begins(connection: Any, record: Any, *_: Any) -> None:
        ends(connection, record)
        record.info[_KEY] = watch.begin(connection)

    def ends(_connection: Any, record: Any, *_: Any) -> None:
        conversation = record.info.pop(_KEY, None)
        if conversation is not None:
            conversation.end()

    def failed(context: ExceptionContext) -> None:
        if context.connection is None:
            error = context.sqlalchemy_exception or context.original_exception
            if isinstance(error, Exception):
                raise translate(error, name, properties) from error
            return
        conversation = context.connection.info.get(_KEY)
        if conversation is not None and conversation.cut:
            told = TimeoutError(f"the catalog's database did not answer within {seconds:g} s")
            # no OperationalError: PyIceberg takes that for tables that are missing, and asks on
            raise DBAPIError(
                context.statement, None, told, hide_parameters=True, connection_invalidated=True
            ) from context.original_exception

    event.listen(engine, "do_connect", connecting)
    event.listen(engine, "connect", begins, insert=True)  # before the dialect asks what server it is
    event.listen(engine, "checkout", begins)
    for over in ("checkin", "invalidate", "close"):
        event.listen(engine, over, ends)
    event.listen(engine, "handle_error", failed)


class _Conversation:
    """A connection in use, until a moment of the monotonic clock."""

    def __init__(self, connection: Any, until: float) -> None:
        self.until = until
        self.cut = False
        self._connection = connection
        self._guard = threading.Lock()

    @property
    def over(self) -> bool:
        """The connection is given back or gone, or was cut off."""
        return self._connection is None

    def end(self) -> None:
        """The connection is given back or gone: its socket may soon be another's."""
        with self._guard:
            self._connection = None

    def cut_off(self) -> None:
        """Break the connection, whoever waits for it."""
        with self._guard:
            if self._connection is None:
                return
            self.cut = True
            with contextlib.suppress(Exception), socket.socket(fileno=os.dup(self._connection.fileno())) as line:
                line.shutdown(socket.SHUT_RDWR)
            self._connection = None


class _Watch:
    """Cuts off the conversations whose time is up, from a thread of its own, since the driver waits for ever.

    One thread for all of an engine, there while any is going on: starting one for each takes longer than most of them.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._going_on: list[_Conversation] = []
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None

    def begin(self, connection: Any) -> _Conversation:
        """A conversation that is watched until it ends."""
        conversation = _Conversation(connection, time.monotonic() + self._seconds)
        with self._guard:
            self._going_on.append(conversation)
            if self._thread is None or not self._thread.is_alive():  # it is not in a forked process
                self._thread = threading.Thread(target=self._look, name="catalog-patience", daemon=True)
                self._thread.start()
        return conversation

    def _look(self) -> None:
        while True:
            time.sleep(min(1.0, self._seconds / 10))
            with self._guard:
                self._going_on = [one for one in self._going_on if not one.over]
                if not self._going_on:
                    self._thread = None
                    return
                late = [one for one in self._going_on if one.until <= time.monotonic()]
            for one in late:
                one.cut_off()
