"""What the catalog tells instead of Trino is what Trino tells: else the same table would have other plans."""

from __future__ import annotations

import uuid
from datetime import date, datetime, timedelta

import pyarrow as pa
import pytest
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import BucketTransform, DayTransform, IdentityTransform, MonthTransform, TruncateTransform
from pyiceberg.types import DateType, LongType, NestedField, StringType, TimestampType

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.backends.iceberg.trino import from_catalog
from aurum_orchestration.maintenance.backends.iceberg.trino.history import read_history
from aurum_orchestration.maintenance.backends.iceberg.trino.layout import read_layout
from aurum_orchestration.maintenance.backends.iceberg.trino.partitions import read_partitions
from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable
from aurum_orchestration_tests.integration.postgres.support import opened
from aurum_orchestration_tests.servers.trino import TrinoServer

SCHEMA = Schema(
    NestedField(1, "id", LongType(), required=False),
    NestedField(2, "ts", TimestampType(), required=False),
    NestedField(3, "day", DateType(), required=False),
    NestedField(4, "region", StringType(), required=False),
)
SPECS = {
    "plain": PartitionSpec(),
    "by_day": PartitionSpec(PartitionField(3, 1000, IdentityTransform(), "day")),
    "by_three": PartitionSpec(
        PartitionField(2, 1000, DayTransform(), "ts_day"),
        PartitionField(4, 1001, IdentityTransform(), "region"),
        PartitionField(1, 1002, BucketTransform(4), "id_bucket"),
    ),
    "by_month": PartitionSpec(
        PartitionField(2, 1000, MonthTransform(), "mon"), PartitionField(4, 1001, TruncateTransform(1), "first")
    ),
    "capital": PartitionSpec(PartitionField(4, 1000, IdentityTransform(), "Region")),
}


def rows(first: int) -> pa.Table:
    days = [date(2026, 1, 30) + timedelta(days=number % 3) for number in range(6)]
    return pa.table(
        {
            "id": pa.array(range(first, first + 6), pa.int64()),
            "ts": pa.array([datetime(day.year, day.month, day.day, 7) for day in days], pa.timestamp("us")),  # noqa: DTZ001
            "day": pa.array([*days[:5], None], pa.date32()),
            "region": ["north", "south", None, "north", "o'hare", "south"],
        }
    )


@pytest.mark.thorough
@pytest.mark.parametrize("name", SPECS)
def test_the_catalog_tells_what_trino_tells(trino: TrinoServer, name: str) -> None:
    namespace = f"told_{uuid.uuid4().hex[:8]}"
    with trino.lake() as catalog:
        catalog.create_namespace(namespace)
        made = catalog.create_table(f"{namespace}.{name}", SCHEMA, partition_spec=SPECS[name])
        for first in (0, 100):
            made.append(rows(first))
    config = {"engine": "trino", "host": trino.host, "port": trino.port, "catalog": trino.properties}
    with opened(IcebergMaintenanceBackend(config, name="lake")) as backend:
        both = backend.trino.table(TableId("lake", (namespace, name)))
        alone = TrinoTable(both.client, both.table_id, both.capabilities)
        loaded = both.loaded()
        assert loaded is not None
        layout, known = read_layout(alone), from_catalog.layout_of(loaded)
        if name == "capital":
            assert known is None, "Trino folds some names and not others: it is asked"
            return
        assert known is not None
        assert [(one.column, one.transform, one.size) for one in known.fields] == [
            (one.column, one.transform, one.size) for one in layout.fields
        ]
        for small in (1, 10**9):
            assert from_catalog.partitions(loaded, small) == read_partitions(alone, layout, small)
        assert from_catalog.columns_of(loaded) == alone.columns()
        told, read = read_history(both), read_history(alone)
        assert (told.refs, told.head) == (read.refs, read.head)
        assert [
            (one.snapshot_id, one.parent_snapshot_id, one.timestamp_ms, one.operation) for one in told.snapshots
        ] == [(one.snapshot_id, one.parent_snapshot_id, one.timestamp_ms, one.operation) for one in read.snapshots]
        assert [dict(one.summary) for one in told.snapshots] == [dict(one.summary) for one in read.snapshots]
        assert told.properties["format-version"] == read.properties.get("format-version", "2")
        assert abs(told.now_ms - read.now_ms) < 60_000
