"""Leases between real processes: exactly one holds at any moment, and a killed holder blocks nobody for ever."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path

from aurum_orchestration.errors import LeaseHeldError
from aurum_orchestration.history import History, Lease
from aurum_orchestration_tests.forking import SERVER
from aurum_orchestration_tests.integration.history import workers
from aurum_orchestration_tests.integration.history.samples import FLIGHTS, wait_until


def test_processes_that_fight_for_one_lease_hold_it_one_after_the_other(url: str, tmp_path: Path) -> None:
    fighters = [SERVER.Process(target=workers.fight, args=(url, tmp_path, f"p{number}", 10)) for number in range(3)]
    for fighter in fighters:
        fighter.start()
    for fighter in fighters:
        fighter.join(120)
    assert [fighter.exitcode for fighter in fighters] == [0, 0, 0]
    tokens = [int(line) for line in (tmp_path / "tokens").read_text().split()]
    assert tokens == list(range(1, 31))


def test_the_lease_of_a_killed_holder_expires(url: str) -> None:
    mine, theirs = SERVER.Pipe()
    holder = SERVER.Process(target=workers.hold, args=(url, theirs))
    holder.start()
    assert mine.poll(60)
    left: Lease = mine.recv()
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join(30)
    assert holder.exitcode == -signal.SIGKILL
    taken: list[Lease] = []
    refusals: list[str] = []

    def try_to_take() -> bool:
        try:
            taken.append(history.acquire(FLIGHTS, holder="the next", operation_id="2", ttl=timedelta(minutes=1)))
        except LeaseHeldError as refused:
            refusals.append(refused.detail)
            return False
        return True

    with History(url) as history:
        wait_until(try_to_take, "the killed holder's lease could be taken")
        assert all("the killed one" in refusal for refusal in refusals)
        assert taken[0].token == left.token + 1
        # by the store's clock: not a moment before it had expired
        assert taken[0].expires_at - taken[0].ttl >= left.expires_at
    mine.close()
    theirs.close()


def test_processes_that_create_the_store_at_once_all_succeed(url: str) -> None:
    together = SERVER.Barrier(3)
    writers = [SERVER.Process(target=workers.write, args=(url, together, f"w{number}")) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    with History(url) as history:
        assert {result.operation_id for result in history.operations()} == {"w0", "w1", "w2"}
