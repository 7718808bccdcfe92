"""Manifests, statistics, bloat and backups through a real Trino.

What could lose a row or leave debris, and where it is tried here:

* a rewrite of manifests drops a file, or brings a deleted row back; it leaves more manifests than before;
* statistics that move main, or stay when they are to go;
* a report that says something else than the embedded engine's;
* a backup that is said to be made and is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyiceberg.transforms import IdentityTransform

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.bloat import handler as embedded_bloat
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration.maintenance.operations.bloat import BloatParameters
from aurum_orchestration_tests.integration.iceberg.support import spec_of
from aurum_orchestration_tests.integration.trino.upkeep import Shared, shared
from aurum_orchestration_tests.servers.trino import TrinoServer

FILES = [[{"id": number, "hub": f"hub-{number % 2}"}] for number in range(6)]


@pytest.fixture
def lake(trino: TrinoServer, tmp_path: Path) -> Iterator[Shared]:
    with shared(trino, tmp_path) as made:
        yield made


def manifests(lake: Shared) -> int:
    return int(lake.sql('SELECT count(*) FROM {t}."t$manifests"')[0][0])


async def test_manifests_become_few_and_a_second_run_finds_nothing(lake: Shared) -> None:
    lake.make("t", *FILES)
    lake.sql("DELETE FROM {t}.t WHERE id = 3")
    before = manifests(lake)
    done = await lake.run("manifests")
    assert done.status == MaintenanceStatus.COMPLETED, done.problem
    assert manifests(lake) < before
    assert done.verification is not None
    assert (done.verification.rows_before, done.verification.rows_after) == (5, 5)
    assert lake.ids() == [0, 1, 2, 4, 5]
    assert (await lake.run("manifests")).status == MaintenanceStatus.SKIPPED


@pytest.mark.thorough
async def test_manifests_of_as_many_partitions_are_left_alone_by_a_trino_that_makes_one_for_each(lake: Shared) -> None:
    lake.make("t", *FILES[:2], spec=spec_of((3, IdentityTransform(), "hub")))
    told = await lake.run("manifests")
    assert told.status == MaintenanceStatus.SKIPPED
    assert "one for each of 2 values" in told.reason
    other_size = await lake.run("manifests", target_manifest_size_mb=1)
    assert other_size.status == MaintenanceStatus.SKIPPED
    assert "commit.manifest.target-size-bytes" in other_size.reason


@pytest.mark.thorough
async def test_distinct_values_are_stored_and_dropped_and_main_stays_where_it_is(lake: Shared) -> None:
    made = lake.make("t", *FILES)
    head = made.metadata.current_snapshot_id
    report = await lake.run("stats")
    assert any("none are stored" in warning for warning in report.warnings)
    assert lake.table().metadata.statistics == []
    done = await lake.run("stats", ndv=True, columns=["hub"])
    assert done.status == MaintenanceStatus.COMPLETED, done.problem
    assert [file.snapshot_id for file in lake.table().metadata.statistics] == [head]
    assert done.steps is not None
    assert done.steps[-1].detail["columns"]["hub"]["distinct"] == 2
    assert (await lake.run("stats", drop_ndv=True)).status == MaintenanceStatus.COMPLETED
    assert lake.table().metadata.statistics == []
    assert lake.table().metadata.current_snapshot_id == head
    wrong = await lake.run("stats", columns=["hbu"])
    assert wrong.problem is not None
    assert "Did you mean 'hub'?" in (wrong.problem.hint or "")


@pytest.mark.thorough
async def test_bloat_is_what_the_embedded_engine_says(lake: Shared) -> None:
    lake.make("t", *FILES)
    lake.sql("DELETE FROM {t}.t WHERE id = 3")
    table = lake.table()
    expected = embedded_bloat.plan(table, TableId("lake", (lake.namespace, "t")), BloatParameters()).steps[0].detail
    told = await lake.run("bloat", dry_run=True)
    assert told.steps is not None
    assert told.steps[0].detail["metrics"] == expected["metrics"]
    assert told.steps[0].detail["parts"] == expected["parts"]
    without = await lake.run("bloat", dry_run=True, options={"embedded": False})
    assert without.steps is not None
    assert without.steps[0].detail["metrics"]["live_bytes"] == expected["metrics"]["live_bytes"]
    assert any("names no catalog" in one for one in without.steps[0].detail["missing"])


@pytest.mark.thorough
async def test_a_backup_is_made_on_the_same_catalog_or_refused_with_the_reason(lake: Shared) -> None:
    made = lake.make("t", *FILES)
    refused = await lake.run("backup", options={"embedded": False})
    assert refused.status == MaintenanceStatus.SKIPPED
    assert "477" in refused.reason
    assert list(lake.table().metadata.refs) == ["main"]
    done = await lake.run("backup")
    assert done.status == MaintenanceStatus.COMPLETED, done.problem
    head = made.metadata.current_snapshot_id
    told = lake.sql("SELECT type, snapshot_id FROM {t}.\"t$refs\" WHERE name <> 'main'")
    assert [tuple(row) for row in told] == [("TAG", head)]
