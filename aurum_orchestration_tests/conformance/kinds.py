"""The kinds of Iceberg tables that every operation has to meet, each small, real and known row by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import BucketTransform, IdentityTransform
from pyiceberg.types import (
    DateType,
    DoubleType,
    IntegerType,
    ListType,
    LongType,
    NestedField,
    StringType,
    StructType,
)

from aurum_orchestration_tests.iceberg_deletes import add_equality_deletes, add_position_deletes, live_data_files
from aurum_orchestration_tests.integration.iceberg.support import (
    append,
    fields,
    make_table,
    spec_of,
)

FILES, ROWS = 12, 10
PLAIN = fields(id=LongType(), day=DateType(), hub=StringType(), price=DoubleType())


@dataclass(frozen=True)
class Kind:
    """A kind of table: how to make it, and ids of rows that are live in it."""

    name: str
    make: Callable[[Catalog, str], Table]
    live: frozenset[int] = frozenset(range(FILES * ROWS))


def rows(number: int, first: int = 0) -> list[dict[str, Any]]:
    """Ten rows of the ``number``-th file."""
    return [
        {
            "id": first + number * ROWS + position,
            "day": f"2026-01-{1 + number % 3:02d}",
            "hub": None if position % 5 == 0 else f"hub-{position % 3}",
            "price": float(position) if position else float("nan"),
        }
        for position in range(ROWS)
    ]


def _typed(table: Table, number: int) -> pa.Table:
    from datetime import date

    from pyiceberg.io.pyarrow import schema_to_pyarrow

    names = {field.name for field in table.schema().fields}
    found = [
        {key: date.fromisoformat(value) if key == "day" else value for key, value in row.items() if key in names}
        for row in rows(number)
    ]
    return pa.Table.from_pylist(found, schema=schema_to_pyarrow(table.schema()))


def _fill(table: Table, numbers: range = range(FILES)) -> Table:
    """A commit per file, as a streaming writer does; partitioned tables get one day a file."""
    for number in numbers:
        append(table, _typed(table, number))
    return table


def _plain(catalog: Catalog, name: str) -> Table:
    return _fill(make_table(catalog, PLAIN, name=name))


def _version_1(catalog: Catalog, name: str) -> Table:
    return _fill(make_table(catalog, PLAIN, {"format-version": "1"}, name=name))


def _partitioned(catalog: Catalog, name: str) -> Table:
    return _fill(make_table(catalog, PLAIN, spec=spec_of((2, IdentityTransform(), "day")), name=name))


def _empty(catalog: Catalog, name: str) -> Table:
    return make_table(catalog, PLAIN, name=name)


def _one_file(catalog: Catalog, name: str) -> Table:
    return _fill(make_table(catalog, PLAIN, name=name), range(1))


def _position_deletes(catalog: Catalog, name: str) -> Table:
    table = _plain(catalog, name)
    first = sorted(live_data_files(table), key=lambda file: file.lower_bounds[1])[0]
    add_position_deletes(table, {first.file_path: [0, 1, 2]})
    return table


def _equality_deletes(catalog: Catalog, name: str) -> Table:
    table = _plain(catalog, name)
    add_equality_deletes(table, pa.table({"id": pa.array([5, 6], pa.int64())}), ["id"])
    return table


def _evolved_schema(catalog: Catalog, name: str) -> Table:
    table = _fill(make_table(catalog, fields(id=IntegerType(), price=DoubleType()), name=name), range(FILES // 2))
    with table.update_schema() as update:
        update.update_column("id", LongType())
        update.rename_column("price", "value")
        update.add_column("note", StringType())
    return _fill(table, range(FILES // 2, FILES))


def _old_spec(catalog: Catalog, name: str) -> Table:
    table = _fill(make_table(catalog, PLAIN, name=name), range(FILES // 2))
    with table.update_spec() as update:
        update.add_field("day", IdentityTransform(), "day")
    return _fill(table, range(FILES // 2, FILES))


def _nested(catalog: Catalog, name: str) -> Table:
    inner = StructType(NestedField(12, "n", LongType(), required=False))
    schema = Schema(
        NestedField(1, "id", LongType(), required=False),
        NestedField(10, "points", ListType(11, inner, element_required=False), required=False),
    )
    table = make_table(catalog, schema, name=name)
    values: list[Any] = [None, [], [None], [{"n": None}], [{"n": 1}, {"n": 2}]]
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    for number in range(FILES):
        found = [{"id": number * ROWS + position, "points": values[position % 5]} for position in range(ROWS)]
        append(table, pa.Table.from_pylist(found, schema=schema_to_pyarrow(table.schema())))
    return table


def _with_refs(catalog: Catalog, name: str) -> Table:
    table = _fill(make_table(catalog, PLAIN, name=name), range(FILES // 2))
    first = table.metadata.current_snapshot_id
    assert first is not None
    table.manage_snapshots().create_tag(first, "half").create_branch(first, "audit").commit()
    return _fill(table, range(FILES // 2, FILES))


def _bucketed(catalog: Catalog, name: str) -> Table:
    spec: PartitionSpec = spec_of((3, BucketTransform(4), "hub_bucket"))
    table = make_table(catalog, PLAIN, spec=spec, name=name)
    for number in range(FILES):
        table.append(_typed(table, number))
    return table


KINDS = [
    Kind("plain", _plain),
    Kind("format version 1", _version_1),
    Kind("partitioned", _partitioned),
    Kind("bucketed", _bucketed),
    Kind("empty", _empty, frozenset()),
    Kind("one file", _one_file, frozenset(range(ROWS))),
    Kind("position deletes", _position_deletes, frozenset(range(FILES * ROWS)) - {0, 1, 2}),
    Kind("equality deletes", _equality_deletes, frozenset(range(FILES * ROWS)) - {5, 6}),
    Kind("evolved schema", _evolved_schema),
    Kind("old spec", _old_spec),
    Kind("nested", _nested),
    Kind("refs", _with_refs),
]
