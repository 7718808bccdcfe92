"""kill -9 of us, or the end of our session, in a conversion or a merge: nothing is lost, the next run completes."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from contextlib import closing
from typing import Any

import pytest

from aurum_orchestration.maintenance.backends.timescale import compaction
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration_tests.forking import SERVER
from aurum_orchestration_tests.integration.timescale.support import COLUMNSTORE, MANY, READINGS, Timescale

OURS = "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name LIKE 'aurum:compaction%'"
WORKING = """
SELECT pid FROM pg_stat_activity
 WHERE application_name LIKE 'aurum:compaction%' AND state = 'active' AND query ~ 'convert_to_columnstore|merge_chunks'
"""
LOCKS = """
SELECT count(*) = 0 FROM pg_locks
 WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

STATEMENT = "patiently"
"""What each statement goes through."""

ORPHANS = """
SELECT relname FROM pg_class c
 WHERE relnamespace = '_timescaledb_internal'::regnamespace AND relkind = 'r'
   AND (relname ~ '^compress_hyper' OR relname ~ '_compressed$')
   AND NOT EXISTS (SELECT FROM _timescaledb_catalog.compression_settings WHERE compress_relid = c.oid)
"""
"""Tables of a columnstore that no chunk has."""


def _victim(ts: Timescale, given: dict[str, Any], when: str) -> None:
    """Run a compaction, and be killed at its third statement: before, in or after it."""
    seen: list[int] = []
    original = getattr(compaction, STATEMENT)

    def deadly(work: Any, run: Any = None) -> Any:
        seen.append(1)
        if len(seen) == 3 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        if len(seen) == 3 and when == "in":
            threading.Thread(target=_die_once_it_works, args=(ts,), daemon=True).start()
        result = original(work, run)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(compaction, STATEMENT, deadly)
    ts.run("compaction", READINGS, **given)


def _die_once_it_works(ts: Timescale) -> None:
    while not ts.sql(WORKING):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)


def _expire_leases(ts: Timescale) -> None:
    with closing(sqlite3.connect(ts.home / "history.db")) as history, history:
        history.execute("UPDATE aurum_leases SET expires_at = '2000-01-01 00:00:00.000000'")


@pytest.fixture
def large(tsl: Timescale) -> Timescale:
    """With chunks of 6,000 rows, so that a statement takes its time."""
    tsl.sql(COLUMNSTORE, MANY, "INSERT INTO readings SELECT at, meter, -1 FROM readings")
    return tsl


def finish(ts: Timescale, rows: tuple[Any, ...], given: dict[str, Any]) -> None:
    """What holds after the kill, and that the next run completes the work."""
    ts.until(OURS)
    ts.until(LOCKS)
    assert ts.checksum("readings") == rows
    assert ts.sql(ORPHANS) == []
    _expire_leases(ts)
    result = ts.run("compaction", READINGS, **given)
    assert result.status is MaintenanceStatus.COMPLETED, (result.reason, result.problem)
    assert ts.checksum("readings") == rows
    assert ts.run("compaction", READINGS, **given).status is MaintenanceStatus.SKIPPED or given.get("chunks") == "merge"


@pytest.mark.thorough
@pytest.mark.parametrize("when", ["before", "in", "after"])
@pytest.mark.parametrize("given", [{}, {"chunks": "merge"}], ids=["columnstore", "merge"])
def test_kill_9_of_us_loses_nothing(large: Timescale, given: dict[str, Any], when: str) -> None:
    rows, chunks = large.checksum("readings"), len(large.chunks())
    large.settings()
    process = SERVER.Process(target=_victim, args=(large, given, when))
    process.start()
    process.join(240)
    assert process.exitcode == -signal.SIGKILL
    large.until(OURS)
    done = (
        "SELECT count(*) FROM timescaledb_information.chunks WHERE is_compressed"
        if not given
        else f"SELECT {chunks} - count(*) FROM timescaledb_information.chunks"
    )
    assert large.sql(done)[0][0] in {"before": {2}, "in": {2, 3}, "after": {3}}[when]
    finish(large, rows, given)


@pytest.mark.parametrize(
    "given", [{}, pytest.param({"chunks": "merge"}, marks=pytest.mark.thorough)], ids=["columnstore", "merge"]
)
def test_a_session_that_is_ended_in_the_middle_loses_nothing(large: Timescale, given: dict[str, Any]) -> None:
    rows, ended = large.checksum("readings"), list[Any]()

    def end() -> None:
        while not ended:
            ended.extend(large.sql(f"SELECT pg_terminate_backend(pid) FROM ({WORKING}) w"))

    thread = threading.Thread(target=end, daemon=True)
    thread.start()
    result = large.run("compaction", READINGS, **given)
    thread.join(60)
    assert ended == [(True,)]
    assert result.status is MaintenanceStatus.COMPLETED, (result.reason, result.problem)
    assert large.checksum("readings") == rows
    assert large.sql(ORPHANS) == []
    left = "SELECT count(*) FROM timescaledb_information.chunks WHERE NOT is_compressed"
    assert given or large.sql(f"{left} AND range_end <= now() - interval '7 days'") == [(0,)]
