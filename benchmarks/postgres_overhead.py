"""What the service adds to VACUUM and REINDEX of many PostgreSQL tables: two at a time, against the statements by psql.

    python -m benchmarks.postgres_overhead [--dsn DSN] [--tables 200] [--rows 20000] [--rounds 2]

The statements and their settings are those of our own plans. Two psql take them in turn, one connection each, and look
at nothing; the service does the same tables with ``max_parallel: 2``: measured, planned, leased, carried out, measured
anew, recorded. The server waits for its disk, as the history does. Between the rounds every table is worn out again.
Alternating, at the same server; the first round warms and does not count. What the service adds is much the same for
every table, so it is told in milliseconds of a table's time, too: the larger the tables (``--rows``), the less that is.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg

from aurum_orchestration.local.engines import postgres
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.settings import AurumSettings
from benchmarks.figures import figure, show
from benchmarks.postgres_measure import server, timed

TABLES, ROWS, ROUNDS, PARALLEL = 200, 20_000, 2, 2
NAME = "overhead"
_TABLE = """
CREATE TABLE bench.t{number} (id bigint PRIMARY KEY, curve text NOT NULL, price float8, at timestamptz NOT NULL)
  WITH (autovacuum_enabled = false);
INSERT INTO bench.t{number} SELECT g, 'curve-' || g % 50, g, timestamptz '2026-01-01' + g * interval '1 minute'
  FROM generate_series(1, {rows}) g;
CREATE INDEX t{number}_curve ON bench.t{number} (curve);
CREATE INDEX t{number}_at ON bench.t{number} (at, id)
"""


class Bench:
    """The tables, worn out before every round."""

    def __init__(self, dsn: str, tables: int, rows: int, scratch: Path) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {NAME}")
            connection.execute(f"CREATE DATABASE {NAME}")
        self.dsn = psycopg.conninfo.make_conninfo(dsn, dbname=NAME)
        self.names = [f"t{number:03d}" for number in range(tables)]
        self._scratch = scratch
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA bench")
            for name in self.names:
                connection.execute(_TABLE.format(number=name[1:], rows=rows))
            connection.execute("VACUUM (ANALYZE)")

    def wear(self) -> None:
        """Change a third of the rows of every table."""
        with psycopg.connect(self.dsn, autocommit=True, options="-c synchronous_commit=off") as connection:
            for name in self.names:
                connection.execute(f"UPDATE bench.{name} SET at = at + interval '1 second' WHERE id % 3 = 0")
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("CHECKPOINT")

    async def statements(self, operation: str, parameters: dict[str, Any]) -> list[list[str]]:
        """The SQL of our plans, by table."""
        async with self._service() as service:
            planned = await service.maintain(["pg.bench.*"], [operation], True, parameters)
        found = [
            [
                sql
                for step in result.steps or ()
                if "sql" in step.detail
                for sql in (*_set(step.detail.get("settings", {})), step.detail["sql"])
            ]
            for result in planned
        ]
        if len(found) != len(self.names) or not all(found):
            raise RuntimeError(f"{len(found)} plans, {sum(map(bool, found))} with statements")
        return found

    def by_psql(self, statements: Sequence[Sequence[str]]) -> None:
        """The statements by two psql."""
        psql = postgres._binaries() / "psql"
        files = []
        for share in range(PARALLEL):
            file = self._scratch / f"share{share}.sql"
            text = [f"{one};" for table in statements[share::PARALLEL] for one in table]
            file.write_text("\n".join(["SET lock_timeout = '2s';", "SET statement_timeout = '6h';", *text]) + "\n")
            files.append(file)

        def one(file: Path) -> None:
            command: list[str | Path] = [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.dsn, "-f", file]
            subprocess.run(command, check=True, capture_output=True)

        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(one, files))

    async def by_service(self, operation: str, parameters: dict[str, Any]) -> float:
        """Seconds of one round of the operation through the service, with everything it does."""
        shutil.rmtree(self._scratch / "home", ignore_errors=True)
        async with self._service() as service:
            await service.discover()
            began = time.perf_counter()
            results = await service.maintain(["pg.bench.*"], [operation], False, parameters)
            seconds = time.perf_counter() - began
        bad = [one for one in results if one.status != MaintenanceStatus.COMPLETED]
        if bad or len(results) != len(self.names):
            raise RuntimeError(f"{len(bad)} of {len(results)} not completed: {bad[:1]}")
        return seconds

    def _service(self) -> MaintenanceService:
        fleet = self._scratch / "fleet.yaml"
        home = self._scratch / "home"
        fleet.write_text(
            f'version: 1\nbackends:\n  pg:\n    type: postgres\n    dsn: "{self.dsn}"\n    max_parallel: {PARALLEL}\n'
        )
        return MaintenanceService(AurumSettings(home=home, fleet=fleet, history_url=f"sqlite:///{home}/history.db"))


def _set(settings: dict[str, str]) -> list[str]:
    # how fast a vacuum may go is part of what it does
    return [f"SET {name} = '{value}'" for name, value in settings.items()]


def measure(dsn: str, tables: int, rows: int, rounds: int) -> list[dict[str, Any]]:
    """The figures."""
    figures: list[dict[str, Any]] = []
    kinds: dict[str, dict[str, Any]] = {"vacuum": {}, "reindex": {"scope": "table"}}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(dsn, tables, rows, Path(folder))
        for operation, parameters in kinds.items():
            bare, ratios, added = [], [], []
            for number in range(rounds + 1):
                print(f"  {operation}: round {number} of {rounds}", file=sys.stderr, flush=True)
                bench.wear()
                statements = asyncio.run(bench.statements(operation, parameters))
                before = _by(bench, statements)
                bench.wear()
                ours = asyncio.run(bench.by_service(operation, parameters))
                bench.wear()
                after = _by(bench, statements)
                if number:
                    bare.append((before + after) / 2)
                    ratios.append(ours / bare[-1] - 1)
                    added.append((ours - bare[-1]) * 1000 * PARALLEL / tables)
            figures.append(figure(f"{operation}_by_psql", bare, "s"))
            figures.append(figure(f"{operation}_added_for_a_table", added, "ms"))
            figures.append(figure(f"{operation}_overhead", ratios, "ratio", 0.10))
    return figures


def _by(bench: Bench, statements: Sequence[Sequence[str]]) -> float:
    work: Callable[[], None] = lambda: bench.by_psql(statements)  # noqa: E731
    return timed(work)


def main() -> None:
    """Measure at a server of one's own, or at the one given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn")
    parser.add_argument("--tables", type=int, default=TABLES)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    if given.dsn:
        show(measure(given.dsn, given.tables, given.rows, given.rounds))
        return
    with server("fsync=on") as dsn:
        show(measure(dsn, given.tables, given.rows, given.rounds))


if __name__ == "__main__":
    main()
