"""Compaction keeps rows: every type, nulls at every level, stored in every way that files stand in."""

from __future__ import annotations

import struct
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration_tests.integration.iceberg.support import (
    Rows,
    append,
    append_stored,
    bag,
    by_pyarrow,
    compact,
    data_paths,
    fields,
    judge,
    make_table,
    stored_files,
    typed,
)

EVERY_TYPE = Schema(
    NestedField(1, "flag", BooleanType()),
    NestedField(2, "int", IntegerType()),
    NestedField(3, "long", LongType()),
    NestedField(4, "float", FloatType()),
    NestedField(5, "double", DoubleType()),
    NestedField(6, "small", DecimalType(9, 2)),
    NestedField(7, "middle", DecimalType(18, 4)),
    NestedField(8, "wide", DecimalType(38, 10)),
    NestedField(9, "date", DateType()),
    NestedField(10, "time", TimeType()),
    NestedField(11, "ts", TimestampType()),
    NestedField(12, "tstz", TimestamptzType()),
    NestedField(13, "string", StringType()),
    NestedField(14, "uuid", UUIDType()),
    NestedField(15, "fixed", FixedType(5)),
    NestedField(16, "binary", BinaryType()),
    NestedField(17, "list", ListType(18, StringType(), element_required=False)),
    NestedField(19, "map", MapType(20, StringType(), 21, DoubleType(), value_required=False)),
    NestedField(
        22,
        "struct",
        StructType(
            NestedField(23, "a", IntegerType()),
            NestedField(
                24,
                "structs",
                ListType(25, StructType(NestedField(26, "x", StringType())), element_required=False),
            ),
        ),
    ),
    NestedField(
        27,
        "deep",
        MapType(
            28,
            IntegerType(),
            29,
            ListType(30, MapType(31, StringType(), 32, FixedType(3), value_required=False), element_required=False),
            value_required=False,
        ),
    ),
)

FULL = {
    "flag": True,
    "int": -(2**31),
    "long": 2**63 - 1,
    "float": -0.0,
    "double": float("nan"),
    "small": Decimal("-1234567.89"),
    "middle": Decimal("12345678901234.5678"),
    "wide": Decimal("-1234567890123456789012345678.0123456789"),
    "date": date(1, 1, 1),
    "time": time(23, 59, 59, 999999),
    "ts": datetime(1900, 1, 1, 1, 2, 3, 4),  # noqa: DTZ001
    "tstz": datetime(9999, 12, 31, tzinfo=UTC),
    "string": "é" * 30,
    "uuid": UUID(int=2**127 + 1).bytes,
    "fixed": b"\0\1\2\3\xff",
    "binary": b"\xff" * 20,
    "list": ["a", None, ""],
    "map": [("k", 1.5), ("", None)],
    "struct": {"a": 1, "structs": [{"x": "y"}, None, {"x": None}]},
    "deep": [(1, [[("u", b"abc"), ("n", None)], None, []]), (2, None), (3, [])],
}
NOTHING: dict[str, Any] = dict.fromkeys(FULL)
EMPTY = {**FULL, "string": "", "binary": b"", "list": [], "map": [], "struct": {"a": None, "structs": []}, "deep": []}
HALF = {
    **NOTHING,
    "double": -0.0,
    "struct": {"a": None, "structs": None},
    "list": [None],
    "deep": [(0, [None])],
}


def column_kinds(table: Table) -> list[Any]:
    with duckdb.connect() as connection:
        found = connection.sql("describe from read_parquet($paths)", params={"paths": data_paths(table)}).fetchall()
        return [row[:2] for row in found]


@pytest.mark.parametrize("version", ["1", "2"])
def test_rows_of_every_type_are_kept_and_stored_as_pyiceberg_would(catalog: SqlCatalog, version: str) -> None:
    table = make_table(catalog, EVERY_TYPE, {"format-version": version})
    append(table, [FULL, NOTHING], [EMPTY], [NOTHING] * 3, [], [HALF, FULL, EMPTY])
    before, kinds = judge(table), column_kinds(table)
    assert compact(table).metrics["files_added"] == 1
    assert judge(table) == before
    assert column_kinds(table) == kinds
    (path,) = data_paths(table)
    written = pq.ParquetFile(path)
    reference = make_table(catalog, EVERY_TYPE, name="ns.reference")
    reference.append(typed(reference, [FULL]))
    (by_pyiceberg,) = data_paths(reference)
    assert str(written.schema).splitlines()[1:] == str(pq.ParquetFile(by_pyiceberg).schema).splitlines()[1:]


def test_every_bit_of_a_float_is_kept(catalog: SqlCatalog) -> None:
    doubles = [0x7FF8000000000000, 0x7FF8000000000001, 0xFFF8000000000000, 0x7FF0000000000001, 1 << 63, 0, 1]
    floats = [0x7FC00000, 0x7FC00001, 0xFFC00000, 0x7F800001, 1 << 31, 0, 1]
    table = make_table(catalog, fields(d=DoubleType(), f=FloatType(), n=ListType(9, DoubleType(), False)))
    columns = {"d": np.array(doubles, np.uint64).view(float), "f": np.array(floats, np.uint32).view(np.float32)}
    for _ in range(2):
        lists = pa.ListArray.from_arrays(list(range(8)), pa.array(columns["d"]))
        append(table, pa.table({**columns, "n": lists}))
    compact(table)
    (path,) = data_paths(table)
    back = pq.read_table(path)
    for name, expected, kind in (("d", doubles, "<Q"), ("f", floats, "<I")):
        raw = back.column(name).combine_chunks().to_numpy().tobytes()
        assert sorted(value for (value,) in struct.iter_unpack(kind, raw)) == sorted(expected * 2)
    inside = back.column("n").combine_chunks().flatten().to_numpy().tobytes()
    assert sorted(value for (value,) in struct.iter_unpack("<Q", inside)) == sorted(doubles * 2)


def test_required_fields_stay_required(catalog: SqlCatalog) -> None:
    inner = StructType(NestedField(3, "x", LongType(), required=True), NestedField(4, "y", StringType()))
    schema = Schema(
        NestedField(1, "id", LongType(), required=True),
        NestedField(2, "s", inner),
        NestedField(5, "l", ListType(6, LongType(), element_required=True), required=True),
        NestedField(7, "m", MapType(8, StringType(), 9, LongType(), value_required=True)),
    )
    table = make_table(catalog, schema)
    rows = [
        {"id": 1, "s": {"x": 1, "y": None}, "l": [1, 2], "m": [("a", 1)]},
        {"id": 2, "s": None, "l": [], "m": None},
    ]
    append(table, rows, rows)
    before = judge(table)
    compact(table)
    assert judge(table) == before
    (path,) = data_paths(table)
    stored = pq.read_schema(path)
    assert [field.nullable for field in stored] == [False, True, False, True]
    assert [field.nullable for field in stored.field("s").type] == [False, True]
    assert not stored.field("l").type.value_field.nullable
    assert not stored.field("m").type.item_field.nullable


@pytest.mark.parametrize("row_group_rows", [700, 100_000])
def test_files_larger_than_a_row_group_are_read_in_batches(catalog: SqlCatalog, row_group_rows: int) -> None:
    """Several row groups, dictionaries that change between them, nested columns cut anywhere."""
    schema = fields(
        id=LongType(),
        word=StringType(),
        tags=ListType(10, StringType(), False),
        pairs=MapType(11, StringType(), 12, IntegerType(), False),
        one=StructType(NestedField(13, "x", StringType())),
    )
    table = make_table(catalog, schema, {"write.parquet.row-group-size-bytes": "40000"})

    def rows(count: int, first: int) -> dict[str, Any]:
        ids = range(first, first + count)
        return {
            "id": ids,
            "word": [None if id_ % 11 == 0 else f"word-{id_ // 900 * 7 + id_ % 5}" for id_ in ids],
            "tags": [None if id_ % 7 == 0 else [f"t{id_ % 3}"] * (id_ % 4) for id_ in ids],
            "pairs": [None if id_ % 5 == 0 else [(f"k{id_}", None)] * (id_ % 2) for id_ in ids],
            "one": [None if id_ % 3 == 0 else {"x": str(id_ % 2)} for id_ in ids],
        }

    append(table, rows(5_000, 0), rows(10, 5_000), rows(2_500, 6_000), row_group_size=row_group_rows)
    before = judge(table)
    compact(table)
    assert judge(table) == before
    (path,) = data_paths(table)
    groups = pq.ParquetFile(path).metadata
    assert groups.num_row_groups > 5
    assert max(groups.row_group(index).num_rows for index in range(groups.num_row_groups)) < 2_000


def column(kind: pa.DataType, values: Any) -> pa.Table:
    return pa.table([pa.array(values, kind)], schema=pa.schema([identified("a", kind, 1)]))


def identified(name: str, kind: pa.DataType, identity: int) -> pa.Field:
    return pa.field(name, kind, metadata={"PARQUET:field_id": str(identity)})


_ELEMENT = identified("element", pa.int32(), 2)
_PAIRS = [[1, None], None, [3, 4]]
_STORED = {
    "texts": (
        StringType(),
        [
            column(kind, ["a", "b", None])
            for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()))
        ],
    ),
    "texts first stored as bytes": (
        StringType(),
        [column(pa.binary(), [b"a", None] * 100), column(pa.string(), ["a", None] * 100)],
    ),
    "bytes stored as texts": (BinaryType(), [column(pa.string(), ["a", None] * 100)] * 2),
    "narrow integers": (
        LongType(),
        [
            column(kind, [1, 100, None])
            for kind in (pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint16(), pa.uint32(), pa.int64())
        ],
    ),
    "float for double": (DoubleType(), [column(pa.float32(), [1.5, None]), column(pa.float64(), [0.1])]),
    "narrow decimals": (
        DecimalType(18, 2),
        [
            column(kind, [Decimal("-1.25"), None])
            for kind in (pa.decimal128(5, 2), pa.decimal32(9, 2), pa.decimal64(18, 2), pa.decimal128(18, 2))
        ],
    ),
    "another zone": (TimestamptzType(), [column(pa.timestamp("us", zone), [1, -1]) for zone in ("UTC", "Asia/Tokyo")]),
    "all null": (IntegerType(), [column(pa.null(), [None, None]), column(pa.int32(), [1])]),
    "uuid as bytes": (UUIDType(), [column(pa.binary(16), [b"0123456789abcdef", None])] * 2),
    "lists of any kind": (
        ListType(2, IntegerType(), False),
        [column(kind, _PAIRS) for kind in (pa.list_(_ELEMENT), pa.large_list(_ELEMENT), pa.list_(_ELEMENT, 2))],
    ),
    "lists of any kind, promoted": (
        ListType(2, LongType(), False),
        [column(kind, _PAIRS) for kind in (pa.list_(_ELEMENT), pa.large_list(_ELEMENT), pa.list_(_ELEMENT, 2))],
    ),
}


@pytest.mark.parametrize(("kind", "parts"), [pytest.param(*case, id=name) for name, case in _STORED.items()])
def test_what_other_writers_store_comes_out_in_the_tables_type(
    catalog: SqlCatalog, kind: IcebergType, parts: list[pa.Table]
) -> None:
    table = make_table(catalog, fields(a=kind))
    append_stored(table, parts, store_decimal_as_integer=True)
    target = schema_to_pyarrow(table.schema())
    expected: Rows = bag(pa.concat_tables([_cast(part, target) for part in parts]))
    compact(table)
    assert by_pyarrow(table) == expected
    (path,) = data_paths(table)
    plain = make_table(catalog, fields(a=kind), name="ns.plain")
    plain.append(_cast(parts[-1], target))
    assert (
        str(pq.ParquetFile(path).schema).splitlines()[1:]
        == str(pq.ParquetFile(data_paths(plain)[0]).schema).splitlines()[1:]
    )


def test_uuids_in_structs_become_uuids(catalog: SqlCatalog) -> None:
    table = make_table(catalog, fields(a=StructType(NestedField(2, "u", UUIDType()))))
    kind = pa.struct([identified("u", pa.binary(16), 2)])
    append_stored(table, [column(kind, [{"u": UUID(int=7).bytes}, {"u": None}, None])] * 2)
    compact(table)
    assert by_pyarrow(table) == bag(pa.table({"a": []})) + Rows(
        {repr({"a": {"u": UUID(int=7)}}): 2, repr({"a": {"u": None}}): 2, repr({"a": None}): 2}
    )


def _cast(part: pa.Table, target: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(part.to_pylist(), schema=target)


def test_int96_timestamps_are_read_beyond_the_range_of_nanoseconds(catalog: SqlCatalog) -> None:
    table = make_table(catalog, fields(a=TimestampType()))
    part = column(pa.timestamp("us"), [1, -(2**53), 2**55, None])
    append_stored(table, [part, part], use_deprecated_int96_timestamps=True)
    compact(table)
    assert by_pyarrow(table) == bag(pa.concat_tables([part, part]))


_UNREADABLE = {
    "no number of the type": (LongType(), column(pa.uint64(), [2**63]), "stores uint64 where the table has int64"),
    "wider integers": (IntegerType(), column(pa.int64(), [2**40]), "stores int64 where the table has int32"),
    "doubles for floats": (FloatType(), column(pa.float64(), [0.5]), "stores double where the table has float"),
    "another unit": (TimestampType(), column(pa.timestamp("ms"), [1]), r"stores timestamp\[ms\] where"),
    "another scale": (DecimalType(9, 2), column(pa.decimal128(9, 3), [Decimal("1.250")]), r"decimal128\(9, 3\) where"),
    "no text": (StringType(), column(pa.binary(), [b"\xff", b"\xff"]), "stores binary where the table has string"),
    "a column without an id": (LongType(), pa.table({"a": [1]}), "column 'a' of a data file has no field id"),
    "a field without an id": (
        StructType(NestedField(2, "x", LongType())),
        column(pa.struct({"x": pa.int64()}), [{"x": 1}]),
        "column 'a.x' of a data file has no field id",
    ),
    "a field without an id in a list": (
        ListType(2, StructType(NestedField(3, "x", LongType())), False),
        column(pa.list_(pa.struct({"x": pa.int64()})), [[{"x": 1}]]),
        "column 'a.x' of a data file has no field id",
    ),
}


@pytest.mark.parametrize(
    ("kind", "part", "reason"), [pytest.param(*case, id=name) for name, case in _UNREADABLE.items()]
)
def test_files_that_cannot_be_read_for_sure_are_refused_and_nothing_is_left(
    catalog: SqlCatalog, kind: IcebergType, part: pa.Table, reason: str
) -> None:
    table = make_table(catalog, fields(a=kind))
    append_stored(table, [part, part])
    before, snapshot = stored_files(table), table.metadata.current_snapshot_id
    with pytest.raises(UnsupportedError, match=reason):
        compact(table)
    assert stored_files(table) == before
    assert catalog.load_table("ns.t").metadata.current_snapshot_id == snapshot


@pytest.mark.parametrize("encoding", ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
@pytest.mark.parametrize("how", [{}, {"strategy": "sort", "sort_columns": "id desc"}])
def test_texts_that_cannot_be_read_as_a_dictionary(catalog: SqlCatalog, how: dict[str, Any], encoding: str) -> None:
    """As newer versions of Trino write them, beside files whose texts repeat and are kept encoded."""
    table = make_table(catalog, fields(id=LongType(), word=StringType(), place=StringType()))

    def rows(first: int) -> dict[str, Any]:
        ids = range(first, first + 2_000)
        return {"id": ids, "word": [f"word-{id_ % 5}" for id_ in ids], "place": [f"at-{id_ % 3}" for id_ in ids]}

    append(table, rows(0), rows(2_000))
    append(table, rows(4_000), use_dictionary=["place"], column_encoding={"word": encoding})
    before = judge(table)
    assert compact(table, **how).metrics["files_added"] == 1
    assert judge(table) == before
