"""Measuring tables of a Trino backend, through Trino alone and with its catalog, against a statement per table.

    python -m benchmarks.trino_measure [--tables 1000] [--sample 100]

Every table is made by itself through PyIceberg, in the catalog that Trino shares. One statement per table is timed on
a sample of them, before and after, and its median stands for all; Trino has measured tables before the first that
counts. All is of one run, so the ratios are what counts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import pyarrow as pa
from pydantic import BaseModel
from pyiceberg.catalog.sql import SqlCatalog

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.local.engines.lake import Lake
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.backends.iceberg.trino.sql import relation
from aurum_orchestration.maintenance.operations.compaction import CompactionPolicy
from aurum_orchestration.maintenance.operations.retention import RetentionPolicy
from benchmarks.figures import figure, show
from benchmarks.trino_lake import catalog_of, trino_lake

NAMESPACE, COMMITS, WARM, PASSES = "measure_bench", 4, 96, 3


def prepare(catalog: SqlCatalog, count: int) -> list[TableId]:
    """So many tables of a few small files each. Those that are there are taken as they are."""
    catalog.create_namespace_if_not_exists(NAMESPACE)
    rows = pa.table({"a": list(range(10)), "b": ["x"] * 10})
    there = {name[-1] for name in catalog.list_tables(NAMESPACE)}
    names = [f"t{number:05d}" for number in range(count)]
    for name in names:
        if name not in there:
            made = catalog.create_table(f"{NAMESPACE}.{name}", rows.schema)
            for _ in range(COMMITS):
                made.append(rows)
    return [TableId("lake", (NAMESPACE, name)) for name in names]


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def figures_of(found: Lake, count: int, sample: int) -> list[dict[str, Any]]:
    with closing(catalog_of(found)) as catalog:
        tables = prepare(catalog, count)
    properties = {"name": "lake", "type": "sql", "uri": found.uri, "warehouse": found.warehouse}
    keys = {"engine": "trino", "host": "127.0.0.1", "port": found.trino_port, "trino_catalog": "lake"}
    policies: dict[str, BaseModel] = {"compaction": CompactionPolicy(), "retention": RetentionPolicy()}

    def policy(_table: TableId, operation: str) -> BaseModel:
        return policies[operation]

    def measuring(count: int = len(tables), **more: object) -> Callable[[], object]:
        backend = IcebergMaintenanceBackend({**keys, **more}, name="lake")
        return lambda: backend.measure(tables[:count], policy)

    client = IcebergMaintenanceBackend(keys, name="lake").trino.client

    def one_by_one() -> list[float]:
        # what a script would ask of each table: its files now, from $files
        chosen = tables[:: max(1, len(tables) // sample)][:sample]
        names = [relation(client.catalog, table, "$files") for table in chosen]
        statements = [f"SELECT count(*), sum(file_size_in_bytes), sum(record_count) FROM {name}" for name in names]
        return [timed(partial(client.query, statement)) for statement in statements]

    for warm in (measuring(WARM),) * PASSES:
        warm()
    one_by_one()
    before = one_by_one()
    alone = measuring()
    first = timed(alone)
    again = [timed(alone) for _ in range(PASSES)]
    with_catalog = timed(measuring(catalog=properties))
    single = statistics.median([*before, *one_by_one()])
    client.close()
    whole = single * len(tables)
    return [
        figure("one_statement_per_table_ms", [single * 1000], "ms"),
        figure("one_statement_per_table_seconds", [whole], "s"),
        figure("measured_tables", [len(tables)], "tables"),
        figure("measure_with_catalog_share", [with_catalog / whole], "ratio", 0.1),
        figure("measure_by_trino_again_seconds", again, "s"),
        figure("measure_by_trino_again_share", [one / whole for one in again], "ratio", 0.1),
        figure("measure_by_trino_first_seconds", [first], "s"),
        figure("measure_by_trino_first_share", [first / whole], "ratio"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=1_000)
    parser.add_argument("--sample", type=int, default=100)
    given = parser.parse_args()
    with trino_lake(heap_mb=2048) as found:
        show(figures_of(found, given.tables, given.sample))


if __name__ == "__main__":
    main()
