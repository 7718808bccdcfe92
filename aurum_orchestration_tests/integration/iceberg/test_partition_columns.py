"""Files that lack the columns their partition tells, as in tables that came from Hive: the values survive."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.table import Table
from pyiceberg.transforms import BucketTransform, IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import (
    BooleanType,
    DateType,
    DecimalType,
    LongType,
    NestedField,
    StringType,
    StructType,
    TimestamptzType,
)

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration_tests.iceberg_deletes import add_equality_deletes
from aurum_orchestration_tests.integration.iceberg.support import (
    append_stored,
    by_pyarrow,
    by_scan,
    compact,
    data_paths,
    fields,
    make_table,
    spec_of,
    stored_files,
)

SCHEMA = fields(
    id=LongType(),
    region=StringType(),
    day=DateType(),
    at=TimestamptzType(),
    price=DecimalType(9, 2),
    hot=BooleanType(),
)
DAY = (dt.date(1969, 3, 1) - dt.date(1970, 1, 1)).days
AT = -1_500_000
NORTH = Record("north", DAY, AT, Decimal("-1.25"), True)


def hive_table(catalog: SqlCatalog, files: int = 3) -> Table:
    """Partitioned by identity of every column but ``id``, which is all that the files hold."""
    table = make_table(
        catalog, SCHEMA, spec=spec_of(*((source, IdentityTransform(), f"p{source}") for source in range(2, 7)))
    )
    append_stored(table, [only_ids([number * 2, number * 2 + 1]) for number in range(files)], NORTH)
    return table.refresh()


def only_ids(values: list[int]) -> pa.Table:
    return pa.table({"id": values}, schema=pa.schema([schema_to_pyarrow(SCHEMA).field(0)]))


def expected(values: list[int]) -> list[dict[str, Any]]:
    at = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=AT)
    rest = {"region": "north", "day": dt.date(1969, 3, 1), "at": at, "price": Decimal("-1.25"), "hot": True}
    return [{"id": value, **rest} for value in values]


def test_values_of_the_partition_are_in_the_rewritten_file(catalog: SqlCatalog) -> None:
    table = hive_table(catalog)
    before = by_scan(table)
    assert sorted(table.scan().to_arrow().to_pylist(), key=lambda row: row["id"]) == expected(list(range(6)))
    compact(table)
    assert len(data_paths(table)) == 1
    assert by_pyarrow(table) == by_scan(table) == before


def test_a_file_that_has_the_column_keeps_its_own(catalog: SqlCatalog) -> None:
    table = hive_table(catalog, files=2)
    whole = pa.Table.from_pylist(expected([7, 8]), schema=schema_to_pyarrow(SCHEMA))
    append_stored(table, [whole], NORTH)
    table.refresh()
    compact(table)
    assert len(data_paths(table)) == 1
    assert sorted(table.scan().to_arrow().to_pylist(), key=lambda row: row["id"]) == expected([0, 1, 2, 3, 7, 8])


def test_sorting_keeps_them_too(catalog: SqlCatalog) -> None:
    table = hive_table(catalog)
    compact(table, strategy="sort", sort_columns="id desc")
    assert table.scan().to_arrow().to_pylist() == expected([5, 4, 3, 2, 1, 0])


def test_an_equality_delete_by_such_a_column_finds_its_rows(catalog: SqlCatalog) -> None:
    table = hive_table(catalog)
    keys = pa.table({"id": [3, 4], "region": ["north", "south"]})
    add_equality_deletes(table, keys, ["id", "region"], partition=NORTH)
    table.refresh()
    compact(table)
    assert sorted(row["id"] for row in table.scan().to_arrow().to_pylist()) == [0, 1, 2, 4, 5]


def test_rows_of_an_older_spec_go_on_with_them(catalog: SqlCatalog) -> None:
    table = hive_table(catalog)
    with table.update_spec() as update:
        for number in range(2, 7):
            update.remove_field(f"p{number}")
        update.add_field("id", BucketTransform(2), "spread")
    compact(table.refresh(), old_specs="all")
    assert sorted(table.scan().to_arrow().to_pylist(), key=lambda row: row["id"]) == expected(list(range(6)))
    assert by_pyarrow(table) == by_scan(table)


def test_a_field_inside_a_column_that_only_the_partition_tells_is_refused(catalog: SqlCatalog) -> None:
    place = StructType(
        NestedField(3, "hub", StringType(), required=False), NestedField(4, "x", LongType(), required=False)
    )
    schema = fields(id=LongType(), place=place)
    table = make_table(catalog, schema, spec=spec_of((3, IdentityTransform(), "hub")))
    target = schema_to_pyarrow(table.schema())
    struct = pa.struct([target.field(1).type.field(1)])
    stored = pa.schema([target.field(0), target.field(1).with_type(struct)])
    rows = pa.table({"id": [1], "place": [{"x": 1}]}, schema=stored)
    append_stored(table, [rows, rows], Record("north"))
    before = stored_files(table.refresh())
    with pytest.raises(UnsupportedError, match="only its partition tells"):
        compact(table)
    assert stored_files(table) == before
