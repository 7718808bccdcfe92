"""Which rows are old: those whose time lies before a moment, told in the numbers that files store.

What could delete a row too early, and what prevents it:

* a timestamp without zone is the wall time of some place: it is compared with the wall time there, in
  ``time_zone``. Where clocks go back, the earlier of two readings counts, so that a row is rather kept;
* a date is old when the whole day is past, in ``time_zone`` too;
* a moment that no file can express exactly: the cutoff is a full hour, which every unit has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.types import (
    DateType,
    IcebergType,
    IntegerType,
    LongType,
    TimestampNanoType,
    TimestampType,
    TimestamptzNanoType,
    TimestamptzType,
)

from aurum_orchestration.errors import RequestError, UnsupportedError, nearest
from aurum_orchestration.maintenance.backends.iceberg.compact.equality import path_to

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - wall time
_STEP, _STEPS = timedelta(minutes=15), 96
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_WALL = (TimestampType, TimestampNanoType)
_INSTANT = (TimestamptzType, TimestamptzNanoType)


@dataclass(frozen=True, slots=True)
class TimeColumn:
    """A column by which rows age: its name, the field ids that lead to it, its type."""

    name: str
    path: tuple[int, ...]
    type: IcebergType

    @property
    def field_id(self) -> int:
        """Its own field id."""
        return self.path[-1]

    @property
    def per_day(self) -> int:
        """How many of the column's unit a day has."""
        if isinstance(self.type, DateType):
            return 1
        return 86_400 * _PER_SECOND["ns" if isinstance(self.type, TimestampNanoType | TimestamptzNanoType) else "us"]


@dataclass(frozen=True, slots=True)
class Cutoff:
    """Rows before it are old. ``moment`` is a full hour in UTC; ``limit`` the same in the column's own unit.

    ``seconds`` is the limit in seconds of the column's own reckoning (its wall time, or UTC).
    """

    column: TimeColumn
    moment: datetime
    limit: int
    seconds: int

    def in_unit_of(self, stored: pa.DataType) -> int:
        """The limit in the unit of what a file stores. Raises UnsupportedError when that is no time."""
        is_date = isinstance(self.column.type, DateType)
        if is_date and pa.types.is_date32(stored):
            return self.limit
        if not is_date and pa.types.is_timestamp(stored):
            return self.seconds * _PER_SECOND[stored.unit]
        raise UnsupportedError(f"a data file stores {stored} in {self.column.name}, a {self.column.type}")


def time_column(schema: Schema, name: str) -> TimeColumn:
    """The column of that name, with dots where it is a field of a struct.

    Raises RequestError when there is none, UnsupportedError for one that holds no time.
    """
    try:
        field = schema.find_field(name)
    except ValueError as error:
        raise RequestError(
            f"time_column: the table has no column {name!r}", hint=nearest(name, _names(schema))
        ) from error
    path = path_to(schema.as_struct(), field.field_id)
    if not path:
        raise UnsupportedError(f"time_column {name} is inside a list or map: a row has many of its values")
    if isinstance(field.field_type, IntegerType | LongType):
        raise UnsupportedError(
            f"time_column {name} is {field.field_type}: a number does not say which unit since which moment it counts",
            hint="Add a column of type timestamp or date, e.g. filled from this one.",
        )
    if not isinstance(field.field_type, (DateType, *_WALL, *_INSTANT)):
        raise UnsupportedError(f"time_column {name} is {field.field_type}, which is no timestamp and no date")
    return TimeColumn(name, tuple(one.field_id for one in path), field.field_type)


def cutoff_at(column: TimeColumn, now: datetime, days: float, zone: str) -> Cutoff:
    """The cutoff ``days`` before ``now``, down to the full hour. ``zone`` is where times without zone were taken."""
    moment = (now.astimezone(UTC) - timedelta(days=days)).replace(minute=0, second=0, microsecond=0)
    return cutoff_of(column, moment, zone)


def cutoff_of(column: TimeColumn, moment: datetime, zone: str) -> Cutoff:
    """The cutoff at a moment."""
    wall = moment.replace(tzinfo=None) if isinstance(column.type, _INSTANT) else earliest_wall(moment, ZoneInfo(zone))
    if isinstance(column.type, DateType):
        days = (wall.date() - date(1970, 1, 1)).days
        return Cutoff(column, moment, days, days * 86_400)
    seconds = int((wall - _EPOCH).total_seconds())
    return Cutoff(column, moment, seconds * column.per_day // 86_400, seconds)


def earliest_wall(moment: datetime, zone: ZoneInfo) -> datetime:
    """The earliest wall time that clocks in the zone show at the moment or later.

    When clocks go back, times are shown twice: a row that says such a time may be from the second showing.
    """
    return min((moment + number * _STEP).astimezone(zone).replace(tzinfo=None) for number in range(_STEPS))


def _names(schema: Schema) -> Iterable[str]:
    names: dict[int, Any] = schema._lazy_id_to_name
    return names.values()
