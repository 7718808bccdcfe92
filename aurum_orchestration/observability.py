"""Logging of the edges: to stderr, with the operation's id and table on every record, without secrets."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import sys
from collections.abc import Iterator

from aurum_orchestration.errors import redact

_OPERATION_ID: contextvars.ContextVar[str] = contextvars.ContextVar("aurum_operation_id", default="-")
_TABLE: contextvars.ContextVar[str] = contextvars.ContextVar("aurum_table", default="-")

FORMAT = "%(asctime)s %(levelname)s %(name)s operation=%(operation_id)s table=%(table)s %(message)s"


@contextlib.contextmanager
def logging_context(*, operation_id: str, table: str) -> Iterator[None]:
    """Name the operation and table that records of this context (and threads started from it) are about."""
    tokens = _OPERATION_ID.set(operation_id), _TABLE.set(table)
    try:
        yield
    finally:
        _OPERATION_ID.reset(tokens[0])
        _TABLE.reset(tokens[1])


class ContextFilter(logging.Filter):
    """Adds ``operation_id`` and ``table`` to each record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Never drops a record."""
        record.operation_id = _OPERATION_ID.get()
        record.table = _TABLE.get()
        return True


class RedactingFormatter(logging.Formatter):
    """Formats a record, stack trace included, without passwords and other secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """The redacted text of a record."""
        return redact(super().format(record))


def configure_logging(level: int | str = logging.WARNING) -> None:
    """Send this package's log to stderr. For edges only, once per process; calling again changes the level."""
    logger = logging.getLogger("aurum_orchestration")
    logger.setLevel(level.upper() if isinstance(level, str) else level)
    if not any(isinstance(handler.formatter, RedactingFormatter) for handler in logger.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(RedactingFormatter(FORMAT))
        handler.addFilter(ContextFilter())
        logger.addHandler(handler)
        logger.propagate = False
