"""What orchestration adds to Trino's statements: 50 tables compacted in a batch, against the bare SQL.

    python -m benchmarks.trino_overhead [--tables 50] [--rounds 2] [--files 24] [--rows 10000]

Every table is what a night meets of one that is written to every hour: 24 commits of one file each, 10,000 rows of 12
columns in a file.

The bare SQL is what a script would send: one ``ALTER TABLE ... EXECUTE optimize`` per table by the ``trino`` package,
on one connection, with the session properties that ours has. Ours is one batch of the service. It sends that statement
too, and others: one that looks before, with proof one that reads both sides. Every one of them is a statement. Shares
of the bare SQL's seconds:

* ``outside``: seconds of the batch in which no statement of ours runs: plan, lease, history, the catalog; without and
  with proof;
* ``unproven``: all that the batch takes more than the bare SQL, with ``verify: false``;
* ``proven``: the same with the rows counted and hashed by Trino before and after, which the bare SQL does not do.

One table at a time on both sides, at the same Trino, alternating. A few tables warm both sides before.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import parquet_file_to_data_file
from trino.dbapi import connect

from aurum_orchestration.local.engines.lake import CATALOG, Lake
from aurum_orchestration.maintenance.backends.iceberg.trino.client import Answer, TrinoClient
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from benchmarks.figures import figure, show
from benchmarks.tables import CURVES, curve_rows
from benchmarks.trino_lake import catalog_of, fleet_of, service_of, trino_lake

TABLES, FILES, ROWS_A_FILE, ROUNDS, WARM = 50, 24, 10_000, 2, 5
SESSION = {f"{CATALOG}.target_max_file_size": "128MB"}


class Bench:
    """Tables of small files, before every batch as they were."""

    def __init__(self, found: Lake, count: int, files: int, rows: int) -> None:
        self._lake = found
        self.catalog: SqlCatalog = catalog_of(found)
        self.names = [f"t{number:03d}" for number in range(count)]
        self._bases: dict[str, tuple[int, set[str]]] = {}
        self.catalog.create_namespace("bench")
        written = self._files(files, rows)
        for name in self.names:
            self._make(name, written)

    def _files(self, files: int, rows: int) -> list[Path]:
        """What is in every table."""
        rng, folder = np.random.default_rng(7), self._lake.place / "files"
        folder.mkdir()
        paths = [folder / f"{uuid.uuid4()}.parquet" for _ in range(files)]
        for number, path in enumerate(paths):
            pq.write_table(curve_rows(rng, 0, rows, number * rows), path, compression="zstd")
        return paths

    def _make(self, name: str, written: Sequence[Path]) -> None:
        table = self.catalog.create_table(f"bench.{name}", CURVES)
        folder = Path(table.location().removeprefix("file://")) / "data"
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        with table.transaction() as transaction:
            for file in written:
                os.link(file, folder / file.name)
                paths.append(f"file://{folder / file.name}")
                with transaction.update_snapshot().fast_append() as append:
                    append.append_data_file(
                        parquet_file_to_data_file(
                            io=table.io, table_metadata=transaction.table_metadata, file_path=paths[-1]
                        )
                    )
        base = table.metadata.current_snapshot_id
        assert base is not None
        self._bases[name] = (base, set(paths))

    def reset(self, names: Sequence[str]) -> None:
        """Back to the small files. Raises RuntimeError for a table that was not compacted."""
        for name in names:
            base, paths = self._bases[name]
            table = self.catalog.load_table(f"bench.{name}")
            now = {task.file.file_path for task in table.scan().plan_files()}
            if len(now) != 1:
                raise RuntimeError(f"{name} has {len(now)} files")
            table.manage_snapshots().set_current_snapshot(snapshot_id=base).commit()
            for path in now - paths:
                Path(path.removeprefix("file://")).unlink()

    def bare(self, names: Sequence[str]) -> float:
        """Seconds of the bare SQL."""
        connection = connect(  # type: ignore[no-untyped-call]
            host="127.0.0.1", port=self._lake.trino_port, user="bench", catalog=CATALOG, session_properties=SESSION
        )
        began = time.perf_counter()
        for name in names:
            cursor = connection.cursor()
            cursor.execute(f"ALTER TABLE lake.bench.\"{name}\" EXECUTE optimize(file_size_threshold => '96MB')")
            cursor.fetchall()
        seconds = time.perf_counter() - began
        self.reset(names)
        return seconds

    def ours(self, fleet: Path, names: Sequence[str], *, verify: bool) -> tuple[float, Statements]:
        """Seconds of a batch through the service, and its statements."""
        service = service_of(fleet)
        told = Statements()

        def one(name: str, **more: object) -> dict[str, Any]:
            asked = {"backend_type": "lake", "operation_type": "compaction", "target_table": f"lake.bench.{name}"}
            return {**asked, "parameters": {"verify": verify}, **more}

        async def batch() -> float:
            await service.execute_batch_maintenance([one(names[0], dry_run=True)])  # connect, probe
            began = time.perf_counter()
            with told.watched():
                results = await service.execute_batch_maintenance([one(name) for name in names])
            seconds = time.perf_counter() - began
            await service.close()
            for result in results:
                if result.status != MaintenanceStatus.COMPLETED:
                    raise RuntimeError(f"{result.config.target_table} ended {result.status}: {result.problem}")
            return seconds

        seconds = asyncio.run(batch())
        self.reset(names)
        return seconds, told


class Statements:
    """The statements that the client sends: of which kind, from when to when."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, float, float]] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within, what is sent is noted."""
        original = TrinoClient._once

        def once(client: TrinoClient, sql: str, *given: Any, **more: Any) -> Answer:
            began = time.perf_counter()
            try:
                return original(client, sql, *given, **more)
            finally:
                self.sent.append((kind_of(sql), began, time.perf_counter()))

        TrinoClient._once = once  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            TrinoClient._once = original  # type: ignore[method-assign]

    @property
    def seconds(self) -> float:
        """Seconds in which at least one ran."""
        total, until = 0.0, 0.0
        for began, ended in sorted((began, ended) for _, began, ended in self.sent):
            total += max(0.0, ended - max(began, until))
            until = max(until, ended)
        return total

    def tell(self, tables: int) -> None:
        """How many there were of each kind, and how long they took."""
        for kind in sorted({kind for kind, _, _ in self.sent}):
            each = [ended - began for one, began, ended in self.sent if one == kind]
            mean = sum(each) / len(each) * 1000
            print(f"  {kind}: {len(each) / tables:g} a table, {mean:.0f} ms each", file=sys.stderr)


def kind_of(sql: str) -> str:
    """What a statement is for, by its text."""
    for word in ("EXPLAIN", "SHOW CREATE", "SHOW COLUMNS", "$snapshots", "$refs", "$files", "$properties", "VERSION"):
        if word in sql:
            return word
    return "optimize" if "optimize" in sql else "other"


def measure(found: Lake, count: int, rounds: int, files: int, rows: int) -> list[dict[str, Any]]:
    """Bare, ours unproven and proven, alternating."""
    bench = Bench(found, count, files, rows)
    fleet = fleet_of(found, "trino")
    one_at_a_time(fleet)
    bare: list[float] = []
    shares: dict[str, list[float]] = {"outside": [], "outside_proven": [], "unproven": [], "proven": []}
    seconds_outside: list[float] = []
    statements: list[float] = []
    for number in range(rounds + 1):
        print(f"  round {number} of {rounds}", file=sys.stderr, flush=True)
        names = bench.names if number else bench.names[:WARM]
        before = bench.bare(names)
        plain, told = bench.ours(fleet, names, verify=False)
        proven, told_proven = bench.ours(fleet, names, verify=True)
        single = (before + bench.bare(names)) / 2
        if number:
            bare.append(single)
            seconds_outside.append(plain - told.seconds)
            shares["outside"].append((plain - told.seconds) / single)
            shares["outside_proven"].append((proven - told_proven.seconds) / single)
            shares["unproven"].append(plain / single - 1)
            shares["proven"].append(proven / single - 1)
            statements.append(len(told.sent) / count)
            told_proven.tell(count)
    return [
        figure("tables", [count], "tables"),
        figure("bare_ms_a_table", [one / count * 1000 for one in bare], "ms"),
        figure("outside_ms_a_table", [one / count * 1000 for one in seconds_outside], "ms"),
        figure("statements_a_table", statements, "statements"),
        figure("outside_statements_share_of_bare", shares["outside"], "ratio", 0.05),
        figure("outside_statements_share_of_bare_proven", shares["outside_proven"], "ratio", 0.05),
        figure("unproven_more_than_bare", shares["unproven"], "ratio"),
        figure("proven_more_than_bare", shares["proven"], "ratio"),
    ]


def one_at_a_time(fleet: Path) -> None:
    """As the bare SQL."""
    text = fleet.read_text()
    fleet.write_text(text.replace("    engine: trino\n", "    engine: trino\n    max_parallel: 1\n"))


def main() -> None:
    """Make the tables and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=TABLES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--rows", type=int, default=ROWS_A_FILE, help="in each file")
    given = parser.parse_args()
    with trino_lake(heap_mb=2048) as found:
        show(measure(found, given.tables, given.rounds, given.files, given.rows))


if __name__ == "__main__":
    main()
