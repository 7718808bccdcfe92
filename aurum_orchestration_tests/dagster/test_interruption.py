"""A run that is stopped: what it holds is given back, what it did stays, the rest is for the next run."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from contextlib import closing

import pytest

from aurum_orchestration.dagster_edge.streaming import stream
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.compact.execute import CompactionUnit
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus, RunContext
from aurum_orchestration_tests.dagster.conftest import Location

TRADES = TableId("lake", ("market", "trades"))


def test_items_come_as_they_are_emitted() -> None:
    async def work(emit: Callable[[int], None]) -> None:
        for number in range(3):
            emit(number)
            await asyncio.sleep(0)

    assert list(stream(work)) == [0, 1, 2]


def test_a_failure_comes_after_what_was_emitted() -> None:
    async def work(emit: Callable[[int], None]) -> None:
        emit(1)
        raise LookupError("no such thing")

    items = stream(work)
    assert next(items) == 1
    with pytest.raises(LookupError, match="no such thing"):
        next(items)


def test_who_stops_listening_cancels_and_waits_for_the_cleaning_up() -> None:
    cleaned = threading.Event()

    async def work(emit: Callable[[int], None]) -> None:
        try:
            emit(1)
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.05)
            cleaned.set()

    items = stream(work)
    assert next(items) == 1
    items.close()  # type: ignore[attr-defined]
    assert cleaned.is_set()


def test_an_interrupt_reaches_the_main_thread_while_it_waits() -> None:
    async def work(emit: Callable[[int], None]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(3600)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            list(stream(work))
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_killed_run_gives_its_lease_back_and_the_next_one_carries_on(
    location: Location, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    staging = CompactionUnit.stage

    def stage(unit: CompactionUnit, run: RunContext) -> None:
        staging(unit, run)
        if unit.step.number == 2:
            os.kill(os.getpid(), number)
            assert run.cancelled.wait(30)
            run.check()

    with monkeypatch.context() as patch:
        patch.setattr(CompactionUnit, "stage", stage)
        assert not location.run("compaction", tables=[str(TRADES)], parameters={"max_concurrent_groups": 1}).success
    with location.history as history:
        assert history.holder(TRADES) is None
        (stopped,) = history.operations()
    assert stopped.status is MaintenanceStatus.CANCELLED
    assert stopped.metrics["files_rewritten"] == 30  # the first group stays
    assert files_of(location) == 31
    assert location.run("compaction", tables=[str(TRADES)]).success
    assert files_of(location) == 2


def files_of(location: Location) -> int:
    with closing(location.catalog()) as catalog:
        return len(list(catalog.load_table("market.trades").scan().plan_files()))
