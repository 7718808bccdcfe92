"""Keeps a table's lease alive while an operation works on it."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from aurum_orchestration.errors import AurumError, LeaseLostError

if TYPE_CHECKING:
    from aurum_orchestration.history import History
    from aurum_orchestration.history.records import Lease

_log = logging.getLogger(__name__)


class KeptLease:
    """Renewed by a heartbeat every third of its life, from when this is made until it is given back.

    ``on_lost`` is called from the heartbeat's thread when the store says that the lease is gone.
    """

    def __init__(self, history: History, lease: Lease, on_lost: Callable[[LeaseLostError], None]) -> None:
        self._history = history
        self._lease = lease
        self._on_lost = on_lost
        self._guard = threading.Lock()
        self._ended = threading.Event()
        context = contextvars.copy_context()
        self._beat = threading.Thread(target=context.run, args=(self._heartbeat,), name="lease", daemon=True)
        self._beat.start()

    def still_mine(self) -> None:
        """Renew now, so that a whole life of the lease lies ahead. Raises LeaseLostError."""
        with self._guard:
            self._lease = self._history.renew(self._lease)

    def stop(self) -> Lease:
        """End the heartbeat; the lease as it is now, for whoever gives it back."""
        self._ended.set()
        self._beat.join()
        return self._lease

    def release(self) -> None:
        """End the heartbeat and give the lease back. A failure is logged: the lease expires by itself."""
        self.stop()
        try:
            self._history.release(self._lease)
        except AurumError as error:
            _log.warning("lease not released, it expires by itself: %s", error)

    def _heartbeat(self) -> None:
        while not self._ended.wait(self._lease.ttl.total_seconds() / 3):
            try:
                self.still_mine()
            except LeaseLostError as error:
                self._on_lost(error)
                return
            except AurumError as error:
                _log.warning("lease not renewed, trying again: %s", error)
