"""What Trino would tell of a table, told by the catalog without a statement: columns, layout, partitions.

Only what Trino says in the same words; None where it might say something else, and then Trino is asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from pyiceberg.transforms import parse_transform
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    LongType,
    StringType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from aurum_orchestration.maintenance.backends.iceberg.compact.state import TableState, partitions_of, read_state
from aurum_orchestration.maintenance.backends.iceberg.entries import EntryReader
from aurum_orchestration.maintenance.backends.iceberg.trino.layout import Field, Layout
from aurum_orchestration.maintenance.backends.iceberg.trino.partitions import Partition

if TYPE_CHECKING:
    from pyiceberg.manifest import ManifestEntry
    from pyiceberg.table import Table

_KINDS: dict[type[IcebergType], str] = {
    BooleanType: "boolean",
    IntegerType: "integer",
    LongType: "bigint",
    FloatType: "real",
    DoubleType: "double",
    StringType: "varchar",
    BinaryType: "varbinary",
    UUIDType: "uuid",
    DateType: "date",
    TimeType: "time(6)",
    TimestampType: "timestamp(6)",
    TimestamptzType: "timestamp(6) with time zone",
}
_VALUES = (BooleanType, IntegerType, LongType, StringType, DateType)
"""Types whose values a manifest has as Trino tells them, dates as their number."""

_TRANSFORM = re.compile(r"(?P<name>[a-z]+)(?:\[(?P<size>\d+)\])?")
_EPOCH = date(1970, 1, 1)


def columns_of(table: Table) -> list[tuple[str, str]] | None:
    """Names and Trino types of the columns, None with one of a type that has parts."""
    found = [(field.name.lower(), _kind(field.field_type)) for field in table.schema().fields]
    return [(name, kind) for name, kind in found if kind] if all(kind for _, kind in found) else None


def _kind(type_: IcebergType) -> str | None:
    if isinstance(type_, DecimalType):
        return f"decimal({type_.precision},{type_.scale})"
    return _KINDS.get(type(type_))


def layout_of(table: Table) -> Layout | None:
    """The layout of a table that has had one partition spec only, no sort order, and partition values to be told."""
    metadata = table.metadata
    spec, schema = table.spec(), table.schema()
    if len(metadata.partition_specs) > 1 or not table.sort_order().is_unsorted:
        return None
    fields = []
    for field in spec.fields:
        name, match = schema.find_column_name(field.source_id), _TRANSFORM.fullmatch(str(field.transform))
        if match is None or match["name"] == "void" or name is None or "." in name:
            return None
        if {name, field.name} != {name.lower(), field.name.lower()}:  # Trino folds some of these names and not others
            return None
        if not isinstance(field.transform.result_type(schema.find_type(field.source_id)), _VALUES):
            return None
        size = int(match["size"]) if match["size"] else None
        fields.append(Field(f"{match['name']}({name})", name, match["name"], size))
    return Layout(tuple(fields), ())


def partitions(table: Table, small_bytes: int) -> list[Partition]:
    """The partitions with live files of a table that :func:`layout_of` is known of, as ``read_partitions`` has them."""
    state = read_state(table, EntryReader(table.io))
    data, deletes = partitions_of(state.data), partitions_of(state.deletes)
    found = [_partition(state, data.get(key, []), deletes.get(key, []), small_bytes) for key in data | deletes]
    return sorted(found, key=lambda one: (one.spec_id, one.text))


def _partition(
    state: TableState, data: Sequence[ManifestEntry], deletes: Sequence[ManifestEntry], small_bytes: int
) -> Partition:
    one = (data or deletes)[0].data_file
    fields, schema = state.spec.fields, state.table.schema()
    types = [parse_transform(str(it.transform)).result_type(schema.find_type(it.source_id)) for it in fields]
    small = [it.data_file for it in data if it.data_file.file_size_in_bytes < small_bytes]
    return Partition(
        spec_id=one.spec_id,
        values=tuple(_value(one.partition[number], type_) for number, type_ in enumerate(types)),
        names=tuple(it.name for it in fields),
        files=len(data),
        bytes=sum(it.data_file.file_size_in_bytes for it in data),
        rows=sum(it.data_file.record_count for it in data),
        small=tuple(sorted(it.file_path for it in small)),
        small_bytes=sum(it.file_size_in_bytes for it in small),
        deletes=len(deletes),
        delete_rows=sum(it.data_file.record_count for it in deletes),
    )


def _value(value: Any, type_: IcebergType) -> Any:
    return _EPOCH + timedelta(days=value) if isinstance(type_, DateType) and isinstance(value, int) else value
