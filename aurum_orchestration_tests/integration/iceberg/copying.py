"""What the tests of row-group copy share: Parquet files by several writers, a rewrite of them, their bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
)

from aurum_orchestration.maintenance.backends.iceberg.arrow_types import arrow_schema
from aurum_orchestration.maintenance.backends.iceberg.compact.copy import CopyingRewrite
from aurum_orchestration.maintenance.backends.iceberg.compact.footer import (
    FileMeta,
    Footer,
    OpenSource,
    footer_bytes,
    read_footer,
)
from aurum_orchestration.maintenance.backends.iceberg.compact.rewrite import Source
from aurum_orchestration.maintenance.backends.iceberg.compact.thrift_tree import Struct
from aurum_orchestration.maintenance.backends.iceberg.compact.writer import WriteOptions
from aurum_orchestration.maintenance.interfaces import RunContext

MIB = 1024 * 1024
SCHEMA = Schema(
    NestedField(1, "id", LongType(), required=False),
    NestedField(2, "name", StringType(), required=False),
    NestedField(3, "price", DoubleType(), required=False),
    NestedField(4, "amount", DecimalType(12, 2), required=False),
    NestedField(5, "day", DateType(), required=False),
    NestedField(6, "moment", TimestampType(), required=False),
    NestedField(7, "moment_utc", TimestamptzType(), required=False),
    NestedField(8, "ok", BooleanType(), required=False),
    NestedField(9, "tags", ListType(10, StringType(), element_required=False), required=False),
    NestedField(
        11,
        "place",
        StructType(
            NestedField(12, "zip", IntegerType(), required=False), NestedField(13, "city", StringType(), required=False)
        ),
        required=False,
    ),
    NestedField(14, "counts", MapType(15, StringType(), 16, LongType(), value_required=False), required=False),
)
ARROW = arrow_schema(SCHEMA)
WITHOUT_MAPS = pa.schema([field for field in ARROW if not pa.types.is_map(field.type)])
FIELD_IDS = """{id: 1, name: 2, price: 3, amount: 4, day: 5, moment: 6, moment_utc: 7, ok: 8,
tags: {__duckdb_field_id: 9, element: 10}, place: {__duckdb_field_id: 11, zip: 12, city: 13},
counts: {__duckdb_field_id: 14, key: 15, value: 16}}"""

HEALTHY = 100
"""From so many rows on a row group is copied under :func:`options`."""


def rows(first: int, count: int) -> pa.Table:
    """Rows of every kind, some of the values null."""
    return pa.Table.from_pylist(
        [
            {
                "id": number,
                "name": None if number % 7 == 0 else f"name-{number % 11}",
                "price": number / 3 if number % 5 else -0.0,
                "amount": None if number % 8 == 0 else Decimal(number) / 4,
                "day": date(2026, 1, 1) + timedelta(days=number % 40),
                "moment": None if number % 3 == 0 else datetime(2026, 1, 1) + timedelta(microseconds=number),  # noqa: DTZ001
                "moment_utc": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number),
                "ok": number % 2 == 0,
                "tags": None if number % 4 == 0 else [f"t{tag}" if tag % 3 else None for tag in range(number % 4)],
                "place": None if number % 6 == 0 else {"zip": number, "city": f"c{number % 3}"},
                "counts": None if number % 9 == 0 else [(f"k{key}", key) for key in range(number % 3)],
            }
            for number in range(first, first + count)
        ],
        schema=ARROW,
    )


def by_pyarrow(path: Path, table: pa.Table, **options: Any) -> None:
    given = {"compression": "zstd", "store_schema": False, "store_decimal_as_integer": True, **options}
    pq.write_table(table, path, **given)


def by_duckdb(path: Path, table: pa.Table) -> None:
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        connection.register("given", table)
        connection.execute(
            f"copy given to '{path}' (format parquet, compression zstd, field_ids {FIELD_IDS}, row_group_size 2048)"
        )


def by_polars(path: Path, table: pa.Table) -> None:
    """Without maps, which polars has not."""
    table = table.select([field.name for field in table.schema if not pa.types.is_map(field.type)])
    large = pa.schema([_large(field) for field in table.schema])
    pl.DataFrame(pl.from_arrow(table)).lazy().sink_parquet(path, compression="zstd", arrow_schema=large)


def _large(field: pa.Field) -> pa.Field:
    kind = field.type
    if pa.types.is_string(kind):
        return field.with_type(pa.large_string())
    if pa.types.is_list(kind):
        return field.with_type(pa.large_list(_large(kind.value_field)))
    if pa.types.is_struct(kind):
        return field.with_type(pa.struct([_large(inner) for inner in kind]))
    return field


def options(**given: Any) -> WriteOptions:
    """Options under which a row group of 100 rows is healthy; the target is 64 MiB."""
    made = WriteOptions.of({"write.parquet.compression-codec": "zstd"}, 64 * MIB, SCHEMA)
    return replace(made, **{"row_group_rows": 5 * HEALTHY, **given})


def rewrite_of(folder: Path, paths: Sequence[Path], schema: pa.Schema = ARROW, **given: Any) -> CopyingRewrite:
    """A rewrite of files into ``folder``/out."""
    (folder / "out").mkdir(exist_ok=True)
    sources = [Source(str(path), path.stat().st_size, pq.read_metadata(path).num_rows) for path in paths]
    return CopyingRewrite(
        PyArrowFileIO(), sources, schema, options(**given), lambda name: str(folder / "out" / name), with_checksum=True
    )


def rewritten(folder: Path, paths: Sequence[Path], schema: pa.Schema = ARROW, **given: Any) -> CopyingRewrite:
    """A rewrite that was carried out and verified."""
    rewrite = rewrite_of(folder, paths, schema, **given)
    rewrite.run(RunContext("operation"))
    assert rewrite.read_back(RunContext("operation")) == rewrite.before
    return rewrite


def outputs(rewrite: CopyingRewrite) -> list[Path]:
    return [Path(file.location) for file in rewrite.files]


def footer_of(path: Path) -> Footer:
    with path.open("rb") as stream:
        return read_footer(OpenSource(stream, str(path)), path.stat().st_size)


def with_footer(path: Path, change: Callable[[Struct], None]) -> None:
    """Give a file another footer over the same bytes."""
    footer = footer_of(path)
    change(footer.tree)
    path.write_bytes(path.read_bytes()[: footer.begins] + footer_bytes(footer.tree))


def columns_of(tree: Struct, group: int = 0) -> list[Struct]:
    """The column chunks of a row group, as they stand in the tree."""
    chunks: list[Struct] = tree[FileMeta.ROW_GROUPS][1][1][group][1][1][1]
    return chunks


def bag(table: pa.Table) -> Counter[str]:
    """Rows as a multiset, values as Python writes them."""
    schema = pa.schema([ARROW.field(name) for name in ARROW.names if name in table.column_names])
    return Counter(map(repr, table.select(schema.names).cast(schema).to_pylist()))


def read_pyarrow(paths: Sequence[Path]) -> Counter[str]:
    return sum((bag(pq.ParquetFile(path).read()) for path in paths), Counter())


def read_duckdb(paths: Sequence[Path]) -> Counter[str]:
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        relation = connection.sql("from read_parquet($paths)", params={"paths": [str(path) for path in paths]})
        return bag(relation.to_arrow_table())


def read_polars(paths: Sequence[Path]) -> Counter[str]:
    return sum((bag(pl.read_parquet(path).to_arrow()) for path in paths), Counter())
