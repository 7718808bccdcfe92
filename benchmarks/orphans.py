"""Finding orphans among 200,000 files on a local disk: what a vacuum's dry run costs, listing and all.

The files lie in 200 partition folders; 1 % of them are referred to by nothing. Those that are referred to stand in
100 manifests, which are read anew in each round. Files are empty: only names, sizes and times are looked at. The floor
is a bare walk over the same folders, in the same round. Goal: 1,000,000 files a minute, all in.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestEntryStatus, ManifestFile
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record

from aurum_orchestration.maintenance.backends.iceberg.entries import entry, write_manifest
from aurum_orchestration.maintenance.backends.iceberg.publish import SnapshotBuilder, publish
from aurum_orchestration.maintenance.interfaces import MaintenanceResult, MaintenanceStatus
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.settings import AurumSettings
from benchmarks.figures import figure, show
from benchmarks.manifests import FLEET
from benchmarks.tables import CURVES, catalog_at

FILES = 200_000
DAYS = 200
MANIFESTS = 100
ORPHANS = 0.01
ROUNDS = 5
MONTH = 30 * 86_400


class _Claims(SnapshotBuilder):
    """A snapshot of many manifests whose files are empty: vacuum looks into no data file."""

    files: list[DataFile]

    def manifests(self) -> list[ManifestFile]:
        made = []
        for start in range(0, len(self.files), -(-len(self.files) // MANIFESTS)):
            part = self.files[start : start + -(-len(self.files) // MANIFESTS)]
            entries = [entry(ManifestEntryStatus.ADDED, self.snapshot_id, file) for file in part]
            location = self.location(f"{uuid.uuid4()}-m0.avro")
            made.append(write_manifest(self.table, location, self.table.spec(), entries, self.snapshot_id))
        return made

    def summary(self) -> dict[str, str]:
        return {}


def build(home: Path, files: int) -> tuple[Table, int]:
    """The table ``bench.curves`` with that many files below its location, and how many of them are orphans."""
    catalog = catalog_at(home)
    catalog.create_namespace_if_not_exists("bench")
    spec = PartitionSpec(PartitionField(3, 1000, IdentityTransform(), "day"))
    table = catalog.create_table("bench.curves", CURVES, partition_spec=spec)
    rng = np.random.default_rng(20260101)
    old = time.time() - MONTH
    live: list[DataFile] = []
    orphans = 0
    for day in range(DAYS):
        folder = Path(table.location().removeprefix("file://")) / "data" / f"day={day}"
        folder.mkdir(parents=True)
        for number in range(files // DAYS):
            path = f"{folder}/{number:05d}-0-{uuid.UUID(bytes=rng.bytes(16))}.parquet"
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
            os.utime(path, (old, old))
            if rng.random() < ORPHANS:
                orphans += 1
            else:
                live.append(_claimed(table, f"file://{path}", day))
    _first_snapshot(table, live.pop())
    snapshot_id = table.metadata.new_snapshot_id()

    def many(current: Table, head: Snapshot) -> SnapshotBuilder:
        builder = _Claims(current, head, snapshot_id)
        builder.files = live
        return builder

    return publish(table.refresh(), snapshot_id, many).table, orphans


def _first_snapshot(table: Table, file: DataFile) -> None:
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        append.append_data_file(file)
    table.refresh()
    # the next snapshot lists its own manifests only: a tag keeps this one's file from being an orphan
    table.manage_snapshots().create_tag(table.metadata.current_snapshot_id or 0, "first").commit()


def _claimed(table: Table, path: str, day: int) -> DataFile:
    columns = range(1, 13)
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=Record(day),
        record_count=5000,
        file_size_in_bytes=150_000,
        column_sizes=dict.fromkeys(columns, 10_000),
        value_counts=dict.fromkeys(columns, 5000),
        null_value_counts=dict.fromkeys(columns, 0),
        nan_value_counts={},
        lower_bounds=dict.fromkeys(columns, b"\0" * 8),
        upper_bounds=dict.fromkeys(columns, b"\1" * 8),
        key_metadata=None,
        split_offsets=[4],
        equality_ids=None,
        sort_order_id=None,
    )
    file.spec_id = table.spec().spec_id
    return file


def look(home: Path) -> MaintenanceResult:
    """A dry run of vacuum through the service."""

    async def work() -> MaintenanceResult:
        async with MaintenanceService(AurumSettings(home=home, fleet=home / "fleet.yaml")) as service:
            return await service.execute_maintenance(None, "vacuum", "lake.bench.curves", dry_run=True)

    return asyncio.run(work())


def walk(root: Path) -> float:
    """Seconds for seeing every name below a folder, and nothing else."""
    began = time.perf_counter()
    seen = 0
    waiting = [str(root)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for one in entries:
                if one.is_dir(follow_symlinks=False):
                    waiting.append(one.path)
                else:
                    seen += 1
    assert seen
    return time.perf_counter() - began


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=FILES)
    files = parser.parse_args().files
    rates, seconds, processor, ratios = [], [], [], []
    with tempfile.TemporaryDirectory(prefix="aurum-bench-") as folder:
        home = Path(folder)
        (home / "fleet.yaml").write_text(FLEET)
        table, orphans = build(home, files)
        root = Path(table.location().removeprefix("file://"))
        for number in range(ROUNDS + 1):
            floor = walk(root)
            began, busy = time.perf_counter(), time.process_time()
            done = look(home)
            took, busy = time.perf_counter() - began, time.process_time() - busy
            assert done.status is MaintenanceStatus.PLANNED, done
            assert done.steps is not None
            assert len(done.steps[0].detail["files"]) == orphans
            if number:  # the first one warms up
                rates.append(files / took * 60)
                seconds.append(took)
                processor.append(busy)
                ratios.append(took / floor)
    show(
        [
            figure("files listed in a minute, whole dry run", rates, "files", goal=1_000_000, better="higher"),
            figure(f"orphans of {files:,} files found, whole dry run", seconds, "s"),
            figure("the same, processor time", processor, "s"),
            figure("the same over a bare walk of the folders", ratios, "ratio"),
        ]
    )


if __name__ == "__main__":
    main()
