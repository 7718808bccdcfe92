"""kill -9 of our process around every statement that it sends to Trino, without a catalog that could be asked.

What was sent goes on without us. The table is unharmed, the next run completes, the vacuum after it leaves nothing.
"""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from aurum_orchestration.history import History
from aurum_orchestration_tests.faults.trino_site import Site, end_what_runs, site
from aurum_orchestration_tests.faults.trino_victim import BEFORE, ENDED, RECORDED, SENT, TrinoVictim, trino_victim
from aurum_orchestration_tests.forking import SERVER
from aurum_orchestration_tests.servers.trino import TrinoServer

pytestmark = pytest.mark.timeout(300)

STATEMENTS = {"compaction": 1, "retention": 1, "vacuum": 1, "manifests": 1, "stats": 1, "partition_evolution": 2}
UNMARKED = ("compaction", 1, ENDED)
EVERY = [
    (name, number, point)
    for name, sent in STATEMENTS.items()
    for number in range(1, sent + 1)
    for point in (BEFORE, SENT, ENDED, *([RECORDED] if number == sent else []))
]


def victim(table: Site, operation: str, point: str | None, number: int = 1) -> tuple[int | None, Sequence[str]]:
    """How the process ended, and the points that it reached where it lived."""
    mine, theirs = SERVER.Pipe(duplex=False)
    given = TrinoVictim(table.server, table.namespace, table.home, operation, {}, point, number)
    process = SERVER.Process(target=trino_victim, args=(given, theirs))
    process.start()
    theirs.close()
    process.join(120)
    try:
        if process.is_alive():
            process.kill()
            raise AssertionError("it still runs")
        if process.exitcode != 0:
            return process.exitcode, []
        status, reason, taken = mine.recv()
        assert status == "completed", reason
        return 0, taken
    finally:
        mine.close()


def expire_lease(table: Site) -> None:
    """As if its time had passed."""
    with closing(sqlite3.connect(table.home / "history.db")) as database, database:
        database.execute("update aurum_leases set expires_at = '2000-01-01 00:00:00.000000'")


@pytest.mark.parametrize(
    ("operation", "number", "point"),
    [pytest.param(*one, marks=[] if one == UNMARKED else pytest.mark.thorough) for one in EVERY],
)
async def test_killed(operation: str, number: int, point: str, trino: TrinoServer, tmp_path: Path) -> None:
    with site(trino, tmp_path) as table:
        before = table.snapshots()
        code, _ = await asyncio.to_thread(victim, table, operation, point, number)
        assert code == -signal.SIGKILL
        table.held(before)
        expire_lease(table)
        again = await table.go(operation, options={"embedded": False})
        assert again.status in {"completed", "skipped"}, again.problem
        with History(f"sqlite:///{table.home}/history.db") as history:
            recorded = history.operations(None)
        assert len(recorded) == 2
        assert not [one for one in recorded if str(one.status) == "running"]
        await asyncio.to_thread(end_what_runs, table)
        await table.finish(operation, before)


@pytest.mark.thorough
@pytest.mark.parametrize("operation", list(STATEMENTS))
async def test_these_are_all_the_statements(operation: str, trino: TrinoServer, tmp_path: Path) -> None:
    """Undisturbed; each point is reached, in this order."""
    with site(trino, tmp_path) as table:
        code, taken = await asyncio.to_thread(victim, table, operation, None)
        assert code == 0
        assert [one for one in taken if not one.endswith(RECORDED)] == [
            f"{number}: {point}" for number in range(1, STATEMENTS[operation] + 1) for point in (BEFORE, SENT, ENDED)
        ]
        assert taken[-1].endswith(RECORDED)
