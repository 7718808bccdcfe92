"""What orchestration adds to Trino's statements: 50 small tables compacted in a batch, against the bare SQL.

The bare SQL is one ``ALTER TABLE ... EXECUTE optimize`` per table, sent by the ``trino`` package one after the other,
with the same session properties. The same statement of ours is the work; around it we send statements of our own
(looking before, ``EXPLAIN``, proof afterwards) and spend time outside of any statement. Three figures, in shares of
the bare SQL's seconds:

* ``outside``: seconds of the batch in which no statement of ours runs: plan, lease, history, the catalog;
* ``unproven``: all that the batch takes more than the bare SQL, with ``verify: false``;
* ``proven``: the same with the rows counted and hashed by Trino before and after, which the bare SQL does not do.

One table at a time on both sides, at the same Trino, alternating; the first round warms and does not count.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField, StringType
from trino.dbapi import connect

from aurum_orchestration.local.engines.lake import CATALOG, Lake
from aurum_orchestration.maintenance.backends.iceberg.trino.client import Answer, TrinoClient
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from benchmarks.figures import figure, show
from benchmarks.tables import append_files
from benchmarks.trino_lake import catalog_of, fleet_of, service_of, trino_lake

TABLES, FILES, ROWS_A_FILE, ROUNDS = 50, 20, 2_000, 3
SCHEMA = Schema(NestedField(1, "id", LongType(), required=False), NestedField(2, "name", StringType(), required=False))


class Bench:
    """Tables of small files, before every batch as they were."""

    def __init__(self, found: Lake, count: int) -> None:
        self._lake = found
        self.catalog: SqlCatalog = catalog_of(found)
        self.names = [f"t{number:03d}" for number in range(count)]
        self._bases: dict[str, tuple[int, set[str]]] = {}
        self.catalog.create_namespace("bench")
        for name in self.names:
            self._make(name)

    def _make(self, name: str) -> None:
        table = self.catalog.create_table(f"bench.{name}", SCHEMA)
        folder = Path(table.location().removeprefix("file://")) / "data"
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for number in range(FILES):
            ids = range(number * ROWS_A_FILE, (number + 1) * ROWS_A_FILE)
            rows = pa.table({"id": list(ids), "name": [f"name {one % 100}" for one in ids]})
            path = folder / f"{number}.parquet"
            pq.write_table(rows.cast(schema_to_pyarrow(SCHEMA)), path, compression="zstd")
            paths.append(f"file://{path}")
        append_files(table, paths)
        base = table.refresh().metadata.current_snapshot_id
        assert base is not None
        self._bases[name] = (base, set(paths))

    def reset(self) -> None:
        """Back to the small files. Raises RuntimeError for a table that was not compacted."""
        for name, (base, paths) in self._bases.items():
            table = self.catalog.load_table(f"bench.{name}")
            now = {task.file.file_path for task in table.scan().plan_files()}
            if len(now) != 1:
                raise RuntimeError(f"{name} has {len(now)} files")
            table.manage_snapshots().set_current_snapshot(snapshot_id=base).commit()
            for path in now - paths:
                Path(path.removeprefix("file://")).unlink()

    def bare(self) -> float:
        """Seconds of the bare SQL."""
        connection = connect(host="127.0.0.1", port=self._lake.trino_port, user="bench", catalog=CATALOG)
        began = time.perf_counter()
        for name in self.names:
            cursor = connection.cursor()
            cursor.execute(f"ALTER TABLE lake.bench.\"{name}\" EXECUTE optimize(file_size_threshold => '96MB')")
            cursor.fetchall()
        return time.perf_counter() - began

    def ours(self, fleet: Path, *, verify: bool) -> tuple[float, Counter[str]]:
        """Seconds of a batch through the service, and the seconds and number of its statements by kind."""
        shutil.rmtree(fleet.parent / "history.db", ignore_errors=True)
        service = service_of(fleet)
        told: Counter[str] = Counter()

        async def batch() -> float:
            one = {"backend_type": "lake", "operation_type": "compaction", "parameters": {"verify": verify}}
            await service.execute_maintenance(target_table="lake.bench.t000", dry_run=True, **one)  # connect, probe
            began = time.perf_counter()
            with watched(told):
                for name in self.names:
                    result = await service.execute_maintenance(target_table=f"lake.bench.{name}", **one)
                    if result.status != MaintenanceStatus.COMPLETED:
                        raise RuntimeError(f"{name} ended {result.status}: {result.problem}")
            seconds = time.perf_counter() - began
            await service.close()
            return seconds

        return asyncio.run(batch()), told


@contextmanager
def watched(told: Counter[str]) -> Iterator[None]:
    """Count the statements that the client sends, and their seconds."""
    original = TrinoClient._once

    def once(self: TrinoClient, sql: str, *given: Any, **more: Any) -> Answer:
        began = time.perf_counter()
        try:
            return original(self, sql, *given, **more)
        finally:
            kind = kind_of(sql)
            told[f"{kind} s"] += time.perf_counter() - began  # type: ignore[assignment]
            told[f"{kind} n"] += 1

    TrinoClient._once = once  # type: ignore[method-assign]
    try:
        yield
    finally:
        TrinoClient._once = original  # type: ignore[method-assign]


def kind_of(sql: str) -> str:
    """What a statement is for, by its text."""
    for word in ("EXPLAIN", "SHOW CREATE", "SHOW COLUMNS", "$snapshots", "$refs", "$files", "$properties", "VERSION"):
        if word in sql:
            return word
    return "optimize" if "optimize" in sql else "other"


def measure(found: Lake, count: int, rounds: int) -> list[dict[str, Any]]:
    """Bare, ours unproven and proven, alternating."""
    bench = Bench(found, count)
    fleet = fleet_of(found, "trino")
    bare: list[float] = []
    shares: dict[str, list[float]] = {"outside": [], "unproven": [], "proven": []}
    statements: list[float] = []
    told: Counter[str] = Counter()
    for number in range(rounds + 1):
        print(f"  round {number} of {rounds}", file=sys.stderr, flush=True)
        seconds = bench.bare()
        bench.reset()
        plain, told = bench.ours(fleet, verify=False)
        bench.reset()
        proven, _ = bench.ours(fleet, verify=True)
        bench.reset()
        after = bench.bare()
        bench.reset()
        single = (seconds + after) / 2
        if number:
            bare.append(single)
            inside = sum(value for key, value in told.items() if key.endswith(" s"))
            shares["outside"].append((plain - inside) / single)
            shares["unproven"].append(plain / single - 1)
            shares["proven"].append(proven / single - 1)
            statements.append(sum(value for key, value in told.items() if key.endswith(" n")) / count)
    kinds = sorted({key[:-2] for key in told})
    for kind in kinds:
        each = cast("float", told[f"{kind} s"]) / max(1, told[f"{kind} n"]) * 1000
        print(f"  {kind}: {told[f'{kind} n'] / count:g} a table, {each:.0f} ms each", file=sys.stderr)
    return [
        figure("bare_ms_a_table", [one / count * 1000 for one in bare], "ms"),
        figure("statements_a_table", statements, "statements"),
        figure("outside_statements_share_of_bare", shares["outside"], "ratio", 0.05),
        figure("unproven_more_than_bare", shares["unproven"], "ratio"),
        figure("proven_more_than_bare", shares["proven"], "ratio"),
    ]


def main() -> None:
    """Make the tables and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=TABLES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    with trino_lake(heap_mb=2048) as found:
        show(measure(found, given.tables, given.rounds))


if __name__ == "__main__":
    main()
