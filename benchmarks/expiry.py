"""Expiring 1,000 of 1,001 snapshots: one commit, then the deletion of every file that became unreachable.

Each snapshot but the first replaced the file of the one before: a manifest of three, a manifest list and one data
file each, so expiry leaves thousands of files to delete. The history is written by hand, with the project's own
manifest writer: 1,000 commits would take minutes. Everything goes through the service: plan, lease, commit, record.
What deletions cost is measured beside, in the same round: the same number of files of the same sizes, deleted by the
same function. After every round each file that is left is looked for in what the table refers to.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestEntryStatus, write_manifest_list
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from aurum_orchestration.maintenance.backends.iceberg.entries import entry, write_manifest
from aurum_orchestration.maintenance.backends.iceberg.storage import Storage
from aurum_orchestration.maintenance.interfaces import MaintenanceResult, MaintenanceStatus
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.settings import AurumSettings
from benchmarks.figures import figure, show
from benchmarks.manifests import FLEET
from benchmarks.tables import CURVES, catalog_at

EXPIRED = 1000
ROUNDS = 5
DAY_MS = 86_400_000
CONTENT = b"x" * 4096


def build(home: Path, snapshots: int = EXPIRED + 1, name: str = "curves") -> Table:
    """The table ``bench.NAME`` with that many snapshots, a minute apart, the newest a month old.

    Every snapshot lists one manifest, which adds a file and removes the one before.
    """
    catalog = catalog_at(home)
    catalog.create_namespace_if_not_exists("bench")
    table = catalog.create_table(f"bench.{name}", CURVES)
    last = int(time.time() * 1000) - 30 * DAY_MS
    history = list(_snapshots(table, snapshots, last))
    path = Path(table.metadata_location.removeprefix("file://"))
    metadata = json.loads(path.read_text())
    head = history[-1]
    metadata |= {
        "snapshots": history,
        "current-snapshot-id": head["snapshot-id"],
        "last-sequence-number": head["sequence-number"],
        "last-updated-ms": last,
        "refs": {"main": {"snapshot-id": head["snapshot-id"], "type": "branch"}},
        "snapshot-log": [{name: one[name] for name in ("snapshot-id", "timestamp-ms")} for one in history],
    }
    new = path.with_name(f"00001-{uuid.uuid4()}.metadata.json")
    new.write_text(json.dumps(metadata))
    with closing(sqlite3.connect(home / "catalog.db")) as database, database:
        database.execute(
            "update iceberg_tables set metadata_location = ? where table_name = ?", (f"file://{new}", name)
        )
    path.unlink()
    return table.refresh()


def _snapshots(table: Table, count: int, last: int) -> Iterator[dict[str, Any]]:
    root = Path(table.location().removeprefix("file://"))
    (root / "data").mkdir(parents=True, exist_ok=True)
    io, spec = PyArrowFileIO(), table.spec()
    before: tuple[int, DataFile] | None = None
    for number in range(1, count + 1):
        path = root / "data" / f"{uuid.uuid4()}.parquet"
        path.write_bytes(CONTENT)
        file = _claimed(f"file://{path}", spec.spec_id)
        entries = [entry(ManifestEntryStatus.ADDED, number, file)]
        if before is not None:
            gone = entry(ManifestEntryStatus.DELETED, number, before[1])
            gone.sequence_number = gone.file_sequence_number = number - 1
            entries.append(gone)
        manifest = write_manifest(table, f"{table.location()}/metadata/{uuid.uuid4()}-m0.avro", spec, entries, number)
        listing = f"{table.location()}/metadata/snap-{number}-{uuid.uuid4()}.avro"
        with write_manifest_list(
            2, io.new_output(listing), number, number - 1 or None, number, avro_compression="deflate"
        ) as writer:
            writer.add_manifests([manifest])
        yield {
            "snapshot-id": number,
            **({"parent-snapshot-id": number - 1} if before else {}),
            "sequence-number": number,
            "timestamp-ms": last - (count - number) * 60_000,
            "manifest-list": listing,
            "summary": {"operation": "overwrite", "total-data-files": "1", "total-records": "100"},
            "schema-id": 0,
        }
        before = number, file


def _claimed(path: str, spec_id: int) -> DataFile:
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=100,
        file_size_in_bytes=len(CONTENT),
        column_sizes={},
        value_counts={},
        null_value_counts={},
        nan_value_counts={},
        lower_bounds={},
        upper_bounds={},
        key_metadata=None,
        split_offsets=None,
        equality_ids=None,
        sort_order_id=None,
    )
    file.spec_id = spec_id
    return file


def expire(home: Path) -> MaintenanceResult:
    """One retention through the service, down to a single snapshot."""

    async def work() -> MaintenanceResult:
        async with MaintenanceService(AurumSettings(home=home, fleet=home / "fleet.yaml")) as service:
            return await service.execute_maintenance(
                None, "retention", "lake.bench.curves", parameters={"retain_last": 1}
            )

    return asyncio.run(work())


def deletions(home: Path, table: Table, sizes: list[int]) -> float:
    """Seconds for deleting that many files of those sizes in the folders of a table, and nothing else."""
    folders = [home / "floor" / name for name in ("data", "metadata")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, size in enumerate(sizes):
        path = folders[size != len(CONTENT)] / f"{uuid.uuid4()}-{number}"
        path.write_bytes(b"x" * size)
        paths.append(f"file://{path}")
    began = time.perf_counter()
    gone = list(Storage(table.io).delete(paths))
    took = time.perf_counter() - began
    assert len(gone) == len(paths)
    return took


def unreachable_files(table: Table) -> set[str]:
    """Files under the table's location that nothing refers to, by PyIceberg's own reading."""
    known = {table.metadata_location, *(one.metadata_file for one in table.metadata.metadata_log)}
    for snapshot in table.metadata.snapshots:
        known.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            known.add(manifest.manifest_path)
            known |= {one.data_file.file_path for one in manifest.fetch_manifest_entry(table.io)}
    root = Path(table.location().removeprefix("file://"))
    there = {f"file://{path}" for path in root.rglob("*") if path.is_file()}
    return there - known


def main() -> None:
    """Measure and print the figures."""
    seconds, processor, deleting, net, left, deleted = [], [], [], [], [], []
    with tempfile.TemporaryDirectory(prefix="aurum-bench-") as folder:
        home, copy = Path(folder) / "home", Path(folder) / "copy"
        home.mkdir()
        (home / "fleet.yaml").write_text(FLEET)
        build(home)
        shutil.copytree(home, copy)
        for number in range(ROUNDS + 1):
            shutil.rmtree(home)
            shutil.copytree(copy, home)
            table = catalog_at(home).load_table("bench.curves")
            root = Path(table.location().removeprefix("file://"))
            sizes = [path.stat().st_size for path in root.rglob("*") if path.suffix in {".parquet", ".avro"}]
            floor = deletions(home, table, sizes[3:])
            began, busy = time.perf_counter(), time.process_time()
            done = expire(home)
            took, busy = time.perf_counter() - began, time.process_time() - busy
            assert done.status is MaintenanceStatus.COMPLETED, done
            assert done.metrics["snapshots_expired"] == EXPIRED, done.metrics
            if number:  # the first one warms up
                seconds.append(took)
                processor.append(busy)
                deleting.append(floor)
                net.append(took - floor)
                deleted.append(done.metrics["files_deleted"])
                left.append(float(len(unreachable_files(table.refresh()))))
    assert not any(left), f"{left} files that nothing refers to are still there"
    show(
        [
            figure("1,000 snapshots expired, less the deletions", net, "s", goal=1.0),
            figure("the whole operation", seconds, "s"),
            figure("the same, processor time", processor, "s"),
            figure("deleting as many files, nothing else", deleting, "s"),
            figure("whole operation over deleting", [a / b for a, b in zip(seconds, deleting, strict=True)], "ratio"),
            figure("files deleted", deleted, "files", better="higher"),
            figure("unreachable files left", left, "files", goal=0),
        ]
    )


if __name__ == "__main__":
    main()
