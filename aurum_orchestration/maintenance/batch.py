"""Many requests at once: bounded per backend, one after the other per table, results as they end."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from aurum_orchestration.maintenance.backends.base import BaseMaintenanceBackend
from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, MaintenanceResult
from aurum_orchestration.maintenance.operations.base import BaseMaintenanceOperation
from aurum_orchestration.maintenance.threads import settled


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was understood. ``operation`` None: nothing implements it, ``reason`` says so."""

    config: MaintenanceConfig
    backend: BaseMaintenanceBackend
    operation: BaseMaintenanceOperation | None = None
    policy: BaseModel | None = None
    reason: str = ""


Carry = Callable[[Request, Callable[[MaintenanceResult], None]], Awaitable[object]]
"""Carries a request out and hands its result to the callback exactly once, also when cancelled."""


async def as_they_end(
    requests: Sequence[Request], carry: Carry, gate: Callable[[str], asyncio.Semaphore]
) -> AsyncGenerator[tuple[int, MaintenanceResult], None]:
    """Carry all out and yield (position in ``requests``, result) as they end.

    Requests for the same table run in the order given. Closing the iterator early cancels what runs and
    waits for it.
    """
    ended: asyncio.Queue[tuple[int, MaintenanceResult] | BaseException] = asyncio.Queue()
    tables: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def one(position: int, request: Request) -> None:
        try:
            async with tables[request.config.target_table], gate(request.backend.name):
                await carry(request, lambda result: ended.put_nowait((position, result)))
        except Exception as error:  # a callback's own fault: without this the reader would wait for ever
            ended.put_nowait(error)

    tasks = [asyncio.create_task(one(position, request)) for position, request in enumerate(requests)]
    try:
        for _ in tasks:
            item = await ended.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        for task in tasks:
            task.cancel()
        await settled(tasks, lambda: None)
