"""The table that faults happen to."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyiceberg.catalog.sql import SqlCatalog

from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration_tests.faults.scene import Scene, mount
from aurum_orchestration_tests.iceberg_deletes import add_position_deletes, live_data_files
from aurum_orchestration_tests.integration.upkeep.lakeside import BY_REGION, SCHEMA, append


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, bool]]:
    """A folder that is a disk of 2 MiB if this process may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = mount("-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place))
    try:
        yield place, mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)  # what failed may hold a file


@pytest.fixture
def scene(tmp_path: Path, disk: tuple[Path, bool]) -> Iterator[Scene]:
    """Two partitions of three files, position deletes, a tag, an old snapshot, an orphan: every operation has work."""
    place, mounted = disk
    uri, warehouse = f"sqlite:///{tmp_path}/catalog.db?timeout=0.2", f"file://{place}"
    with contextlib.closing(SqlCatalog("lake", uri=uri, warehouse=warehouse)) as catalog:
        catalog.create_namespace("ns")
        table = catalog.create_table("ns.t", SCHEMA, partition_spec=BY_REGION)
        append(table, 3, region="N")
        append(table, 3, start=100, region="S")
        add_position_deletes(table, {live_data_files(table)[0].file_path: [0, 1]})
        oldest = table.snapshots()[1].snapshot_id
        table.manage_snapshots().create_tag(oldest, "theirs").commit()
        (place / "ns/t/data/orphan.parquet").write_bytes(b"PAR1")
        backend = IcebergMaintenanceBackend(
            {"catalog": {"type": "sql", "uri": uri, "warehouse": warehouse}}, name="lake"
        )
        with contextlib.closing(backend.catalog):
            yield Scene(place, catalog, backend, table.refresh(), mounted)
