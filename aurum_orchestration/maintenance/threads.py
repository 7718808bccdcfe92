"""Between asynchronous callers and synchronous engine code.

Every call gets a daemon thread of its own: a hung engine can keep neither a pool's slot nor the
process. Context variables (operation id, table of log records) go along.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    """Run ``function`` in a thread; the future has its outcome. Cancelling the future leaves the thread running."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(value: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    def work() -> None:
        value, failure = None, None
        try:
            value = context.run(function, *args, **kwargs)
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            loop.call_soon_threadsafe(settle, value, failure)

    threading.Thread(target=work, name=getattr(function, "__name__", "work"), daemon=True).start()
    return future


async def settled(futures: Iterable[asyncio.Future[Any]], on_cancel: Callable[[], None]) -> None:
    """Wait until all are done, whatever happens. When cancelled: ``on_cancel``, wait on, then pass the cancel on."""
    waiting = list(futures)
    cancelled: asyncio.CancelledError | None = None
    while pending := [future for future in waiting if not future.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled = error
            on_cancel()
    if cancelled is not None:
        raise cancelled


async def until_done(future: asyncio.Future[T], on_cancel: Callable[[], None]) -> T:
    """The outcome of ``future``, waited for as :func:`settled` does: when cancelled, it is not told."""
    try:
        await settled([future], on_cancel)
    except asyncio.CancelledError:
        if not future.cancelled():
            future.exception()  # seen: asyncio need not warn of it
        raise
    return future.result()


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from synchronous code, also where an event loop runs already.

    The loop lives in a thread of its own, so that an interrupt (Ctrl-C, a signal handler that raises)
    reaches the caller: it cancels the coroutine, waits until that has cleaned up, and goes on.
    """
    outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = []
    interrupted = threading.Event()

    async def main() -> T:
        task = asyncio.ensure_future(coroutine)
        running.append((asyncio.get_running_loop(), task))
        if interrupted.is_set():
            task.cancel()
        return await task

    def work() -> None:
        try:
            outcome.set_result(asyncio.run(main()))
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), name="run_sync", daemon=True)
    try:
        thread.start()
        concurrent.futures.wait([outcome])
    except BaseException:
        interrupted.set()  # before looking: what starts later sees it
        for loop, task in running:
            with contextlib.suppress(RuntimeError):  # it ended in the meantime
                loop.call_soon_threadsafe(task.cancel)
        if thread.ident is not None:
            concurrent.futures.wait([outcome])
        raise
    return outcome.result()
