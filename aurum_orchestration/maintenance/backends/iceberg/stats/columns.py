"""What manifests say about columns, added up over the live data files."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BinaryType,
    DateType,
    DoubleType,
    FixedType,
    FloatType,
    IntegerType,
    LongType,
    PrimitiveType,
    StringType,
    TimestampType,
    TimestamptzType,
    TimeType,
)
from pyiceberg.utils.datetime import days_to_date, micros_to_time, micros_to_timestamp, micros_to_timestamptz


@dataclass
class Column:
    """One primitive column. Counts are None as long as no file has told them; ``files`` counts those that have."""

    name: str
    kind: PrimitiveType
    bytes: int = 0
    values: int = 0
    nulls: int = 0
    nans: int = 0
    counted_files: int = 0
    bounded_files: int = 0
    low: Any = None
    high: Any = None

    def add(self, file: DataFile, id_: int) -> None:
        """Count a file in."""
        self.bytes += (file.column_sizes or {}).get(id_, 0)
        nulls, values = (file.null_value_counts or {}).get(id_), (file.value_counts or {}).get(id_)
        if nulls is not None and values is not None:
            self.counted_files += 1
            self.nulls += nulls
            self.values += values
        self.nans += (file.nan_value_counts or {}).get(id_, 0)
        low, high = (_bound(bounds, id_, self.kind) for bounds in (file.lower_bounds, file.upper_bounds))
        if low is not None and high is not None:
            self.bounded_files += 1
            self.low = low if self.low is None else min(self.low, low)
            self.high = high if self.high is None else max(self.high, high)
        elif nulls is not None and nulls == values:
            self.bounded_files += 1  # nothing but nulls has no bounds

    def report(self, files: int) -> dict[str, Any]:
        """As plain data. Bounds of text and bytes may be cut short by the writer: they enclose, no more."""
        cut = isinstance(self.kind, (StringType, BinaryType, FixedType))
        complete = self.counted_files == files
        return {
            "type": str(self.kind),
            "bytes": self.bytes,
            "values": self.values if complete else None,
            "nulls": self.nulls if complete else None,
            "nans": self.nans,
            "min": _plain(self.low, self.kind) if self.bounded_files == files else None,
            "max": _plain(self.high, self.kind) if self.bounded_files == files else None,
            "bounds": "enclose" if cut else "exact",
            "files_without_counts": files - self.counted_files,
            "files_without_bounds": files - self.bounded_files,
        }


@dataclass
class Columns:
    """The primitive columns of a schema, nested ones under their dotted names."""

    by_id: dict[int, Column] = field(default_factory=dict)

    @classmethod
    def of(cls, schema: Schema, wanted: Iterable[str] = ()) -> Columns:
        """All columns, or the wanted ones with what is nested in them. Raises KeyError for an unknown name."""
        names = {id_: schema.find_column_name(id_) or "" for id_ in schema.field_ids}
        chosen = list(wanted)
        for name in chosen:
            if name not in names.values():
                raise KeyError(name)
        found: dict[int, Column] = {}
        for id_, name in sorted(names.items()):
            kind = schema.find_type(id_)
            asked = not chosen or any(name == one or name.startswith(f"{one}.") for one in chosen)
            if asked and isinstance(kind, PrimitiveType):
                found[id_] = Column(name, kind)
        return cls(found)

    def add(self, file: DataFile) -> None:
        """Count a file in."""
        for id_, column in self.by_id.items():
            column.add(file, id_)


def _bound(bounds: Mapping[int, bytes] | None, id_: int, kind: PrimitiveType) -> Any:
    """A bound in the column's type; files written before a promotion have it in the narrower one."""
    value = (bounds or {}).get(id_)
    if value is None:
        return None
    narrow = {LongType: IntegerType, DoubleType: FloatType}.get(type(kind))
    try:
        return from_bytes(narrow() if narrow is not None and len(value) == 4 else kind, value)
    except (ValueError, TypeError, ArithmeticError):
        return None


def _plain(value: Any, kind: PrimitiveType) -> Any:
    """A bound as JSON has it: numbers as numbers, everything else as text that people read."""
    if isinstance(value, int) and not isinstance(value, bool):
        made: Any = value
        if isinstance(kind, DateType):
            made = days_to_date(value)
        elif isinstance(kind, TimeType):
            made = micros_to_time(value)
        elif isinstance(kind, TimestampType):
            made = micros_to_timestamp(value)
        elif isinstance(kind, TimestamptzType):
            made = micros_to_timestamptz(value)
        value = made
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, Decimal | uuid.UUID) else value
