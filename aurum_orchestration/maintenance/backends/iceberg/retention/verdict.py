"""What the metadata proves of a data file: that every row is old, or that none is. Pure.

A partition says it by its range, column bounds by their ends. Bounds may be missing, of another type or
wrong way round, null counts may be missing: then they prove nothing, and neither does a partition that
contradicts them.
"""

from __future__ import annotations

import struct
from datetime import date
from enum import Enum

from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.transforms import DayTransform, HourTransform, IdentityTransform, MonthTransform, YearTransform
from pyiceberg.types import DateType

from aurum_orchestration.maintenance.backends.iceberg.retention.cutoff import Cutoff, TimeColumn

_EPOCH = date(1970, 1, 1)
_RANGES = (IdentityTransform, YearTransform, MonthTransform, DayTransform, HourTransform)


class Verdict(Enum):
    """What is known of a file's rows."""

    OLD = "every row is old"
    KEPT = "no row is old"
    UNKNOWN = "some rows may be old"


def verdict(file: DataFile, spec: PartitionSpec, cutoff: Cutoff) -> Verdict:
    """The verdict on a file that was written with the partition spec ``spec``."""
    told = {by_bounds(file, cutoff), *(_by_partition(file, spec, cutoff))} - {Verdict.UNKNOWN}
    return told.pop() if len(told) == 1 else Verdict.UNKNOWN


def constant(file: DataFile, spec: PartitionSpec, column: TimeColumn) -> int | None:
    """The time that all rows have by an identity partition; what readers take where the file lacks the column."""
    for position, field in enumerate(spec.fields):
        if field.source_id == column.field_id and isinstance(field.transform, IdentityTransform):
            value = file.partition[position]
            return None if value is None else int(value)
    return None


def by_bounds(file: DataFile, cutoff: Cutoff) -> Verdict:
    """What the column bounds and null counts prove."""
    identity = cutoff.column.field_id
    nulls = (file.null_value_counts or {}).get(identity)
    if nulls is not None and nulls >= file.record_count:
        return Verdict.KEPT
    low = _bound((file.lower_bounds or {}).get(identity), cutoff.column)
    high = _bound((file.upper_bounds or {}).get(identity), cutoff.column)
    if low is not None and high is not None and low > high:
        return Verdict.UNKNOWN
    if low is not None and low >= cutoff.limit:
        return Verdict.KEPT
    if high is not None and high < cutoff.limit and nulls == 0:
        return Verdict.OLD
    return Verdict.UNKNOWN


def _bound(stored: bytes | None, column: TimeColumn) -> int | None:
    """A bound as a number; None when it is missing or was written for another type."""
    form = "<i" if isinstance(column.type, DateType) else "<q"
    return int(struct.unpack(form, stored)[0]) if stored is not None and len(stored) == struct.calcsize(form) else None


def _by_partition(file: DataFile, spec: PartitionSpec, cutoff: Cutoff) -> set[Verdict]:
    """What the partition values made from the column prove."""
    told = set()
    for position, field in enumerate(spec.fields):
        if field.source_id != cutoff.column.field_id or not isinstance(field.transform, _RANGES):
            continue
        value = file.partition[position]
        if value is None:
            told.add(Verdict.KEPT)
        elif (ends := _ends(field, int(value), cutoff.column)) is not None:
            start, end = ends
            told.add(Verdict.OLD if end <= cutoff.limit else Verdict.KEPT if start >= cutoff.limit else Verdict.UNKNOWN)
    return told


def _ends(field: PartitionField, value: int, column: TimeColumn) -> tuple[int, int] | None:
    """The first time of a partition and the first one after it, in the column's unit; None beyond the calendar."""
    transform = field.transform
    if isinstance(transform, IdentityTransform):
        return value, value + 1
    if isinstance(transform, HourTransform):
        return value * column.per_day // 24, (value + 1) * column.per_day // 24
    if isinstance(transform, DayTransform):
        return value * column.per_day, (value + 1) * column.per_day
    months = 12 if isinstance(transform, YearTransform) else 1
    try:
        first, after = (_days(month) for month in (value * months, (value + 1) * months))
    except ValueError:
        return None
    return first * column.per_day, after * column.per_day


def _days(month: int) -> int:
    """Days from 1970 to the first of the ``month``-th month since."""
    return (date(1970 + month // 12, month % 12 + 1, 1) - _EPOCH).days
