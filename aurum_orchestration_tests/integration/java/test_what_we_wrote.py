"""Java reads what every operation left of every kind of table, its filters leave out no row, and it goes on writing."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from aurum_orchestration.maintenance.backends.iceberg.backend import HANDLERS
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration_tests.conformance.kinds import KINDS, Kind
from aurum_orchestration_tests.iceberg_deletes import add_position_deletes, live_data_files
from aurum_orchestration_tests.integration.java.conftest import SharedLake

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(600)]

METADATA_TABLES = (
    *("files", "data_files", "delete_files", "entries", "manifests", "partitions", "snapshots", "history", "refs"),
    *("all_files", "all_data_files", "all_delete_files", "all_entries", "all_manifests", "metadata_log_entries"),
)
WAYS: dict[str, dict[str, Any]] = {
    "bin-pack": {"row_group_copy": False},
    "sort": {"strategy": "sort", "sort_columns": "id desc"},
    "z-order": {"strategy": "zorder", "zorder_columns": "id"},
}
KINDS_OF_WAYS = {
    "bin-pack": ("partitioned", "equality deletes", "old spec", "evolved schema"),
    "sort": ("bucketed", "position deletes", "format version 1"),
    "z-order": ("plain", "nested", "refs"),
}
"""Each kind once: what Java does afterwards takes seconds."""

DONE = {MaintenanceStatus.COMPLETED, MaintenanceStatus.SKIPPED}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_java_reads_the_same_rows_after_every_operation(lake: SharedLake, kind: Kind) -> None:
    kind.make(lake.catalog, "ns.t")
    before, generic = lake.rows(), lake.generic_rows()
    assert before.total() == len(kind.live)
    for operation in sorted(HANDLERS):
        result = await lake.maintain(operation)
        assert result.status in DONE, result.problem
        assert lake.rows() == before, operation
        assert lake.generic_rows() == generic, operation
    counts = " UNION ALL ".join(
        f"SELECT '{name}' AS name, count(*) AS n FROM lake.ns.t.{name}" for name in METADATA_TABLES
    )
    assert len(lake.sql(counts)) == len(METADATA_TABLES)
    lake.sql("SELECT * FROM lake.ns.t.files")
    counted = lake.sql("SELECT coalesce(sum(record_count), 0) AS rows FROM lake.ns.t.data_files")[0]["rows"]
    assert counted >= before.total()


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        pytest.param(kind, way, id=f"{kind.name}-{way}")
        for way, names in KINDS_OF_WAYS.items()
        for kind in KINDS
        if kind.name in names
    ],
)
async def test_java_goes_on_after_a_compaction(lake: SharedLake, kind: Kind, way: str) -> None:
    kind.make(lake.catalog, "ns.t")
    before = lake.rows()
    result = await lake.maintain("compaction", rewrite_all=True, **WAYS[way])
    assert result.status == MaintenanceStatus.COMPLETED, result.problem
    assert lake.rows() == before

    lake.sql("INSERT INTO lake.ns.t (id) VALUES (1001), (1002)")
    lake.sql("DELETE FROM lake.ns.t WHERE id = 1001")
    lake.sql(
        "MERGE INTO lake.ns.t USING (SELECT 1002L AS id UNION ALL SELECT 1003L) AS s ON t.id = s.id "
        "WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)"
    )
    lake.sql("DELETE FROM lake.ns.t WHERE id = 1003")
    assert lake.rows() == before
    done = lake.sql("CALL lake.system.rewrite_data_files(table => 'ns.t', options => map('rewrite-all', 'true'))")
    assert done[0]["rewritten_data_files_count"] > 0
    assert lake.rows() == before
    lake.sql("CALL lake.system.expire_snapshots(table => 'ns.t', older_than => TIMESTAMP '2999-01-01 00:00:00')")
    lake.sql("CALL lake.system.rewrite_manifests('ns.t')")
    assert lake.rows() == before
    again = await lake.maintain("compaction")
    assert again.status in DONE, again.problem
    assert lake.rows() == before


async def test_java_reads_every_snapshot_that_an_expiry_kept_and_finds_nothing_to_clean_up(lake: SharedLake) -> None:
    kind = next(kind for kind in KINDS if kind.name == "refs")
    table = kind.make(lake.catalog, "ns.t")
    add_position_deletes(table, {live_data_files(table)[0].file_path: [0, 1]})
    assert (await lake.maintain("compaction")).status == MaintenanceStatus.COMPLETED
    assert (await lake.maintain("manifests")).status in DONE

    def totals() -> dict[int, int]:
        return {
            one["id"]: lake.sql(f"SELECT count(*) AS n FROM lake.ns.t VERSION AS OF {one['id']}")[0]["n"]
            for one in lake.sql("SELECT snapshot_id AS id FROM lake.ns.t.snapshots ORDER BY committed_at")
        }

    before = totals()
    result = await lake.maintain("retention", retain_last=3)
    assert result.status == MaintenanceStatus.COMPLETED, result.problem
    kept = totals()
    assert 4 <= len(kept) < len(before)
    assert kept.items() <= before.items()
    assert lake.sql("SELECT count(*) AS n FROM lake.ns.t VERSION AS OF 'half'")[0]["n"] == len(kind.live) // 2
    for name in METADATA_TABLES:
        lake.sql(f"SELECT * FROM lake.ns.t.{name}")

    days_ago = time.time() - 3 * 86_400
    for name in lake.names():  # Spark looks only at files older than a day
        os.utime(lake.home / "warehouse" / name, (days_ago, days_ago))
    orphans = lake.sql("CALL lake.system.remove_orphan_files(table => 'ns.t', dry_run => true)")
    assert orphans == []
    last_but_one = list(kept)[-2]
    lake.sql(f"CALL lake.system.rollback_to_snapshot('ns.t', {last_but_one})")
    assert lake.rows().total() == kept[last_but_one]
    lake.sql("CALL lake.system.expire_snapshots(table => 'ns.t', older_than => TIMESTAMP '2999-01-01 00:00:00')")
    assert lake.rows().total() == kept[last_but_one]
