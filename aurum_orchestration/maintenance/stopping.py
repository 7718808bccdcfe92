"""Why a running operation is to stop. The first cause counts."""

from __future__ import annotations

import threading

from aurum_orchestration.errors import OperationCancelledError


class StopSignal:
    """Shared by the threads of one operation. ``event`` is what engine code looks at (``RunContext.cancelled``).

    ``fail`` stops the attempt (a unit went wrong: the others need not go on); ``end`` stops the
    operation for good (cancelled, lease lost): no further attempt starts.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self._lock = threading.Lock()
        self._cause: BaseException | None = None
        self._final = False

    @property
    def final(self) -> bool:
        """True when no further attempt may start."""
        return self._final

    @property
    def cause(self) -> BaseException | None:
        """Why it is to stop, None while it may go on."""
        return self._cause

    def fail(self, cause: BaseException) -> None:
        """Stop this attempt because of ``cause``."""
        self._set(cause, final=False)

    def end(self, cause: BaseException) -> None:
        """Stop for good because of ``cause``."""
        self._set(cause, final=True)

    def cancel(self) -> None:
        """Stop for good because somebody wants it."""
        self.end(OperationCancelledError("the run was cancelled", hint="Run again: it carries on from what is done."))

    def begin(self) -> threading.Event:
        """A new attempt: forgets why the last one stopped, unless that was for good."""
        with self._lock:
            if not self._final:
                self._cause = None
                self.event = threading.Event()
            return self.event

    def _set(self, cause: BaseException, *, final: bool) -> None:
        with self._lock:
            if self._cause is None or (final and not self._final):
                self._cause = cause
            self._final = self._final or final
            self.event.set()
