"""Measuring tables of a Trino backend, with its catalog and through Trino alone, against a statement per table.

    python -m benchmarks.trino_measure [--tables 200] [--sample 20]

The tables are registered under new names over a few that are made, which costs Trino as much to read. One statement
per table is timed on a sample, before and after; both ways are of the same run, so their ratio is what counts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
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

NAMESPACE, SOURCES, COMMITS = "measure_bench", 5, 4


def prepare(catalog: SqlCatalog, count: int) -> list[TableId]:
    catalog.create_namespace_if_not_exists(NAMESPACE)
    rows = pa.table({"a": list(range(10)), "b": ["x"] * 10})
    locations = []
    for number in range(SOURCES):
        name = f"{NAMESPACE}.source{number}"
        if not catalog.table_exists(name):
            made = catalog.create_table(name, rows.schema)
            for _ in range(COMMITS):
                made.append(rows)
        locations.append(catalog.load_table(name).metadata_location)
    there = {name[-1] for name in catalog.list_tables(NAMESPACE)}
    names = [f"t{number:05d}" for number in range(count)]
    for number, name in enumerate(names):
        if name not in there:
            catalog.register_table(f"{NAMESPACE}.{name}", locations[number % SOURCES])
    return [TableId("lake", (NAMESPACE, name)) for name in names]


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def figures_of(found: Lake, count: int, sample: int) -> list[dict[str, Any]]:
    with catalog_of(found) as catalog:
        tables = prepare(catalog, count)
    properties = {"name": "lake", "type": "sql", "uri": found.uri, "warehouse": found.warehouse}
    backend = IcebergMaintenanceBackend(
        {"engine": "trino", "host": "127.0.0.1", "port": found.trino_port, "trino_catalog": "lake"}, name="lake"
    )
    client = backend.trino.client
    policies: dict[str, BaseModel] = {"compaction": CompactionPolicy(), "retention": RetentionPolicy()}

    def policy(_table: TableId, operation: str) -> BaseModel:
        return policies[operation]

    def measure() -> object:
        return backend.measure(tables, policy)

    def one_by_one() -> list[float]:
        # what a script would ask of each table: its files now, from $files
        names = [relation(client.catalog, table, "$files") for table in tables[:sample]]
        statements = [f"SELECT count(*), sum(file_size_in_bytes), sum(record_count) FROM {name}" for name in names]
        return [timed(partial(client.query, statement)) for statement in statements]

    one_by_one()  # warm
    before = one_by_one()
    first = timed(measure)
    again = timed(measure)
    after = one_by_one()
    both = IcebergMaintenanceBackend({**backend.config, "catalog": properties}, name="lake")
    with_catalog = timed(lambda: both.measure(tables, policy))
    single = statistics.median([*before, *after])
    backend.trino.close()
    return [
        figure("one_statement_per_table_ms", [single * 1000], "ms"),
        figure("measured_tables", [len(tables)], "tables"),
        figure("measure_with_catalog_share", [with_catalog / len(tables) / single], "ratio", 0.1),
        figure("measure_by_trino_again_share", [again / len(tables) / single], "ratio", 0.1),
        figure("measure_by_trino_first_share", [first / len(tables) / single], "ratio"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=200)
    parser.add_argument("--sample", type=int, default=20)
    given = parser.parse_args()
    with trino_lake(heap_mb=2048) as found:
        show(figures_of(found, given.tables, given.sample))


if __name__ == "__main__":
    main()
