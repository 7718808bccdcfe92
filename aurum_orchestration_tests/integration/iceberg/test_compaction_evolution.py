"""Files of older schemas come out as a correct projection by field id gives them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.update.schema import UpdateSchema
from pyiceberg.types import (
    BinaryType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
)

from aurum_orchestration_tests.integration.iceberg.support import (
    append,
    bag,
    by_duckdb,
    by_pyarrow,
    compact,
    data_paths,
    make_table,
    plan_of,
    typed,
)

Rows = list[dict[str, Any]]
Change = Callable[[UpdateSchema], Any]

FLAT = Schema(
    NestedField(1, "i", IntegerType()),
    NestedField(2, "f", FloatType()),
    NestedField(3, "d", DecimalType(9, 2)),
    NestedField(4, "s", StringType()),
)
FLAT_ROWS: Rows = [
    {"i": -1, "f": 1.5, "d": Decimal("-1.25"), "s": "q"},
    {"i": None, "f": None, "d": None, "s": None},
]
PERSON = StructType(NestedField(2, "a", IntegerType()), NestedField(3, "b", StringType()))
NESTED = Schema(NestedField(1, "s", PERSON))
NESTED_ROWS: Rows = [{"s": {"a": 1, "b": "x"}}, {"s": None}, {"s": {"a": None, "b": None}}]
LISTS = Schema(
    NestedField(
        1,
        "l",
        ListType(2, StructType(NestedField(3, "a", IntegerType()), NestedField(4, "b", StringType())), False),
    ),
    NestedField(
        5,
        "m",
        MapType(
            6, StringType(), 7, StructType(NestedField(8, "a", FloatType()), NestedField(9, "b", StringType())), False
        ),
    ),
)
LISTS_ROWS: Rows = [
    {"l": [{"a": 1, "b": "x"}, None, {"a": None, "b": None}], "m": [("k", {"a": 1.5, "b": "x"}), ("n", None)]},
    {"l": None, "m": None},
    {"l": [], "m": []},
]


def flat(**changed: Any) -> Rows:
    """The flat rows with columns added, or dropped by ``...``."""
    rows = [{**row, **changed} for row in FLAT_ROWS]
    return [{name: value for name, value in row.items() if value is not ...} for row in rows]


def nested(*structs: dict[str, Any] | None) -> Rows:
    return [{"s": one} for one in structs]


_CASES: dict[str, tuple[Schema, Rows, list[Change], Rows, Rows]] = {
    "column added": (
        FLAT,
        FLAT_ROWS,
        [lambda update: update.add_column("n", StringType())],
        [{"i": 1, "n": "new"}],
        flat(n=None),
    ),
    "struct added": (
        FLAT,
        FLAT_ROWS,
        [lambda update: update.add_column("n", PERSON)],
        [{"i": 1, "n": {"a": 1, "b": None}}],
        flat(n=None),
    ),
    "column dropped": (FLAT, FLAT_ROWS, [lambda update: update.delete_column("i")], [{"s": "r"}], flat(i=...)),
    "column renamed": (
        FLAT,
        FLAT_ROWS,
        [lambda update: update.rename_column("s", "t")],
        [{"i": 1, "t": "new"}],
        [{**{name: value for name, value in row.items() if name != "s"}, "t": row["s"]} for row in FLAT_ROWS],
    ),
    "columns swap their names": (
        NESTED,
        NESTED_ROWS,
        [
            lambda update: update.rename_column(("s", "a"), "c"),
            lambda update: update.rename_column(("s", "b"), "a"),
            lambda update: update.rename_column(("s", "c"), "b"),
        ],
        nested({"a": "text", "b": 5}),
        nested({"a": "x", "b": 1}, None, {"a": None, "b": None}),
    ),
    "columns reordered": (FLAT, FLAT_ROWS, [lambda update: update.move_first("s")], [{"i": 3}], FLAT_ROWS),
    "name given to a new column": (
        FLAT,
        FLAT_ROWS,
        [lambda update: update.delete_column("s"), lambda update: update.add_column("s", StringType())],
        [{"s": "new"}],
        flat(s=None),
    ),
    "name of a text given to a number": (
        FLAT,
        [{"s": f"text-{number % 3}"} for number in range(2_000)],
        [lambda update: update.delete_column("s"), lambda update: update.add_column("s", LongType())],
        [{"s": number} for number in range(2_000)],
        [{"s": None}] * 2_000,
    ),
    "name of a number given to a text": (
        FLAT,
        FLAT_ROWS,
        [lambda update: update.delete_column("i"), lambda update: update.add_column("i", StringType())],
        [{"i": "text", "s": "q"}] * 50,
        flat(i=None),
    ),
    "types promoted": (
        FLAT,
        FLAT_ROWS,
        [
            lambda update: update.update_column("i", LongType()),
            lambda update: update.update_column("f", DoubleType()),
            lambda update: update.update_column("d", DecimalType(38, 2)),
        ],
        [{"i": 2**40, "f": 0.1, "d": Decimal("123456789012345678901234567890123456.78")}],
        FLAT_ROWS,
    ),
    "field added": (
        NESTED,
        NESTED_ROWS,
        [lambda update: update.add_column(("s", "c"), DateType())],
        nested({"a": 1, "b": "n", "c": None}),
        nested({"a": 1, "b": "x", "c": None}, None, {"a": None, "b": None, "c": None}),
    ),
    "field dropped": (
        NESTED,
        NESTED_ROWS,
        [lambda update: update.delete_column(("s", "a"))],
        nested({"b": "n"}),
        nested({"b": "x"}, None, {"b": None}),
    ),
    "field promoted": (
        NESTED,
        NESTED_ROWS,
        [lambda update: update.update_column(("s", "a"), LongType())],
        nested({"a": 2**40, "b": "n"}),
        NESTED_ROWS,
    ),
    "fields reordered": (
        NESTED,
        NESTED_ROWS,
        [lambda update: update.move_first(("s", "b"))],
        nested({"a": 9, "b": "n"}),
        NESTED_ROWS,
    ),
    "name given to a new field": (
        NESTED,
        NESTED_ROWS,
        [lambda update: update.delete_column(("s", "b")), lambda update: update.add_column(("s", "b"), StringType())],
        nested({"a": 9, "b": "new"}),
        nested({"a": 1, "b": None}, None, {"a": None, "b": None}),
    ),
    "all fields dropped but a new one": (
        NESTED,
        NESTED_ROWS,
        [
            lambda update: update.add_column(("s", "c"), BinaryType()),
            lambda update: (update.delete_column(("s", "a")), update.delete_column(("s", "b"))),
        ],
        nested({"c": b"n"}),
        nested({"c": None}, None, {"c": None}),
    ),
    "fields in lists and maps": (
        LISTS,
        LISTS_ROWS,
        [
            lambda update: update.add_column(("l", "c"), LongType()),
            lambda update: update.delete_column(("l", "b")),
            lambda update: update.update_column(("m", "a"), DoubleType()),
            lambda update: update.rename_column(("m", "b"), "z"),
            lambda update: update.add_column(("m", "c"), StringType()),
        ],
        [{"l": [{"a": 1, "c": 3}], "m": [("k", {"a": 0.1, "z": "zz", "c": "cc"})]}],
        [
            {
                "l": [{"a": 1, "c": None}, None, {"a": None, "c": None}],
                "m": [("k", {"a": 1.5, "z": "x", "c": None}), ("n", None)],
            },
            {"l": None, "m": None},
            {"l": [], "m": []},
        ],
    ),
}


def evolve(table: Table, changes: Sequence[Change]) -> None:
    for change in changes:
        with table.update_schema(allow_incompatible_changes=True) as update:
            change(update)


@pytest.mark.parametrize(
    ("schema", "rows", "changes", "new_rows", "old_rows_now"),
    [pytest.param(*case, id=name) for name, case in _CASES.items()],
)
def test_files_of_an_older_schema(
    catalog: SqlCatalog, schema: Schema, rows: Rows, changes: list[Change], new_rows: Rows, old_rows_now: Rows
) -> None:
    table = make_table(catalog, schema)
    append(table, rows, rows)
    evolve(table, changes)
    table.refresh()
    append(table, new_rows)
    expected = bag(typed(table, [*old_rows_now, *old_rows_now, *new_rows]))
    assert compact(table).metrics["files_added"] == 1
    assert by_pyarrow(table) == expected
    assert by_duckdb(table) == expected
    assert plan_of(table).steps == []


def test_each_file_of_its_own_schema(catalog: SqlCatalog) -> None:
    """Files written between changes, large enough to be read in batches and nested throughout."""
    properties = {"write.parquet.row-group-size-bytes": "4000"}
    table = make_table(catalog, LISTS, properties)
    append(table, LISTS_ROWS * 200)
    evolve(table, [lambda update: update.add_column(("l", "c"), StringType())])
    append(table, [{"l": [{"a": number, "b": None, "c": str(number)}], "m": []} for number in range(400)])
    evolve(table, [lambda update: update.delete_column(("l", "b")), lambda update: update.rename_column("m", "n")])
    append(table, [{"l": [None, {"a": 1, "c": None}], "n": None}] * 300)
    compact(table)
    first = [
        {"l": [{"a": 1, "c": None}, None, {"a": None, "c": None}], "n": LISTS_ROWS[0]["m"]},
        {"l": None, "n": None},
        {"l": [], "n": []},
    ]
    second = [{"l": [{"a": number, "c": str(number)}], "n": []} for number in range(400)]
    expected = bag(typed(table, [*first * 200, *second, *[{"l": [None, {"a": 1, "c": None}], "n": None}] * 300]))
    assert by_pyarrow(table) == expected
    assert by_duckdb(table) == expected
    assert len(data_paths(table)) == 1
