"""Rewriting 500 manifests of 10 files each, 12 columns with statistics, into the fewest.

Everything goes through the service: plan, lease, reading back, commit and record are in the time. The floor
is reading the bytes of the same manifests and compressing their decompressed content once, without decoding
an entry. The machine's noise is in both.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
import zlib
from pathlib import Path

import numpy as np
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestEntryStatus, ManifestFile
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record

from aurum_orchestration.maintenance.backends.iceberg.avro import read_blocks
from aurum_orchestration.maintenance.backends.iceberg.entries import entry, write_manifest
from aurum_orchestration.maintenance.backends.iceberg.publish import SnapshotBuilder, publish
from aurum_orchestration.maintenance.interfaces import MaintenanceResult, MaintenanceStatus
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.settings import AurumSettings
from benchmarks.figures import figure, show
from benchmarks.tables import CURVES, catalog_at

MANIFESTS = 500
FILES_PER_MANIFEST = 10
DAYS = 50
ROUNDS = 5

FLEET = """\
version: 1
backends:
  lake:
    type: iceberg
    engine: pyiceberg
    catalog: {type: sql, uri: "sqlite:///${AURUM_HOME}/catalog.db", warehouse: "file://${AURUM_HOME}/warehouse"}
"""


class _Claims(SnapshotBuilder):
    """A snapshot of many manifests whose files are only claimed: rewriting manifests looks at no data file."""

    def manifests(self) -> list[ManifestFile]:
        rng = np.random.default_rng(20260101)
        spec = self.table.spec()
        made = []
        for _ in range(MANIFESTS):
            entries = [
                entry(ManifestEntryStatus.ADDED, self.snapshot_id, _claimed(self.table, int(day), rng))
                for day in rng.integers(20_000, 20_000 + DAYS, FILES_PER_MANIFEST)
            ]
            made.append(
                write_manifest(self.table, self.location(f"{uuid.uuid4()}-m0.avro"), spec, entries, self.snapshot_id)
            )
        return made

    def summary(self) -> dict[str, str]:
        return {}


def _claimed(table: Table, day: int, rng: np.random.Generator) -> DataFile:
    columns = range(1, 13)
    low, high = (rng.bytes(8) for _ in range(2))
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=f"{table.location()}/data/day={day}/{uuid.UUID(bytes=rng.bytes(16))}.parquet",
        file_format=FileFormat.PARQUET,
        partition=Record(day),
        record_count=5000,
        file_size_in_bytes=int(rng.integers(100_000, 200_000)),
        column_sizes={column: int(rng.integers(1_000, 100_000)) for column in columns},
        value_counts=dict.fromkeys(columns, 5000),
        null_value_counts=dict.fromkeys(columns, 0),
        nan_value_counts={},
        lower_bounds=dict.fromkeys(columns, low),
        upper_bounds=dict.fromkeys(columns, high),
        key_metadata=None,
        split_offsets=[4],
        equality_ids=None,
        sort_order_id=None,
    )
    file.spec_id = table.spec().spec_id
    return file


def build(home: Path) -> Table:
    """The table ``bench.curves`` with 500 manifests of 10 files, in random order of their partitions."""
    catalog = catalog_at(home)
    catalog.create_namespace_if_not_exists("bench")
    spec = PartitionSpec(PartitionField(3, 1000, IdentityTransform(), "day"))
    table = catalog.create_table("bench.curves", CURVES, partition_spec=spec)
    _first_snapshot(table)
    snapshot_id = table.metadata.new_snapshot_id()

    def many(current: Table, head: Snapshot) -> SnapshotBuilder:
        return _Claims(current, head, snapshot_id)

    return publish(table.refresh(), snapshot_id, many).table


def _first_snapshot(table: Table) -> None:
    rng = np.random.default_rng(1)
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        append.append_data_file(_claimed(table, 20_000, rng))
    table.refresh()


def rewrite(home: Path) -> MaintenanceResult:
    """One rewrite through the service."""

    async def work() -> MaintenanceResult:
        async with MaintenanceService(AurumSettings(home=home, fleet=home / "fleet.yaml")) as service:
            return await service.execute_maintenance(None, "manifests", "lake.bench.curves")

    return asyncio.run(work())


def floor_seconds(table: Table) -> float:
    """Read, decompress and compress the same bytes."""
    snapshot = table.current_snapshot()
    paths = [one.manifest_path.removeprefix("file://") for one in snapshot.manifests(table.io)] if snapshot else []
    began = time.perf_counter()
    content = b"".join(block.content for path in paths for block in read_blocks(Path(path).read_bytes(), ())[1])
    zlib.compress(content)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print the figures."""
    seconds, processor, floors, left, smaller = [], [], [], [], []
    with tempfile.TemporaryDirectory(prefix="aurum-bench-") as folder:
        home = Path(folder)
        (home / "fleet.yaml").write_text(FLEET)
        table = build(home)
        with_500 = table.metadata.current_snapshot_id
        assert with_500 is not None
        for number in range(ROUNDS + 1):
            floor = floor_seconds(table)
            began, busy = time.perf_counter(), time.process_time()
            done = rewrite(home)
            took, busy = time.perf_counter() - began, time.process_time() - busy
            assert done.status is MaintenanceStatus.COMPLETED, done
            assert done.verification is not None
            assert done.verification.ok
            if number:  # the first one warms up
                seconds.append(took)
                processor.append(busy)
                floors.append(took / floor)
                left.append(done.metrics["manifests_added"])
                smaller.append(done.metrics["manifest_bytes_rewritten"] / done.metrics["manifest_bytes_added"])
            table = SqlCatalog("lake", **catalog_at(home).properties).load_table("bench.curves")
            table.manage_snapshots().set_current_snapshot(snapshot_id=with_500).commit()
    show(
        [
            figure("500 manifests of 10 files, whole operation", seconds, "s", goal=1.0),
            figure("the same, processor time", processor, "s"),
            figure("the same over reading and compressing the same bytes", floors, "ratio"),
            figure("manifests left", left, "manifests", goal=1),
            figure("bytes of manifests before over after", smaller, "ratio", better="higher"),
        ]
    )


if __name__ == "__main__":
    main()
