"""What PostgreSQL's errors mean: SQLSTATE to typed errors, each with what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import psycopg
import psycopg_pool

from aurum_orchestration.errors import (
    AccessDeniedError,
    AurumError,
    BackendUnavailableError,
    CommitConflictError,
    ConfigurationError,
    CorruptTableError,
    EngineError,
    LockTimeoutError,
    OperationCancelledError,
    ResourceLimitError,
    StatementKilledError,
    StatementTimeoutError,
    StorageWriteError,
    TableNotFoundError,
    UnsupportedError,
)
from aurum_orchestration.maintenance.interfaces import RunContext

_BROKEN_CONSTRAINT = "23"
"""The class of errors whose detail holds the values of a row: they are nobody's business in a log."""


class _Meaning(NamedTuple):
    kind: type[AurumError]
    hint: str | None = None


_RIGHTS = "Give the role the right; docs/postgres.md has the SQL for a role that can do all of it."
_LOGIN = "Check user, password and pg_hba.conf, and that the database exists."

BY_STATE = {
    "25006": _Meaning(UnsupportedError, "This server takes no writes: name the primary in the backend's connection."),
    "28000": _Meaning(AccessDeniedError, _LOGIN),
    "28P01": _Meaning(AccessDeniedError, _LOGIN),
    "3D000": _Meaning(ConfigurationError, _LOGIN),
    "3F000": _Meaning(TableNotFoundError),
    "40001": _Meaning(CommitConflictError),
    "40P01": _Meaning(CommitConflictError),
    "42501": _Meaning(AccessDeniedError, _RIGHTS),
    "42P01": _Meaning(TableNotFoundError),
    "42704": _Meaning(TableNotFoundError),
    "53100": _Meaning(StorageWriteError),
    "53200": _Meaning(ResourceLimitError, "Lower maintenance_work_mem or the number of workers."),
    "53300": _Meaning(BackendUnavailableError, "Raise max_connections, or lower pool_size and max_parallel."),
    "54000": _Meaning(ResourceLimitError),
    "55006": _Meaning(LockTimeoutError),
    "55P03": _Meaning(LockTimeoutError),
    "57P01": _Meaning(BackendUnavailableError, "The server was shut down or the session ended; run again."),
    "57P02": _Meaning(BackendUnavailableError),
    "57P03": _Meaning(BackendUnavailableError),
    "57P05": _Meaning(BackendUnavailableError),
    "58P01": _Meaning(CorruptTableError, "A file of the table is missing: restore it from a backup."),
    "XX001": _Meaning(CorruptTableError, "Stop writing, take a copy of the data folder, and restore from a backup."),
    "XX002": _Meaning(CorruptTableError, "The index is damaged, the table may not be: REINDEX it."),
}
"""SQLSTATE -> error."""

BY_CLASS = {
    "08": _Meaning(BackendUnavailableError),
    "0A": _Meaning(UnsupportedError),
    "53": _Meaning(ResourceLimitError),
    "57": _Meaning(BackendUnavailableError),
}
"""The first two digits of the SQLSTATE -> error, for all others."""


def as_typed(error: psycopg.Error, run: RunContext | None = None, *, doing: str = "") -> AurumError:
    """What a driver's error means. ``doing`` says in a few words what was tried."""
    state = error.sqlstate or ""
    told = _told(error)
    detail = f"{doing}: {told}" if doing else told
    if state == "57014":  # query_canceled, for one of three reasons
        if run is not None and run.cancelled.is_set():
            return OperationCancelledError(detail, hint="Run again: it carries on from what is done.")
        if "timeout" in told:
            return StatementTimeoutError(detail)
        return StatementKilledError(detail)
    if not state and isinstance(error, psycopg.OperationalError):
        return BackendUnavailableError(detail)
    meaning = BY_STATE.get(state) or BY_CLASS.get(state[:2]) or _Meaning(EngineError)
    return meaning.kind(detail, hint=meaning.hint)


def _told(error: psycopg.Error) -> str:
    """The server's own words on one line, with its detail unless that quotes rows; without the statement."""
    primary = error.diag.message_primary
    if primary is None:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return "; ".join(lines[:3]) or type(error).__name__
    quotes_rows = (error.sqlstate or "").startswith(_BROKEN_CONSTRAINT)
    return f"{primary} ({error.diag.message_detail})" if error.diag.message_detail and not quotes_rows else primary


@contextmanager
def typed_errors(run: RunContext | None = None, *, doing: str = "") -> Iterator[None]:
    """Driver errors raised within become typed ones."""
    try:
        yield
    except psycopg_pool.PoolTimeout as error:
        raise BackendUnavailableError(
            f"no connection of the pool became free: {error}", hint="Raise pool_size, or lower max_parallel."
        ) from error
    except psycopg.Error as error:
        raise as_typed(error, run, doing=doing) from error
