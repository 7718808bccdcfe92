"""How long it takes to measure 10,000 Iceberg tables of one SQLite catalog, and to plan their maintenance.

The fleet is made without data files: a few tables get real metadata and real manifests through PyIceberg,
all others are clones of these with a uuid, a location and manifests of their own. 98 % are healthy, 2 %
have 60 to 400 small files. A fresh process measures and plans as `aurum status` does; prints a JSON array of figures.
"""

from __future__ import annotations

import argparse
import io
import sqlite3
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import fastavro
import orjson
from pydantic import BaseModel
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record

from benchmarks.figures import figure, show
from benchmarks.tables import CURVES, catalog_at

TABLES = 10_000
SICK_SHARE = 0.02
MIB = 1024 * 1024
PASSES = 7
FULL_PASSES = 3
TRIGGER = 20
LOADED = 200


@dataclass(frozen=True)
class Template:
    """A table to clone: so many commits with so many files of so many bytes, over so many days."""

    name: str
    weight: float
    commits: int
    files_a_commit: int
    file_bytes: int
    days: int


HEALTHY = [
    Template("dimension", 0.3, 3, 1, 2 * MIB, 1),
    Template("daily", 0.4, 10, 2, 125 * MIB, 4),
    Template("history", 0.2, 30, 4, 130 * MIB, 8),
    Template("large", 0.1, 10, 40, 128 * MIB, 8),
]
SICK = [
    Template("trickle", 0.5, 12, 5, 120_000, 4),
    Template("stream", 0.4, 10, 10, 600_000, 4),
    Template("flood", 0.1, 16, 25, 120_000, 4),
]


def build(home: Path, tables: int = TABLES) -> None:
    """The whole fleet in ``home``: namespaces ns000 ..., ``tables`` tables, every fiftieth of them sick.

    On average a healthy table has 12 commits, a sick one 110 small files in 12 manifests.
    """
    catalog = catalog_at(home)
    catalog.create_namespace("template")
    chooser = _Chooser()
    sick_every = round(1 / SICK_SHARE)
    kits = {one.name: _Kit(_template(catalog, one)) for one in HEALTHY + SICK}
    rows = []
    for number in range(tables):
        template = chooser.next(SICK if number % sick_every == 0 else HEALTHY)
        namespace, name = f"ns{number // 100:03d}", f"{template.name}_{number:05d}"
        location = kits[template.name].clone(home / "fleet" / namespace / name)
        rows.append(("lake", namespace, name, location, None, "TABLE"))
    with sqlite3.connect(home / "catalog.db") as connection:
        connection.execute("DELETE FROM iceberg_tables")
        connection.executemany("INSERT INTO iceberg_tables VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.close()
    catalog.close()


class _Chooser:
    """Takes templates in turn so that each has its share, without chance."""

    def __init__(self) -> None:
        self.owed: dict[str, float] = {}

    def next(self, templates: list[Template]) -> Template:
        for one in templates:
            self.owed[one.name] = self.owed.get(one.name, 0.0) + one.weight
        chosen = max(templates, key=lambda one: self.owed[one.name])
        self.owed[chosen.name] -= 1.0
        return chosen


def _template(catalog: SqlCatalog, template: Template) -> Table:
    spec = PartitionSpec(PartitionField(3, 1000, IdentityTransform(), "day"))
    table = catalog.create_table(("template", template.name), CURVES, partition_spec=spec)
    for commit in range(template.commits):
        with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
            for number in range(template.files_a_commit):
                append.append_data_file(_data_file(table, template, commit * template.files_a_commit + number))
    return table


def _data_file(table: Table, template: Template, number: int) -> DataFile:
    columns = range(1, 13)
    fields: dict[str, Any] = {
        "content": DataFileContent.DATA,
        "file_path": f"{table.location()}/data/{uuid.uuid4()}.parquet",
        "file_format": FileFormat.PARQUET,
        "partition": Record(20_000 + number % template.days),
        "record_count": 5_000,
        "file_size_in_bytes": template.file_bytes + number % 1000,
        "column_sizes": dict.fromkeys(columns, 9_000),
        "value_counts": dict.fromkeys(columns, 5_000),
        "null_value_counts": dict.fromkeys(columns, 0),
        "nan_value_counts": {7: 0, 8: 0, 9: 0},
        "lower_bounds": {column: struct.pack("<d", number) for column in columns},
        "upper_bounds": {column: struct.pack("<d", number + 1) for column in columns},
        "key_metadata": None,
        "split_offsets": [4],
        "equality_ids": None,
        "sort_order_id": None,
    }
    file = DataFile.from_args(**fields)
    file.spec_id = 0
    return file


class _Kit:
    """What is needed to clone a table: its metadata, its manifest list as records, its manifests as bytes."""

    def __init__(self, table: Table) -> None:
        snapshot = table.current_snapshot()
        assert snapshot is not None
        self.metadata = orjson.loads(_path(table.metadata_location).read_bytes())
        with _path(snapshot.manifest_list).open("rb") as stream:
            reader = fastavro.reader(stream)
            self.header = dict(reader.metadata)
            self.schema = fastavro.parse_schema(reader.writer_schema)
            self.records = [record for record in reader if isinstance(record, dict)]
        self.manifests = [_path(str(record["manifest_path"])).read_bytes() for record in self.records]

    def clone(self, folder: Path) -> str:
        """A table of its own in ``folder``: one metadata file, one manifest list, its manifests."""
        meta = folder / "metadata"
        meta.mkdir(parents=True)
        identity = uuid.uuid4()
        for number, content in enumerate(self.manifests):
            path = meta / f"{identity}-m{number}.avro"
            path.write_bytes(content)
            self.records[number]["manifest_path"] = f"file://{path}"
        listed = io.BytesIO()
        kept = {key: value for key, value in self.header.items() if not key.startswith("avro.")}
        fastavro.writer(listed, self.schema, self.records, codec="deflate", metadata=kept)
        list_path = meta / f"snap-{identity}.avro"
        list_path.write_bytes(listed.getvalue())
        metadata = {**self.metadata, "table-uuid": str(identity), "location": f"file://{folder}"}
        metadata["snapshots"] = [dict(snapshot) for snapshot in metadata["snapshots"]]
        metadata["snapshots"][-1]["manifest-list"] = f"file://{list_path}"
        path = meta / f"{len(metadata['snapshots']):05d}-{identity}.metadata.json"
        path.write_bytes(orjson.dumps(metadata))
        return f"file://{path}"


def _path(location: str) -> Path:
    return Path(location.removeprefix("file://"))


def measure(home: Path) -> list[dict[str, Any]]:
    """The figures of one process: a first pass over everything, passes with nothing changed, planning."""
    from aurum_orchestration import garbage
    from aurum_orchestration.fleet.policy import builtin_policy_models
    from aurum_orchestration.maintenance.backends.iceberg.backend import HANDLERS
    from aurum_orchestration.maintenance.backends.iceberg.catalog import list_tables, open_catalog
    from aurum_orchestration.maintenance.backends.iceberg.measure import IcebergMeasurer
    from aurum_orchestration.maintenance.planner.decide import decide
    from aurum_orchestration.maintenance.planner.rank import Budget, rank
    from aurum_orchestration.maintenance.planner.triggers import TRIGGERS

    garbage.seldom_looked_for()  # as the command does
    planned = [operation for operation in TRIGGERS if operation in HANDLERS]  # as the service asks of such a backend
    policies = {operation: model() for operation, model in builtin_policy_models().items()}

    def policy_of(_table: object, operation: str) -> BaseModel:
        return policies[operation]

    catalog = open_catalog("lake", {"type": "sql", "uri": f"sqlite:///{home}/catalog.db"})
    tables = [found.table for found in list_tables(catalog, "lake")]
    full, full_cpu = [], []
    for _ in range(FULL_PASSES):
        measurer, used = IcebergMeasurer(catalog, "lake"), time.process_time()
        seconds, healths = timed(partial(measurer.measure, tables, policy_of))
        full.append(seconds)
        full_cpu.append(time.process_time() - used)
    unchanged = [timed(lambda: measurer.measure(tables, policy_of))[0] for _ in range(PASSES)]

    def plan() -> object:
        now = datetime.now(UTC)
        decisions = [one for health in healths for one in decide(health, policy_of, {}, now, planned)]
        return rank(decisions, Budget(tables=50))

    planning = [timed(plan)[0] for _ in range(PASSES)]
    sample = tables[:: max(1, len(tables) // LOADED)]
    loading = [
        timed(lambda: [catalog.load_table(table.parts).current_snapshot() for table in sample])[0] / len(sample)
        for _ in range(FULL_PASSES)
    ]
    suspects = [health for health in healths if health.metrics["excess_files"] >= TRIGGER]
    expected = -(-len(tables) // round(1 / SICK_SHARE))
    assert len(suspects) == expected, f"{len(suspects)} tables found sick, not {expected}"
    assert all(health.metrics["exact"] for health in suspects), "a sick table was not measured exactly"
    assert not any(health.problem for health in healths)
    return [
        figure("measure_full", full, "s", 1.0),
        figure("measure_full_cpu", full_cpu, "s"),
        figure("measure_unchanged", unchanged, "s", 0.1),
        figure("plan", planning, "s", 0.5),
        figure(
            "load_table_over_measure",
            [load * len(tables) / one for load, one in zip(loading, full, strict=True)],
            "ratio",
            better="higher",
        ),
        figure("full_over_unchanged", [one / statistics.median(unchanged) for one in full], "ratio", better="higher"),
    ]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that ``work`` takes, and its answer."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def main() -> None:
    """Build a fleet in a temporary folder (or use a given one) and print what a fresh process measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, help="a folder with a fleet; built there when it is missing")
    parser.add_argument("--tables", type=int, default=TABLES)
    parser.add_argument("--measure", action="store_true", help="measure in this process")
    arguments = parser.parse_args()
    if arguments.measure:
        show(measure(arguments.home))
        return
    with tempfile.TemporaryDirectory() as scratch:
        home = arguments.home or Path(scratch) / "fleet"
        if not home.exists():
            build(home, arguments.tables)
        command = [sys.executable, "-m", "benchmarks.measure_tables", "--measure", "--home", str(home)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
