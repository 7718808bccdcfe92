"""Trino killed (-9) and started anew in the middle of what it does: rows, files and the next run.

A commit that PostgreSQL holds back is where Trino dies: it has written everything and committed nothing. That commit
then never takes place, or before Trino is back (PostgreSQL goes on with a statement whose client is dead).
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from aurum_orchestration.local.engines import background
from aurum_orchestration.local.engines import lake as local_lake
from aurum_orchestration_tests.faults.trino_site import commits_held_back, end_waiting_commits, site
from aurum_orchestration_tests.servers import trino as servers
from aurum_orchestration_tests.servers.trino import TrinoServer

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrinoServer]:
    """A Trino of this module's own."""
    folder = tmp_path_factory.mktemp("mortal")
    for one in (folder, *folder.parents[:2]):  # PostgreSQL runs as another user than root
        one.chmod(one.stat().st_mode | 0o111)
    yield servers.start(folder / "local")
    local_lake.down(folder / "local")


def kill(server: TrinoServer) -> None:
    assert server.place is not None
    known = background.read(server.place, "trino")
    assert known is not None
    known.stop(signal.SIGKILL)


def start_anew(server: TrinoServer) -> None:
    """At the same address."""
    assert server.place is not None
    assert servers.start(server.place).url == server.url


@pytest.mark.parametrize(("operation", "commit"), [("compaction", "never"), ("retention", "at once")])
async def test_killed_at_its_commit(operation: str, commit: str, mortal: TrinoServer, tmp_path: Path) -> None:
    with site(mortal, tmp_path) as table:
        before = table.snapshots()
        with commits_held_back(table) as until_one_waits:
            running = asyncio.create_task(table.go(operation))
            await asyncio.to_thread(until_one_waits)
            kill(mortal)
            if commit == "never":
                end_waiting_commits(table)
        await asyncio.to_thread(start_anew, mortal)
        done = await running
        assert done.status == "completed", done.problem
        await table.finish(operation, before)
