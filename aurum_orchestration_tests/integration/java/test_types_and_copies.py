"""Java reads the types that Spark does not have, and row groups that we copied byte for byte."""

from __future__ import annotations

from datetime import time
from typing import Any
from uuid import UUID

import pytest
from pyiceberg.transforms import BucketTransform, IdentityTransform
from pyiceberg.types import FixedType, IcebergType, LongType, TimeType, UUIDType

from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration_tests.integration.iceberg.support import Rows, fields, make_table, typed
from aurum_orchestration_tests.integration.java.conftest import SharedLake

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(600)]

COMPLETED = MaintenanceStatus.COMPLETED
ODD: dict[str, IcebergType] = {"uid": UUIDType(), "raw": FixedType(4), "at": TimeType()}
TERMS: dict[str, tuple[str, Any]] = {
    "uuid": ("uid", BucketTransform(2)),
    "fixed": ("raw", BucketTransform(2)),  # partitions of the values themselves Java cannot read, whoever wrote them
    "time": ("at", IdentityTransform()),
}


def uid(number: int) -> UUID:
    """Below the half of all: Java counts the others as negative and finds them in no file, whoever wrote it.

    https://github.com/apache/iceberg/issues/14216
    """
    return UUID(int=number * 0x0222_2222_2222_2222_0000_0000_0000_0000 + number)


def row(number: int) -> dict[str, Any]:
    lacks = number % 7 == 0
    return {
        "id": number,
        "uid": None if lacks else uid(number).bytes,
        "raw": None if lacks else (number % 3 * 0x7F7F7F7F % 2**32).to_bytes(4, "big"),
        "at": None if lacks else time(number % 5, 59, 59, 999_999),
    }


@pytest.mark.parametrize("way", [{}, {"strategy": "sort", "sort_columns": "uid desc"}], ids=["bin-pack", "sort"])
@pytest.mark.parametrize("partition", [None, *TERMS])
async def test_types_that_spark_does_not_have(lake: SharedLake, partition: str | None, way: dict[str, Any]) -> None:
    schema = fields(id=LongType(), **ODD)
    table = make_table(lake.catalog, schema)
    for first in (0, 20, 40):
        table.append(typed(table, [row(number) for number in range(first, first + 20)]))
    if partition is not None:  # the files come into it by our hand
        with table.update_spec() as change:
            change.add_field(*TERMS[partition])
    before = lake.generic_rows()
    assert before.total() == 60
    result = await lake.maintain("compaction", rewrite_all=True, **way)
    assert result.status == COMPLETED, result.problem or result.reason
    assert lake.generic_rows() == before
    assert (await lake.maintain("manifests")).problem is None
    assert lake.generic_rows() == before
    for column, value, count in (
        ("uid", str(uid(17)), 1),
        ("uid", str(uid(58)), 1),
        ("at", "02:59:59.999999", sum(number % 5 == 2 and number % 7 > 0 for number in range(60))),
    ):
        assert len(lake.java.records("lake.ns.t", (column, "equal", value))) == count, column


COLUMNS = "id BIGINT, name STRING, few BIGINT, place STRUCT<x: INT, y: STRING>, parts ARRAY<BIGINT>"
# what cannot be null Spark writes as required, which an optional column of the table's cannot take as it is
VALUES = """IF(id < 0, NULL, id) AS id, IF(id < 0, NULL, CAST(id AS STRING)) AS name,
IF(id % 5 = 0, NULL, id % 13) AS few, IF(id < 0, NULL, named_struct('x', IF(id < 0, NULL, CAST(id AS INT)),
'y', IF(id % 3 = 0, NULL, 'y'))) AS place, IF(id < 0, NULL, array(id, NULL)) AS parts"""


@pytest.mark.parametrize("deletes", [False, True], ids=["no deletes", "deletes"])
async def test_row_groups_of_spark_that_we_copied(lake: SharedLake, deletes: bool) -> None:
    """Its pages are small, with indexes and a bloom filter; their offsets are right in the new file, too."""
    lake.sql(
        f"CREATE TABLE lake.ns.t ({COLUMNS}) USING iceberg TBLPROPERTIES ("
        "'write.parquet.row-group-size-bytes' = '65536', "
        "'write.parquet.row-group-check-min-record-count' = '100', 'write.parquet.page-row-limit' = '100', "
        "'write.parquet.bloom-filter-enabled.column.name' = 'true', 'write.parquet.bloom-filter-max-bytes' = '1024', "
        "'write.delete.mode' = 'merge-on-read')"
    )
    for first, last in ((0, 2000), (2000, 2010), (2010, 4000), (4000, 4010)):
        lake.sql(f"INSERT INTO lake.ns.t SELECT /*+ COALESCE(1) */ {VALUES} FROM range({first}, {last})")
    if deletes:
        lake.sql("DELETE FROM lake.ns.t WHERE id IN (17, 18)")
    filters = ["id = 1999", "id BETWEEN 1100 AND 1900", "name = '3777'", "few IS NULL", "few = 12", "name = 'none'"]
    filters += ["place.x = 3000", "place.y IS NULL", "id >= 4005", "id = 17"]
    counted = " UNION ALL ".join(
        f"SELECT {number} AS number, count(*) AS n, sum(id) AS total, sum(place.x + parts[0]) AS inner "
        f"FROM lake.ns.t WHERE {one}"
        for number, one in enumerate(filters)
    )
    rows, passing = lake.rows(), Rows(map(repr, lake.sql(counted)))
    result = await lake.maintain("compaction")
    assert result.status == COMPLETED, result.problem or result.reason
    assert result.metrics["row_groups_copied"] == (1 if deletes else 2)
    assert lake.sql("SELECT count(*) AS n FROM lake.ns.t.files")[0]["n"] == 1
    assert lake.rows() == rows
    assert Rows(map(repr, lake.sql(counted))) == passing
    # positions of copied rows are counted as Java counts them
    lake.sql("DELETE FROM lake.ns.t WHERE id % 1000 = 1")
    assert lake.sql("SELECT count(*) AS n FROM lake.ns.t.delete_files")[0]["n"] == 1
    assert lake.rows().total() == rows.total() - 5
    assert lake.sql("SELECT id FROM lake.ns.t WHERE id IN (1001, 1002)") == [{"id": 1002}]
