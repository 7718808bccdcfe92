"""What the tests' child processes do. A module of its own, so that they import little."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from aurum_orchestration.errors import AurumError, LeaseHeldError
from aurum_orchestration.history import History
from aurum_orchestration_tests.integration.history.samples import FLIGHTS, ended


def fight(url: str, folder: Path, name: str, rounds: int) -> None:
    """Take the lease ``rounds`` times; note each token while nobody else may be inside."""
    inside, tokens = folder / "inside", folder / "tokens"
    with History(url) as history:
        for number in range(rounds):
            while True:
                try:
                    lease = history.acquire(FLIGHTS, holder=name, operation_id=str(number), ttl=timedelta(minutes=5))
                    break
                except LeaseHeldError:
                    time.sleep(0.002)
            # fails when another process is inside too
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            history.check(lease)
            with tokens.open("a") as file:
                file.write(f"{lease.token}\n")
            inside.unlink()
            history.release(lease)


def hold(url: str, answer: Connection) -> None:
    """Take the lease, say so, and never end."""
    history = History(url)
    lease = history.acquire(FLIGHTS, holder="the killed one", operation_id="1", ttl=timedelta(seconds=1.5))
    answer.send(lease)
    signal.pause()


def write(url: str, together: Barrier, name: str) -> None:
    """Create the store and write to it, at the same moment as the others."""
    with History(url) as history:
        together.wait(60)
        history.record(ended(operation_id=name), who=name)


def write_as(urls: list[str], warm_up: str, user: int, answer: Connection) -> None:
    """Write to stores as another user, who has fewer rights than root; answer with the problem of each."""
    with History(warm_up) as other:
        # imports what writing needs: the other user may not be able to read it
        other.record(ended(), who="root")
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    answer.send([problem_of_writing(url) for url in urls])


def problem_of_writing(url: str) -> dict[str, Any]:
    """The problem there was, as data."""
    try:
        with History(url) as history:
            history.record(ended(), who="nobody")
    except AurumError as error:
        return error.problem().model_dump()
    return {"type": "none"}
