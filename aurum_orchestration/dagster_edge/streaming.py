"""From the service's event loop to a generator, which is what a Dagster op is."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()
_log = logging.getLogger(__name__)


def stream(work: Callable[[Callable[[T], None]], Coroutine[Any, Any, None]]) -> Iterator[T]:
    """Run ``work(emit)`` in an event loop of its own thread and yield what it emits, as it comes.

    Raises what ``work`` raises. When the consumer is interrupted (a killed run raises in the main
    thread) or stops early, the coroutine is cancelled and waited for, so that it can let go of what it holds.
    """
    items: queue.SimpleQueue[Any] = queue.SimpleQueue()
    started = threading.Event()
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []
    failure: list[BaseException] = []

    async def main() -> None:
        task = asyncio.ensure_future(work(items.put))
        running.append((asyncio.get_running_loop(), task))
        started.set()
        await task

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failure.append(error)
        finally:
            started.set()
            items.put(_END)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name="service", daemon=True)
    thread.start()
    try:
        while (item := items.get()) is not _END:
            yield item
    except BaseException:
        started.wait()
        for loop, task in running:
            with contextlib.suppress(RuntimeError):  # it ended in the meantime
                loop.call_soon_threadsafe(task.cancel)
        _log.info("stopping: waiting until running operations have let go of their tables")
        thread.join()
        raise
    if failure:
        raise failure[0]
