"""A table of format version 3 as Spark makes it, with deletion vectors: every operation is right or refused."""

from __future__ import annotations

import pytest

from aurum_orchestration.maintenance.backends.iceberg.backend import HANDLERS
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration_tests.integration.java.conftest import SharedLake

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(600)]

WRITING = {"compaction", "manifests", "partition_evolution"}
"""What would write data files or manifests of version 3."""
OF_METADATA = {"retention", "backup"}
"""What changes the metadata alone."""


def make(lake: SharedLake) -> None:
    """Five files under two deletion vectors, an updated row, and files that an expiry left behind."""
    lake.sql(
        "CREATE TABLE lake.ns.t (id BIGINT, name STRING) USING iceberg TBLPROPERTIES ('format-version' = '3', "
        "'write.delete.mode' = 'merge-on-read', 'write.update.mode' = 'merge-on-read')"
    )
    for first in range(0, 50, 10):
        lake.sql(
            f"INSERT INTO lake.ns.t SELECT /*+ COALESCE(1) */ id, concat('n', id) FROM range({first}, {first + 10})"
        )
    lake.sql("DELETE FROM lake.ns.t WHERE id IN (3, 14)")
    lake.sql("UPDATE lake.ns.t SET name = 'new' WHERE id = 25")


async def test_every_operation_is_right_or_refused(lake: SharedLake) -> None:
    make(lake)
    lineage = lake.rows(columns="_row_id, _last_updated_sequence_number, *")
    assert lineage.total() == 48
    stray = lake.home / "warehouse" / "ns" / "t" / "data" / "stray.parquet"
    stray.write_bytes(b"left behind")
    for operation in sorted(HANDLERS):
        before, location = lake.names(), lake.load().metadata_location
        result = await lake.maintain(operation)
        if operation in WRITING:
            assert result.status == MaintenanceStatus.SKIPPED, result.problem
            assert "version 3" in (result.reason or "")
            assert "Spark" in (result.reason or "")
            assert lake.names() == before
        else:
            assert result.status == MaintenanceStatus.COMPLETED, (operation, result.problem)
        assert (lake.load().metadata_location != location) == (operation in OF_METADATA)
        assert lake.rows(columns="_row_id, _last_updated_sequence_number, *") == lineage, operation
    assert not stray.exists()
    assert len(lake.load().metadata.snapshots) < 7
    result = await lake.maintain("partition_evolution", rewrite=False)
    assert result.status == MaintenanceStatus.SKIPPED, result.problem
    assert "version 3" in (result.reason or "")
    lake.sql("INSERT INTO lake.ns.t VALUES (99, 'later')")
    ids = [row["_row_id"] for row in lake.sql("SELECT _row_id FROM lake.ns.t")]
    assert len(set(ids)) == len(ids) == 49
    lake.sql("DELETE FROM lake.ns.t WHERE id = 47")
    lake.sql("CALL lake.system.rewrite_data_files(table => 'ns.t', options => map('rewrite-all', 'true'))")
    assert lake.rows(columns="_row_id, id").total() == 48
