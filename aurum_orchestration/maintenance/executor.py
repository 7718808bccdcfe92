"""Runs an operation from request to recorded result, asynchronously, for many tables at once.

What one run does is in :mod:`aurum_orchestration.maintenance.running`; here are retries, cancellation
and the order record, give the lease back, report.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from pydantic import BaseModel
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, MaintenanceResult
from aurum_orchestration.maintenance.operations.base import BaseMaintenanceOperation
from aurum_orchestration.maintenance.running import OperationRun, ProgressHook
from aurum_orchestration.maintenance.threads import in_thread, until_done
from aurum_orchestration.observability import logging_context

if TYPE_CHECKING:
    from aurum_orchestration.history import History
    from aurum_orchestration.maintenance.backends.base import BaseMaintenanceBackend
    from aurum_orchestration.notifications.notices import Telling

ResultHook = Callable[[MaintenanceResult], None]
"""Called with a result as soon as it is there, in the event loop's thread."""


def default_holder() -> str:
    """Who runs this process: ``user@host:pid``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()}:{os.getpid()}"


class MaintenanceExecutor:
    """Runs operations on backends. Safe to use for many tables at once.

    ``history`` None: only dry runs are possible. ``lease_ttl``: how long a table stays reserved after
    its holder died. ``attempts``: at most so many plans per operation, ``pause`` seconds (doubling, with
    jitter, at most ``longest_pause``) between them. ``telling`` answers what is to be told of a result.
    """

    def __init__(
        self,
        history: History | None = None,
        *,
        who: str | None = None,
        telling: Telling | None = None,
        lease_ttl: timedelta = timedelta(seconds=60),
        attempts: int = 5,
        pause: float = 0.5,
        longest_pause: float = 30.0,
    ) -> None:
        self.history = history
        self.who = who or default_holder()
        self.telling = telling
        self.lease_ttl = lease_ttl
        self._attempts_at_most = attempts
        self._pause = pause
        self._longest_pause = longest_pause

    async def execute(
        self,
        backend: BaseMaintenanceBackend,
        operation: BaseMaintenanceOperation,
        config: MaintenanceConfig,
        *,
        policy: BaseModel | None = None,
        on_result: ResultHook | None = None,
        progress: ProgressHook | None = None,
    ) -> MaintenanceResult:
        """Run one request to its end; whatever goes wrong is in the result.

        Raises RequestError for wrong parameters, before anything is done. When cancelled, waits for the
        threads to end, records, gives the lease back, calls ``on_result``, and raises CancelledError.
        """
        parameters = operation.parameters(config.parameters, policy)
        run = OperationRun(self, backend, operation, config, parameters=parameters, progress=progress)
        with logging_context(operation_id=run.operation_id, table=str(run.table)):
            cancelled: asyncio.CancelledError | None = None
            error: Exception | None = None
            try:
                await self._attempts(run)
            except asyncio.CancelledError as stopped:
                cancelled = stopped
            except Exception as failure:
                error = failure
            result = run.result(error)
            finished = in_thread(run.finish, result)
            try:
                result = await until_done(finished, lambda: None)
            except asyncio.CancelledError as stopped:
                cancelled, result = stopped, finished.result()
            if on_result is not None:
                on_result(result)
            if cancelled is not None:
                raise cancelled
            return result

    async def _attempts(self, run: OperationRun) -> None:
        retrying = AsyncRetrying(
            retry=retry_if_exception(run.may_retry),
            stop=stop_after_attempt(self._attempts_at_most),
            wait=wait_random_exponential(multiplier=self._pause, max=self._longest_pause),
            before_sleep=run.note_retry,
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                await run.attempt()
