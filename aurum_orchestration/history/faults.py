"""What went wrong in the history store, as one error that says what to do about it."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from aurum_orchestration.errors import HistoryError, HistoryUnavailableError, HistoryUnusableError

_ELSEWHERE = "or point AURUM_HISTORY_URL to another store."


class _Kind(NamedTuple):
    """A kind of trouble: how SQLite's message or PostgreSQL's SQLSTATE shows it, what to do, and whether it passes."""

    words: tuple[str, ...]
    states: tuple[str, ...]
    hint: str
    error: type[HistoryError] = HistoryUnavailableError


_KINDS = (
    _Kind(
        ("is locked",),
        ("55P03", "40"),
        "Another process holds a lock on the history store: run again when it has ended. "
        "With many writers keep the history in PostgreSQL, by AURUM_HISTORY_URL.",
    ),
    _Kind(
        ("readonly database", "unable to open", "permission denied", "read-only", "not a directory", "file exists"),
        ("25006", "42501", "3F"),
        f"Give this user the right to write the history store (for a SQLite file also its folder), {_ELSEWHERE}",
    ),
    _Kind(
        ("not a database", "malformed", "no such table", "no such column"),
        ("42P01", "42703", "XX"),
        "The history store is damaged, or is not one. Move it away (the next run makes a new one), "
        f"restore it from a backup, {_ELSEWHERE}",
        HistoryUnusableError,
    ),
    _Kind(("is full", "disk i/o", "no space left"), ("53100",), "Free space where the history store lies."),
    _Kind(
        ("connection", "could not translate", "resolve host"),
        ("08", "28", "57", "3D", "53300"),
        "Check that the PostgreSQL server runs and that AURUM_HISTORY_URL names its host, port, database and user.",
    ),
)


def unavailable(error: SQLAlchemyError | OSError, store: str) -> HistoryError:
    """The error for whatever the database, its driver or the file system raised."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    message = " ".join(str(cause).split()) or type(cause).__name__
    text = f"history store {store}: {message}"
    if isinstance(cause, PoolTimeoutError):
        return HistoryUnavailableError(
            text, hint="Too many threads use the history at once: maintain fewer tables at the same time."
        )
    words, state = message.lower(), getattr(cause, "sqlstate", None) or ""
    for kind in _KINDS:
        if any(word in words for word in kind.words) or state.startswith(kind.states):
            return kind.error(text, hint=kind.hint)
    return HistoryUnavailableError(text, hint=f"Check the history store, {_ELSEWHERE}")
