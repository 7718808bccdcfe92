"""Telling people: what a service does goes into the outbox, and from there to whom the fleet file names."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aurum_orchestration.errors import AurumError, HistoryError
from aurum_orchestration.history.records import GROUP_WAITS, Notices
from aurum_orchestration.maintenance.connected import ConnectedService
from aurum_orchestration.maintenance.executor import default_holder
from aurum_orchestration.maintenance.threads import in_thread
from aurum_orchestration.notifications.notices import FailedRun, Telling, of_run
from aurum_orchestration.notifications.notifier import Flushed, Notifier

_log = logging.getLogger(__name__)


class InformingService(ConnectedService):
    """The part of a service that tells people what was done."""

    async def flush_notifications(self, seconds: float = 30.0) -> Flushed:
        """Send the notices that are due, beginning none after so many seconds.

        Raises MissingExtraError without apprise, HistoryError when the outbox cannot be read: all then waits.
        """
        destinations = self._destinations()
        if not destinations:
            return Flushed()
        return await in_thread(Notifier(self.history, destinations).flush, seconds)

    async def tell_failed_run(self, run: FailedRun) -> int:
        """Put it into the outbox that a whole run failed; how many destinations are told."""
        notices = of_run(self._destinations(), run)
        await in_thread(self.history.post, notices)
        return len(notices.items)

    @asynccontextmanager
    async def telling(self, origin: str | None = None, *, dry_run: bool = False) -> AsyncIterator[Telling | None]:
        """What is done within is told in one message when it is over; None where nobody is to be told.

        ``origin`` is what people read about whose work it is. What was cancelled is sent by whoever comes next.
        """
        known = [] if dry_run else self._destinations()
        if not known:
            yield None
            return
        telling = Telling(known, origin or self._who or default_holder())
        try:
            yield telling
        finally:
            await self._end_group(telling.group)
        try:
            await self.flush_notifications()
        except AurumError as error:
            _log.warning("notifications wait: %s%s", error, f"; {error.hint}" if error.hint else "")

    async def _end_group(self, group: str) -> None:
        try:
            await in_thread(self.history.end_group, group)
        except HistoryError as error:
            _log.warning("notifications are sent some minutes later: %s", error)

    async def _post(self, notices: Notices) -> None:
        try:
            await in_thread(self.history.post, notices, due_in=GROUP_WAITS)
        except HistoryError as error:
            _log.error("nobody is told of tables that could not be measured: %s", error)
