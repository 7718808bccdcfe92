"""Keeps a table's lease alive while an operation works on it."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from aurum_orchestration.errors import AurumError, LeaseLostError
from aurum_orchestration.fleet.table_id import TableId

if TYPE_CHECKING:
    from aurum_orchestration.history import History

_log = logging.getLogger(__name__)


class KeptLease:
    """Acquired when made, renewed by a heartbeat every third of its life until it is released.

    ``on_lost`` is called from the heartbeat's thread when the store says that the lease is gone.
    """

    def __init__(
        self,
        history: History,
        table: TableId,
        *,
        holder: str,
        operation_id: str,
        ttl: timedelta,
        on_lost: Callable[[LeaseLostError], None],
    ) -> None:
        self._history = history
        self._ttl = ttl
        self._on_lost = on_lost
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._lease = history.acquire(table, holder=holder, operation_id=operation_id, ttl=ttl)
        context = contextvars.copy_context()
        self._beat = threading.Thread(target=context.run, args=(self._heartbeat,), name="lease", daemon=True)
        self._beat.start()

    def still_mine(self) -> None:
        """Renew now, so that a whole life of the lease lies ahead. Raises LeaseLostError."""
        with self._guard:
            self._lease = self._history.renew(self._lease)

    def release(self) -> None:
        """End the heartbeat and give the lease back. A failure is logged: the lease expires by itself."""
        self._ended.set()
        self._beat.join()
        try:
            self._history.release(self._lease)
        except AurumError as error:
            _log.warning("lease not released, it expires by itself: %s", error)

    def _heartbeat(self) -> None:
        while not self._ended.wait(self._ttl.total_seconds() / 3):
            try:
                self.still_mine()
            except LeaseLostError as error:
                self._on_lost(error)
                return
            except AurumError as error:
                _log.warning("lease not renewed, trying again: %s", error)
