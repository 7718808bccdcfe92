"""Trino killed (-9) and started anew in the middle of what it does: rows, files and the next run.

A commit that PostgreSQL holds back is where Trino dies: it has written everything and committed nothing. That commit
then never takes place, before Trino is back (PostgreSQL goes on with a statement whose client is dead), or late: while
the same statement, sent again, waits to commit too.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

from aurum_orchestration.local.engines import background
from aurum_orchestration.local.engines import lake as local_lake
from aurum_orchestration_tests.faults.trino_site import Site, commits_held_back, end_waiting_commits, site
from aurum_orchestration_tests.integration.iceberg.support import by_duckdb, by_scan
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


def statements_at_their_commit(table: Site) -> int:
    """How many Trinos, dead or alive, wait for PostgreSQL to let them commit."""
    asked = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ILIKE 'update%iceberg_tables%'"
    )
    with table.catalog.engine.connect() as asking:
        return int(asking.execute(sqlalchemy.text(asked)).scalar_one())


def until_both_wait(table: Site) -> None:
    """The dead Trino's statement and the one that was sent again."""
    until = time.monotonic() + 180
    while statements_at_their_commit(table) < 2:
        assert time.monotonic() < until, "the second statement came to no commit"
        time.sleep(0.2)


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


@pytest.mark.parametrize("embedded", [True, False])
async def test_a_dead_trinos_commit_arrives_while_the_statement_is_sent_again(
    embedded: bool, mortal: TrinoServer, tmp_path: Path
) -> None:
    """One of the two takes place. It is the run's own: proven, recorded, and taken back by an undo of the run."""
    with site(mortal, tmp_path) as table:
        before = table.snapshots()
        with commits_held_back(table) as until_one_waits:
            running = asyncio.create_task(table.go("compaction", options={"embedded": embedded}))
            await asyncio.to_thread(until_one_waits)
            kill(mortal)
            await asyncio.to_thread(start_anew, mortal)
            await asyncio.to_thread(until_both_wait, table)
        done = await running
        assert done.status == "completed", done.problem
        assert any("read back: nothing was committed" in one for one in done.warnings)
        now = table.table()
        [rewrite] = [one for one in now.snapshots() if one.snapshot_id not in before]
        assert now.metadata.current_snapshot_id == rewrite.snapshot_id
        assert rewrite.parent_snapshot_id == list(before)[-1]
        assert done.undo_data is not None
        assert done.undo_data["snapshots"] == [rewrite.snapshot_id]
        assert done.undo_data["rollback_to"] == rewrite.parent_snapshot_id
        assert done.verification is not None
        assert done.verification.ok
        assert done.verification.rows_after == 18
        assert by_scan(now) == by_duckdb(now)
        assert sorted(row["id"] for row in now.scan(selected_fields=("id",)).to_arrow().to_pylist()) == table.ids()
        await table.finish("compaction", before)
