"""How long measuring many PostgreSQL tables takes: the statement by itself, and the service around it.

    python -m benchmarks.postgres_measure [--dsn DSN] [--tables 1000 10000]

Without a DSN the embedded PostgreSQL is started, and removed at the end; with one, the databases that are made stay
there and are found by the next run. Every table has a primary key and two indexes; every tenth has 2,000 rows and has
lost a third of them, one in twenty has been written since it was analyzed. The SQL is what the server tells
(EXPLAIN ANALYZE without timing), the median of many; the service is ``backend.measure`` with a warm pool.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.local.engines import background, postgres
from aurum_orchestration.maintenance.backends.postgres.backend import PostgresMaintenanceBackend
from aurum_orchestration.maintenance.backends.postgres.connection import Session
from benchmarks.figures import figure, show

PASSES = 15
GOALS = {1_000: 0.030, 10_000: 0.5}
CHUNK = 100

_MAKE = """
DO $$
BEGIN
  FOR n IN {first}..{last} LOOP
    EXECUTE format('CREATE TABLE bench.t%s (id bigint PRIMARY KEY, curve text NOT NULL, price numeric,'
      || ' at timestamptz NOT NULL, hub text, volume float8, flag boolean, note text)', n);
    EXECUTE format('INSERT INTO bench.t%s SELECT g, ''curve-'' || g %% 50, g * 1.5,'
      || ' timestamptz ''2026-01-01'' + g * interval ''1 minute'', ''hub-'' || g %% 7, g, g %% 2 = 0, NULL'
      || ' FROM generate_series(1, %s) g', n, CASE WHEN n % 10 = 0 THEN 2000 ELSE 20 END);
    EXECUTE format('CREATE INDEX ON bench.t%s (curve)', n);
    EXECUTE format('CREATE INDEX ON bench.t%s (at, hub)', n);
  END LOOP;
END $$
"""
_WRITE = """
DO $$
BEGIN
  FOR n IN {first}..{last} LOOP
    IF n % 10 = 0 THEN EXECUTE format('DELETE FROM bench.t%s WHERE id % 3 = 0', n); END IF;
  END LOOP;
END $$
""".replace("% 3", "%% 3")


@contextmanager
def server(*settings: str) -> Iterator[str]:
    """The embedded PostgreSQL in a folder of its own. ``settings`` go before those that make it quick."""
    with tempfile.TemporaryDirectory(prefix="aurum-bench-postgres-") as scratch:
        folder = Path(scratch)
        port = background.port_for(None)
        quick = ["fsync=off", "shared_buffers=256MB", "max_wal_size=4GB", "autovacuum=off"]
        command = postgres.command(postgres.make(folder), folder, port, *quick, *settings)
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
        with subprocess.Popen(command, **quiet, **postgres.identity()) as process:
            try:
                while not postgres.answers(port):
                    time.sleep(0.1)
                yield postgres.url(port).replace("+psycopg", "")
            finally:
                process.terminate()


def prepare(dsn: str, count: int) -> str:
    """A database with so many tables; its connection string. One that is there is taken as it is."""
    name = f"measure_{count}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
            connection.execute(f"CREATE DATABASE {name}")
    own = psycopg.conninfo.make_conninfo(dsn, dbname=name)
    with psycopg.connect(own, autocommit=True) as connection:
        if connection.execute("SELECT to_regclass('bench.done')").fetchone() != (None,):
            return own
        connection.execute("DROP SCHEMA IF EXISTS bench CASCADE")
        connection.execute("CREATE SCHEMA bench")
        for first in range(1, count, CHUNK):
            connection.execute(_MAKE.format(first=first, last=first + CHUNK - 1))
            # a session tells what it did with a delay, and would add it to what ANALYZE has counted
            connection.execute("SELECT pg_stat_force_next_flush()")
        connection.execute("VACUUM (ANALYZE)")
        for first in range(1, count, CHUNK):
            connection.execute(_WRITE.format(first=first, last=first + CHUNK - 1))
            connection.execute("SELECT pg_stat_force_next_flush()")
        # half of those that were written have been looked at since
        for number in range(20, count + 1, 20):
            connection.execute(f"VACUUM (ANALYZE) bench.t{number}")
        connection.execute("CREATE TABLE bench.done ()")
        connection.execute("SELECT pg_stat_force_next_flush()")
    return own


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class Asked:
    """Keeps the statements that measuring sends, so that the same ones can be sent by themselves."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, Any]] = []

    def __enter__(self) -> Asked:
        self._tuples = Session.tuples
        sent = self.sent

        def tuples(session: Session, query: Any, parameters: Any = None, **options: Any) -> list[tuple[Any, ...]]:
            sent.append((query, parameters))
            return self._tuples(session, query, parameters, **options)

        Session.tuples = tuples  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *_: object) -> None:
        Session.tuples = self._tuples  # type: ignore[method-assign]


def _cpu(pid: int) -> Callable[[], float]:
    """CPU seconds that a process of this machine has used: what a busy machine does not change much."""
    told = Path(f"/proc/{pid}/schedstat")
    return lambda: int(told.read_text().split()[0]) / 1e9 if told.exists() else 0.0


def measure(dsn: str, count: int) -> list[dict[str, Any]]:
    """The figures of one database."""
    backend = PostgresMaintenanceBackend({"dsn": dsn}, name="pg")
    tables = [TableId("pg", ("bench", f"t{number}")) for number in range(1, count + 1)]

    def service() -> object:
        return backend.measure(tables, lambda *_: None)  # type: ignore[arg-type]

    first = timed(service)
    with Asked() as asked:
        healths = backend.measure(tables, lambda *_: None)  # type: ignore[arg-type]
    assert not any(health.problem for health in healths)
    bloated = [health for health in healths if health.metrics.get("table_bloat_ratio", 0) > 0.2]
    assert len(bloated) == count // 10, f"{len(bloated)} tables found bloated"
    *before, (query, parameters) = asked.sent
    server_side, cpu, alone, around = [], [], [], []
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:

        def sql() -> object:
            return connection.execute(query, parameters, binary=True).fetchall()

        for settings in before:
            connection.execute(*settings)
        used = _cpu(connection.info.backend_pid)
        text = query if isinstance(query, str) else query.as_string(connection)
        for _ in range(PASSES):
            plan = connection.execute("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + text, parameters).fetchone()
            assert plan is not None
            server_side.append((plan[0][0]["Planning Time"] + plan[0][0]["Execution Time"]) / 1000)
            began = used()
            alone.append(timed(sql))
            cpu.append(used() - began)
            around.append(timed(service))
    asyncio.run(backend.disconnect())
    best = statistics.median(alone)
    return [
        figure(f"sql_{count}", server_side, "s", GOALS.get(count)),
        figure(f"sql_cpu_{count}", cpu, "s"),
        figure(f"sql_and_fetch_{count}", alone, "s"),
        figure(f"service_{count}", around, "s"),
        figure(f"first_{count}", [first], "s"),
        figure(f"service_over_sql_{count}", [one / best for one in around], "ratio", 1.3),
    ]


def main() -> None:
    """Make what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn")
    parser.add_argument("--tables", type=int, nargs="*", default=sorted(GOALS))
    given = parser.parse_args()

    def figures(dsn: str) -> list[dict[str, Any]]:
        found = []
        for count in given.tables:
            own = prepare(dsn, count)
            print(f"{count} tables are there", file=sys.stderr)
            found += measure(own, count)
        return found

    if given.dsn:
        show(figures(given.dsn))
        return
    with server() as dsn:
        show(figures(dsn))


if __name__ == "__main__":
    main()
