"""Orphan files through a real Trino.

What could lose a file, and where it is tried here:

* a live file, or a young one that may belong to a commit under way;
* files that Trino takes and the embedded engine does not: hidden ones, what a vacuum set aside;
* files of another table at the same place, with PyIceberg's catalog and without it;
* files that became orphans after the plan was shown.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration_tests.integration.iceberg.support import local
from aurum_orchestration_tests.integration.trino.upkeep import BELOW, Shared, files_of, shared
from aurum_orchestration_tests.servers.trino import TrinoServer

ROWS = [{"id": 1}, {"id": 2}]


@pytest.fixture
def lake(trino: TrinoServer, tmp_path: Path) -> Iterator[Shared]:
    with shared(trino, tmp_path) as made:
        yield made


def plant(lake: Shared, name: str, days: float = 30) -> str:
    """A file below the table's location, written so many days ago; its location."""
    path = local(f"{lake.table().location()}/{name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"12345")
    moment = time.time() - days * 86_400
    os.utime(path, (moment, moment))
    return f"file://{path}"


async def test_the_plan_names_what_trino_then_deletes(lake: Shared) -> None:
    lake.make("t", ROWS)
    orphans = sorted([plant(lake, "data/lost.parquet"), plant(lake, "metadata/lost-m0.avro")])
    young = plant(lake, "data/young.parquet", days=1)
    before = files_of(lake.table())
    dry = await lake.run("vacuum", dry_run=True, options={"floors": True})
    assert files_of(lake.table()) == before
    assert dry.steps is not None
    assert sorted(dry.steps[0].detail["files"]) == orphans
    assert any("no quarantine" in warning for warning in dry.warnings)

    done = await lake.run("vacuum", options={"floors": True})
    assert done.status == MaintenanceStatus.COMPLETED, done.problem
    assert files_of(lake.table()) == sorted(set(before) - set(orphans))
    assert young in files_of(lake.table())
    assert (done.metrics["files_deleted"], done.metrics["bytes_deleted"]) == (2, 10)
    assert done.undo == "nothing brings back files that Trino deleted"
    assert lake.ids() == [1, 2]


@pytest.mark.thorough
@pytest.mark.parametrize("name", [".aurum-quarantine/an-operation/data/x.parquet", "_notes/readme.txt"])
async def test_what_trino_would_take_though_it_is_no_orphan_is_refused(lake: Shared, name: str) -> None:
    lake.make("t", ROWS)
    plant(lake, name)
    plant(lake, "data/lost.parquet")
    before = files_of(lake.table())
    told = await lake.run("vacuum")
    assert told.status == MaintenanceStatus.SKIPPED
    assert name in told.reason
    assert "engine: pyiceberg" in told.reason
    assert files_of(lake.table()) == before


@pytest.mark.thorough
async def test_an_age_below_the_catalogs_floor_is_refused(lake: Shared) -> None:
    lake.make("t", ROWS)
    orphan = plant(lake, "data/lost.parquet")
    told = await lake.run("vacuum", older_than_days=5, options={"floors": True})
    assert told.problem is not None
    assert told.problem.type == "validation-error"
    assert "no orphan younger than 7 days" in (told.problem.detail or "")
    assert orphan in files_of(lake.table())


@pytest.mark.thorough
@pytest.mark.parametrize("embedded", [True, False])
async def test_a_location_shared_with_another_table_is_refused(lake: Shared, *, embedded: bool) -> None:
    made = lake.make("t", ROWS)
    lake.make("inside", ROWS, location=f"{made.location()}/inside")
    before = files_of(made)
    told = await lake.run("vacuum", options={"embedded": embedded})
    assert told.status == MaintenanceStatus.SKIPPED
    assert "would be the other's orphans" in told.reason
    assert files_of(made) == before


@pytest.mark.thorough
async def test_without_the_catalog_there_is_no_preview_and_that_is_said(lake: Shared) -> None:
    lake.make("t", ROWS)
    orphan = plant(lake, "data/lost.parquet")
    done = await lake.run("vacuum", options={"embedded": False})
    if done.status == MaintenanceStatus.SKIPPED:  # another test's table cannot be read at this moment
        pytest.skip(done.reason)
    assert done.status == MaintenanceStatus.COMPLETED, done.problem
    assert any("no preview" in warning for warning in done.warnings)
    told = {name: done.metrics[name] for name in ("files_deleted", "bytes_deleted") if name in done.metrics}
    assert told in ({}, {"files_deleted": 1, "bytes_deleted": 5})  # newer versions tell
    assert orphan not in files_of(lake.table())
    assert lake.ids() == [1, 2]


@pytest.mark.thorough
async def test_a_table_without_a_snapshot_and_one_without_orphans_are_left_alone(lake: Shared) -> None:
    lake.make("t")
    orphan = plant(lake, "data/lost.parquet")
    assert (await lake.run("vacuum")).status == MaintenanceStatus.SKIPPED
    assert orphan in files_of(lake.table())
    lake.make("clean", ROWS)
    assert (await lake.run("vacuum", "clean", older_than_days=0, **BELOW)).status == MaintenanceStatus.SKIPPED
