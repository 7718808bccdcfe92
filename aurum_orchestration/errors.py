"""Every error the package raises on purpose, and the shape users see it in.

One hierarchy under :class:`AurumError`. Two questions decide a class: may the same request
succeed later without anybody changing anything (:class:`TransientError`), or not
(:class:`PermanentError`)? Retries look at nothing else.

An error carries what happened (``detail``), to which ``table`` and ``operation``, and what to do
(``hint``). :meth:`AurumError.problem` turns it into RFC 9457 *problem details*; neither secrets nor
stack traces go in there.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

_USERINFO = re.compile(r"(?<=://)([^/@\s:]+):([^/@\s]+)@")
_ASSIGNED_SECRET = re.compile(
    r"(?i)\b(\w*(?:password|passwd|secret|token|credential|access[-_]?key)[\w.-]*)(['\"]?\s*[=:]\s*['\"]?)([^\s'\",;&}]+)"
)


def redact(text: str) -> str:
    """``text`` without passwords in URLs and without values of keys that name a secret."""
    return _ASSIGNED_SECRET.sub(r"\1\2***", _USERINFO.sub(r"\1:***@", text))


def nearest(word: str, known: Iterable[str]) -> str:
    """A sentence that offers the known word closest to ``word``, or lists the known ones, of many the first dozen."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]!r}?"
    shown = names if len(names) <= 20 else names[:12]
    more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
    return f"Known: {', '.join(shown)}{more}." if names else "None is known."


class ProblemDetail(BaseModel):
    """An error as data: RFC 9457 members, plus what maintenance needs to say."""

    model_config = ConfigDict(frozen=True)

    type: str = Field(description="Name of the kind of problem, from the documented list.")
    title: str = Field(description="The kind of problem in a few words; the same for every occurrence.")
    status: int = Field(description="HTTP status number that fits the kind of problem.")
    detail: str | None = Field(default=None, description="What happened this time.")
    instance: str | None = Field(default=None, description="The operation id of this occurrence.")
    table: str | None = Field(default=None, description="Id of the table it happened to.")
    operation: str | None = Field(default=None, description="Name of the operation it happened in.")
    transient: bool = Field(default=False, description="True when the same request may succeed later.")
    hint: str | None = Field(default=None, description="What to do about it.")


class AurumError(Exception):
    """Base of all errors raised on purpose. Not raised itself."""

    type: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"
    status: ClassVar[int] = 500
    transient: ClassVar[bool] = False
    default_hint: ClassVar[str | None] = None
    query_id: str | None = None
    """The engine's id of the statement that failed, where an engine had taken one and gives it an id."""

    def __init__(
        self, detail: str, *, table: str | None = None, operation: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(redact(detail))
        self.detail = redact(detail)
        self.table = table
        self.operation = operation
        self.hint = redact(hint) if hint else self.default_hint

    def problem(
        self, *, instance: str | None = None, table: str | None = None, operation: str | None = None
    ) -> ProblemDetail:
        """The error as problem details; the arguments fill what the error itself does not know."""
        return ProblemDetail(
            type=self.type,
            title=self.title,
            status=self.status,
            detail=self.detail,
            instance=instance,
            table=self.table or table,
            operation=self.operation or operation,
            transient=self.transient,
            hint=self.hint,
        )


class TransientError(AurumError):
    """The same request may succeed later without anybody changing anything."""

    transient = True


class PermanentError(AurumError):
    """Trying again is useless until somebody changes something."""


class ConfigurationError(PermanentError, ValueError):
    """fleet.yaml or a setting is wrong; the detail names file, line and key."""

    type, title, status = "configuration-error", "Configuration error", 422


class RequestError(PermanentError, ValueError):
    """A request that cannot be understood: a wrong parameter, type or value."""

    type, title, status = "validation-error", "Validation error", 422


class AlreadyRegisteredError(PermanentError, ValueError):
    """A name is registered twice."""

    type, title, status = "already-registered", "Name already registered", 409


class UnknownNameError(PermanentError, LookupError):
    """No backend, operation or table has that name; the hint offers the nearest."""

    type, title, status = "unknown-name", "Unknown name", 404


class MissingExtraError(PermanentError, ImportError):
    """An optional driver is not installed; the hint says which extra brings it."""

    type, title, status = "missing-extra", "Optional dependency missing", 501


class UnsupportedError(PermanentError):
    """A backend, version or kind of table cannot do what was asked. Becomes ``skipped`` with the reason."""

    type, title, status = "unsupported", "Not supported here", 501


class TableNotFoundError(PermanentError):
    """The table is not in its catalog (any more)."""

    type, title, status = "table-not-found", "Table not found", 404
    default_hint = "Check its name, and whether it was dropped or renamed."


class CorruptTableError(PermanentError):
    """A metadata, manifest or data file is missing or cannot be read."""

    type, title, status = "corrupt-table", "Table cannot be read", 422
    default_hint = "Put the file back, or roll the table back to a snapshot whose files are all there."


class VerificationError(PermanentError):
    """What was written does not equal what was read; nothing was committed, or it was rolled back."""

    type, title, status = "verification-failed", "Verification failed", 500
    default_hint = "The table still has its old files. Report this with the plan: it must never happen."


class StorageWriteError(PermanentError):
    """The storage refuses writes: read-only, full, or no rights."""

    type, title, status = "storage-write", "Storage cannot be written", 507
    default_hint = "Make room or give the right to write, then run again."


class LeaseHeldError(TransientError):
    """Another maintenance holds the table's lease; the detail names the holder."""

    type, title, status = "lease-held", "Lease held by another", 409
    default_hint = "Wait until the holder ends or its lease expires, then run again."


class LeaseLostError(TransientError):
    """The lease expired or was taken over while the operation ran; nothing was committed since."""

    type, title, status = "lease-lost", "Lease lost", 409
    default_hint = "Run again: groups committed before are complete and stay."


class StateDriftedError(TransientError):
    """The table changed since the plan was made, in a way that invalidates it."""

    type, title, status = "state-drifted", "Table changed since the plan", 409
    default_hint = "Plan again."


class CommitConflictError(TransientError):
    """A concurrent commit touches what this operation rewrites."""

    type, title, status = "commit-conflict", "Concurrent commit", 409
    default_hint = "Run again: it plans from the new state."


class UndoRefusedError(PermanentError):
    """An operation cannot be taken back: nothing can, or something was committed on top of it since."""

    type, title, status = "undo-refused", "Cannot be undone", 409


class CommitStateUnknownError(TransientError):
    """The catalog did not say whether the commit took place, and reading back did not tell either."""

    type, title, status = "commit-state-unknown", "Commit state unknown", 503
    default_hint = "Check the table's snapshots; nothing was deleted."


class BackendUnavailableError(TransientError):
    """A catalog, server or object store does not answer."""

    type, title, status = "backend-unavailable", "Backend unavailable", 503
    default_hint = "Run again once it answers."


class AccessDeniedError(PermanentError):
    """The server does not know the user, or does not let it do that."""

    type, title, status = "access-denied", "Access denied", 403


class ResourceLimitError(PermanentError):
    """The server refused or stopped the work because it takes more memory or time than it may."""

    type, title, status = "resource-limit", "Limit of the server exceeded", 507


class StatementKilledError(PermanentError):
    """Somebody ended the statement on the server: trying at once again would be against their will."""

    type, title, status = "statement-killed", "Ended by an administrator", 503
    default_hint = "Ask who ended it, then run again."


class EngineError(PermanentError):
    """A server failed inside; its own message is in the detail."""

    type, title, status = "engine-error", "Failure inside the server", 502


class LockTimeoutError(TransientError):
    """A lock on the engine was not had within the backend's lock_timeout; nothing was changed."""

    type, title, status = "lock-timeout", "Lock not available", 409
    default_hint = "Run again when whoever holds the lock has ended; nobody's session is ended for it."


class StatementTimeoutError(TransientError):
    """A statement took longer than it may, and was ended."""

    type, title, status = "statement-timeout", "Statement took too long", 504
    default_hint = "Raise statement_timeout or work_timeout of the backend in fleet.yaml, or run when less is going on."


class ProvisioningError(PermanentError):
    """A server cannot be set up or started on this machine; the detail says why."""

    type, title, status = "provisioning", "Server cannot be set up here", 503


class HistoryError(AurumError):
    """Whatever is wrong with the history store. Not raised itself."""


class HistoryUnavailableError(HistoryError, TransientError):
    """The history store cannot be opened, read or written now."""

    type, title, status = "history-unavailable", "History store unavailable", 503


class HistoryUnusableError(HistoryError, PermanentError):
    """The history store is damaged, is not one, or was made by a newer version. It is left as it is."""

    type, title, status = "history-unusable", "History store unusable", 500


class OperationCancelledError(TransientError):
    """The run was cancelled by a person or a shutting-down process."""

    type, title, status = "cancelled", "Cancelled", 499


class InternalError(PermanentError):
    """A fault of this program; the stack trace is in the log."""

    default_hint = "See the log of this operation for the stack trace."


def as_aurum_error(error: BaseException) -> AurumError:
    """``error`` itself if it is ours, else what it means to a user.

    A module that is not installed is a :class:`MissingExtraError` that says how to install it; everything
    else is an :class:`InternalError` that names the error's class and message.
    """
    if isinstance(error, AurumError):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name:
        from aurum_orchestration.extras import how_to_install

        return MissingExtraError(f"{error.name} is needed and not installed", hint=how_to_install(error.name))
    return InternalError(f"{type(error).__name__}: {error}")
