"""Between asynchronous and synchronous code."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import threading

import pytest

from aurum_orchestration.maintenance.threads import in_thread, run_sync, until_done

SOON = 20.0
MARK: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="none")


async def test_a_call_runs_elsewhere_with_the_context() -> None:
    MARK.set("mine")
    assert await in_thread(lambda: (MARK.get(), threading.current_thread() is threading.main_thread())) == (
        "mine",
        False,
    )


async def test_what_a_call_raises_comes_back() -> None:
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await in_thread(fail)


async def test_a_given_up_call_does_not_disturb_anybody() -> None:
    go, ended = threading.Event(), threading.Event()

    def slow() -> None:
        go.wait(SOON)
        ended.set()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await in_thread(slow)
    go.set()
    await asyncio.to_thread(ended.wait, SOON)
    await asyncio.sleep(0)


def test_a_call_that_outlives_its_loop_is_forgotten() -> None:
    go = threading.Event()

    async def leave() -> None:
        in_thread(go.wait, SOON)

    asyncio.run(leave())
    go.set()


async def test_until_done_waits_through_any_number_of_cancels() -> None:
    go = threading.Event()
    cancelled = asyncio.Event()

    async def wait() -> None:
        await until_done(in_thread(go.wait, SOON), cancelled.set)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    for _ in range(2):
        task.cancel()
        await asyncio.wait_for(cancelled.wait(), SOON)
        cancelled.clear()
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def answer() -> str:
    await asyncio.sleep(0)
    return MARK.get()


def test_a_coroutine_runs_from_synchronous_code() -> None:
    MARK.set("caller")
    assert run_sync(answer()) == "caller"


async def test_and_also_where_a_loop_runs_already() -> None:
    assert run_sync(answer()) == MARK.get()


def test_what_a_coroutine_raises_comes_back() -> None:
    async def fail() -> None:
        raise LookupError("x")

    with pytest.raises(LookupError):
        run_sync(fail())


def test_an_interrupt_cancels_the_coroutine_and_waits_for_its_end() -> None:
    ended: list[str] = []

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(SOON)
        finally:
            await asyncio.sleep(0.05)
            ended.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        run_sync(work())
    assert ended == ["cleaned up"]
