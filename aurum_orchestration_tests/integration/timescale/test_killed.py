"""kill -9 of our process before, and within, a statement of TimescaleDB's operations: nothing lost, nothing left."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import pytest

from aurum_orchestration.maintenance.backends.postgres.connection import Session
from aurum_orchestration_tests.forking import SERVER
from aurum_orchestration_tests.integration.timescale.support import READINGS, Timescale

OURS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'aurum:%'"
WAITS = f"{OURS} AND wait_event_type = 'Lock' AND query LIKE '%drop_chunks%'"
INVALID = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
LOCKS = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = 1096110669"
YOUNG = "(SELECT * FROM readings WHERE at >= date_trunc('day', now(), 'UTC') - interval '20 days')"
OLD_CHUNKS = "SELECT count(*) FROM timescaledb_information.chunks WHERE range_end < now() - interval '25 days'"


@dataclass(frozen=True)
class Case:
    """An operation on the hypertable of readings, with parameters that give it work on its chunks."""

    operation: str
    parameters: Mapping[str, Any]


RETENTION = Case("retention", {"time_column": "at", "row_days": 25})
CASES = [
    RETENTION,
    Case("vacuum", {"freeze": "always"}),
    Case("stats", {"analyze": "all"}),
    Case("reindex", {"scope": "table", "unknown_space_limit_mb": None}),
    Case("partition_evolution", {"chunk_interval": "2 days"}),
]


def victim(ts: Timescale, case: Case, at: int, answer: Connection) -> None:
    """Do the operation and die before its statement number ``at``; 0: live, and answer how many there were."""
    taken, check = [0], Session._check

    def deadly(self: Session) -> None:
        taken[0] += 1
        if taken[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(1)
        check(self)

    Session._check = deadly  # type: ignore[method-assign]
    result = ts.run(case.operation, READINGS, **case.parameters)
    with closing(answer):
        answer.send((str(result.status), result.reason, taken[0]))


@contextmanager
def begun(ts: Timescale, case: Case, at: int = 0) -> Iterator[tuple[Any, Connection]]:
    """The victim's process at work, and where it answers."""
    mine, theirs = SERVER.Pipe(duplex=False)
    process = SERVER.Process(target=victim, args=(ts, case, at, theirs))
    with closing(mine):
        process.start()
        theirs.close()
        try:
            yield process, mine
        finally:
            process.kill()
            process.join(60)


def expire_leases(ts: Timescale) -> None:
    """Move the ends of leases back, as if their time had passed. A run that was killed early had none."""
    with closing(sqlite3.connect(ts.home / "history.db")) as database, database:
        if database.execute("select 1 from sqlite_schema where name = 'aurum_leases'").fetchall():
            database.execute("update aurum_leases set expires_at = '2000-01-01 00:00:00.000000'")


def until(ts: Timescale, query: str, *, there: bool) -> None:
    deadline = time.monotonic() + 100
    while bool(ts.sql(query)) != there:
        assert time.monotonic() < deadline, query
        time.sleep(0.02)


def check_after_kill(ts: Timescale, case: Case, before: tuple[Any, ...]) -> None:
    """The young rows are there, the server has let go, the next run completes and leaves nothing behind."""
    until(ts, OURS, there=False)
    assert ts.checksum(YOUNG) == before
    expire_leases(ts)
    again = ts.run(case.operation, READINGS, **case.parameters)
    assert str(again.status) in {"completed", "skipped"}, (again.status, again.reason)
    assert ts.checksum(YOUNG) == before
    if case is RETENTION:
        assert ts.sql(OLD_CHUNKS) == [(0,)]
    until(ts, OURS, there=False)
    assert ts.sql(INVALID) == []
    assert ts.sql(LOCKS) == []
    with closing(sqlite3.connect(ts.home / "history.db")) as database:
        assert database.execute("select count(*) from aurum_operations where status = 'running'").fetchall() == [(0,)]


def test_killed_while_the_server_drops_a_chunk(ts: Timescale) -> None:
    """Somebody holds the chunk, so that the statement waits on the server when we are gone; it may go through then."""
    before, oldest = ts.checksum(YOUNG), ts.chunks()[0]
    held = f"SELECT 1 FROM _timescaledb_internal.{oldest} LIMIT 1"
    with ts.transaction(held), begun(ts, RETENTION) as (process, _):
        until(ts, WAITS, there=True)
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
    check_after_kill(ts, RETENTION, before)


@pytest.mark.thorough
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.operation)
def test_killed_again_and_again_before_a_statement(ts: Timescale, case: Case) -> None:
    """Each run goes on where the one before was killed, and is killed later, until one comes to its end."""
    before, kills = ts.checksum(YOUNG), 0
    for at in (2, 5, 9, 14, 20, 27, 35, 50, 70, 100):
        with begun(ts, case, at) as (process, _):
            process.join(240)
            ended = process.exitcode
        assert ended in {0, -signal.SIGKILL}
        if ended == 0:
            break
        kills += 1
        until(ts, OURS, there=False)
        assert ts.checksum(YOUNG) == before
        expire_leases(ts)
    assert kills >= 3
    check_after_kill(ts, case, before)
