"""What Spark writes is maintained rightly: its deletes, formats, sort orders, partitions and types; judged by Spark."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration_tests.integration.iceberg.support import data_paths, local
from aurum_orchestration_tests.integration.java.conftest import SharedLake

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(600)]

COMPLETED, SKIPPED = MaintenanceStatus.COMPLETED, MaintenanceStatus.SKIPPED
COLUMNS = """id BIGINT, i INT, flag BOOLEAN, f FLOAT, d DOUBLE, small DECIMAL(9, 2), big DECIMAL(30, 10), day DATE,
at TIMESTAMP, local TIMESTAMP_NTZ, name STRING, raw BINARY, place STRUCT<x: INT, y: STRING>, parts ARRAY<INT>,
tags MAP<STRING, INT>"""
VALUES = """id, CAST(id AS INT) - 20, id % 3 = 0, IF(id % 7 = 0, NULL, CAST(id AS FLOAT) / 3),
IF(id = 5, double('NaN'), id / 7), CAST(id AS DECIMAL(9, 2)) / 4, CAST(id AS DECIMAL(30, 10)) * -1000000000,
DATE'2025-12-30' + CAST(id % 40 AS INT),
TIMESTAMP'1969-12-31 23:00:00' + make_interval(0, 0, 0, 0, CAST(id * 5 AS INT)), TIMESTAMP_NTZ'2026-01-01 00:00:00',
IF(id % 11 = 0, NULL, concat('name-', id % 5)), CAST(CAST(id AS STRING) AS BINARY),
IF(id % 4 = 0, NULL, named_struct('x', CAST(id AS INT), 'y', IF(id % 3 = 0, NULL, 'y'))),
IF(id % 5 = 0, NULL, array(CAST(id AS INT), NULL)), IF(id % 6 = 0, NULL, map('k', CAST(id AS INT)))"""
# Iceberg leaves NaN out of bounds, Spark counts it above all numbers: what passes depends on how rows lie in files
FILTERS = [
    *(
        f"{name} {operator} {value}"
        for operator in ("=", "<", ">=")
        for name, value in (
            ("id", "17"),
            ("i", "-3"),
            ("f", "4.0"),
            ("d", "2.5 AND NOT isnan(d)"),
            ("small", "5.25"),
            ("big", "-17000000000"),
            ("day", "DATE'2026-01-11'"),
            ("at", "TIMESTAMP'1970-01-02 00:00:00'"),
            ("name", "'name-3'"),
            ("raw", "X'3137'"),
            ("place.x", "21"),
            ("local", "TIMESTAMP_NTZ'2026-01-01 00:00:00'"),
        )
    ),
    *("name IS NULL", "f IS NOT NULL", "isnan(d)", "flag", "place IS NULL", "name LIKE 'name-4%'"),
]
PARTITIONS = {
    "identity": "name",
    "bucket": "bucket(4, id)",
    "truncate": "truncate(8, id), truncate(6, name)",
    "years": "years(day)",
    "months": "months(at)",
    "days": "days(at)",
    "hours": "hours(at)",
    "decimal": "small",
    "binary": "truncate(1, raw)",
}


def create(lake: SharedLake, partition: str = "", properties: str = "") -> None:
    """A table of every type that Spark has."""
    by, given = (
        f"PARTITIONED BY ({partition})" if partition else "",
        f"TBLPROPERTIES ({properties})" if properties else "",
    )
    lake.sql(f"CREATE TABLE lake.ns.t ({COLUMNS}) USING iceberg {by} {given}")


def insert(lake: SharedLake, *parts: tuple[int, int]) -> None:
    """A commit per range of ids."""
    for first, last in parts:
        lake.sql(f"INSERT INTO lake.ns.t SELECT /*+ COALESCE(1) */ {VALUES} FROM range({first}, {last})")


def filtered(lake: SharedLake) -> list[int]:
    """How many rows pass each filter, pushed down to the files' bounds."""
    text = " UNION ALL ".join(
        f"SELECT {number} AS number, count(*) AS n FROM lake.ns.t WHERE {one}" for number, one in enumerate(FILTERS)
    )
    return [row["n"] for row in sorted(lake.sql(text), key=lambda row: row["number"])]


@pytest.mark.parametrize("partition", PARTITIONS.values(), ids=PARTITIONS)
async def test_every_type_under_every_transform(lake: SharedLake, partition: str) -> None:
    create(lake, partition)
    insert(lake, (0, 40), (10, 50), (0, 40))
    rows, counts = lake.rows(), filtered(lake)
    result = await lake.maintain("compaction")
    assert result.status == COMPLETED, result.problem
    assert lake.rows() == rows
    assert filtered(lake) == counts
    assert (await lake.maintain("manifests")).status in {COMPLETED, SKIPPED}
    assert lake.rows() == rows
    assert filtered(lake) == counts


async def test_filters_leave_out_files(lake: SharedLake) -> None:
    """Bounds of what we wrote let Java skip files, and never one that has the row."""
    create(lake, "truncate(10, id)")
    insert(lake, *[(first, first + 50) for first in (0, 50, 0, 50)])
    assert (await lake.maintain("compaction")).status == COMPLETED
    files = lake.sql("SELECT count(*) AS n FROM lake.ns.t.files")[0]["n"]
    assert files == 10
    for column, value in (("i", 23), ("place.x", 43), ("place.x", 5)):
        assert lake.java.planned("lake.ns.t", column, "equal", value) == 1, column


async def test_merge_on_read_deletes_are_folded_in(lake: SharedLake) -> None:
    create(lake, "bucket(2, id)", "'write.delete.mode' = 'merge-on-read', 'write.merge.mode' = 'merge-on-read'")
    insert(lake, (0, 40), (40, 80), (80, 120))
    lake.sql("DELETE FROM lake.ns.t WHERE id % 9 = 0")
    lake.sql(
        "MERGE INTO lake.ns.t USING (SELECT id FROM range(30, 50)) AS s ON t.id = s.id "
        "WHEN MATCHED AND s.id < 40 THEN DELETE WHEN MATCHED THEN UPDATE SET name = 'merged'"
    )
    rows, counts = lake.rows(), filtered(lake)
    assert lake.sql("SELECT count(*) AS n FROM lake.ns.t.delete_files")[0]["n"] > 0
    result = await lake.maintain("compaction", max_delete_files=1)
    assert result.status == COMPLETED, result.problem
    assert lake.sql("SELECT count(*) AS n FROM lake.ns.t.delete_files")[0]["n"] == 0
    assert lake.rows() == rows
    assert filtered(lake) == counts


async def test_its_sort_order_and_its_bloom_filters(lake: SharedLake) -> None:
    create(
        lake,
        "",
        "'write.parquet.bloom-filter-enabled.column.name' = 'true', 'write.parquet.bloom-filter-max-bytes' = '4096'",
    )
    lake.sql("ALTER TABLE lake.ns.t WRITE ORDERED BY day DESC, id")
    insert(lake, (0, 40), (20, 60))
    rows = lake.rows()
    assert (await lake.maintain("compaction", strategy="sort")).status == COMPLETED
    assert lake.rows() == rows
    (path,) = data_paths(lake.load())
    days = pq.read_table(local(path), columns=["day"]).column("day").to_pylist()
    assert days == sorted(days, reverse=True)
    assert lake.sql("SELECT sort_order_id AS n FROM lake.ns.t.files")[0]["n"] == lake.load().sort_order().order_id
    assert (await lake.maintain("compaction", strategy="sort")).status == SKIPPED


@pytest.mark.parametrize("other", ["orc", "avro"])
async def test_files_of_other_formats_are_left_and_the_parquet_ones_compacted(lake: SharedLake, other: str) -> None:
    create(lake)
    insert(lake, (0, 10), (10, 20), (20, 30))
    lake.sql(f"ALTER TABLE lake.ns.t SET TBLPROPERTIES ('write.format.default' = '{other}')")
    insert(lake, (30, 40), (40, 50))
    rows, before = lake.rows(), lake.names()
    result = await lake.maintain("compaction")
    assert result.status == SKIPPED
    assert other.upper() in (result.reason or "")
    assert lake.names() == before
    lake.sql("ALTER TABLE lake.ns.t SET TBLPROPERTIES ('write.format.default' = 'parquet')")
    result = await lake.maintain("compaction")
    assert result.status == COMPLETED, result.reason
    assert any(f"2 {other.upper()} data files are left as they are" in text for text in result.warnings), (
        result.warnings
    )
    assert lake.rows() == rows
    assert lake.sql("SELECT count(*) AS n FROM lake.ns.t.files")[0]["n"] == 3


async def test_files_that_spark_added_without_field_ids(lake: SharedLake) -> None:
    """By add_files, from a plain Parquet table, with the name mapping that Spark leaves."""
    create(lake)
    plain = lake.home / "plain"
    for first in (0, 20, 40):
        lake.sql(
            f"INSERT OVERWRITE DIRECTORY '{plain}/{first}' USING parquet "
            f"SELECT /*+ COALESCE(1) */ {VALUES} FROM range({first}, {first + 20})"
        )
        lake.sql(f"CALL lake.system.add_files(table => 'ns.t', source_table => '`parquet`.`{plain}/{first}`')")
    rows, counts = lake.rows(), filtered(lake)
    assert rows.total() == 60
    result = await lake.maintain("compaction")
    assert result.status == COMPLETED, result.reason
    assert lake.rows() == rows
    assert filtered(lake) == counts
