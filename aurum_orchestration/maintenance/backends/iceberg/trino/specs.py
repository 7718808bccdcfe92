"""Trino's columns and partitioning as PyIceberg's schema and spec, so that the same rules serve both engines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
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
    NestedField,
    StringType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)
from pyiceberg.utils.datetime import date_to_days, datetime_to_micros

from aurum_orchestration.maintenance.backends.iceberg.trino.layout import Field, Layout

_PLAIN: dict[str, IcebergType] = {
    "boolean": BooleanType(),
    "integer": IntegerType(),
    "bigint": LongType(),
    "real": FloatType(),
    "double": DoubleType(),
    "varchar": StringType(),
    "varbinary": BinaryType(),
    "uuid": UUIDType(),
    "date": DateType(),
    "time(6)": TimeType(),
    "timestamp(6)": TimestampType(),
    "timestamp(6) with time zone": TimestamptzType(),
}
_DECIMAL = re.compile(r"decimal\((\d+),\s*(\d+)\)")


def schema_of(columns: Sequence[tuple[str, str]]) -> Schema:
    """The columns that a table can be partitioned by, numbered from 1; not the ids that the table has."""
    typed = [(name, _type(kind)) for name, kind in columns]
    return Schema(
        *(
            NestedField(number, name, kind, required=False)
            for number, (name, kind) in enumerate(typed, 1)
            if kind is not None
        )
    )


def _type(kind: str) -> IcebergType | None:
    if match := _DECIMAL.fullmatch(kind):
        return DecimalType(int(match[1]), int(match[2]))
    return _PLAIN.get(kind)


def spec_of(layout: Layout, schema: Schema) -> PartitionSpec:
    """The partition spec; each field is named by Trino's text for it. Raises ValueError for an unknown column."""
    return PartitionSpec(
        *(
            PartitionField(
                schema.find_field(field.column).field_id, 1000 + number, parse_transform(_iceberg(field)), field.text
            )
            for number, field in enumerate(layout.fields)
        )
    )


def _iceberg(field: Field) -> str:
    return field.transform if field.size is None else f"{field.transform}[{field.size}]"


def internal(value: Any) -> Any:
    """A partition value as PyIceberg compares it: days and microseconds since 1970 for dates and times."""
    if isinstance(value, datetime):
        return datetime_to_micros(value)
    return date_to_days(value) if isinstance(value, date) else value
