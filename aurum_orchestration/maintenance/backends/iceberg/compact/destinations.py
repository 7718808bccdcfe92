"""Which partitions of the current spec the rows of a file fall into, as far as its bounds tell."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import BucketTransform, IdentityTransform, Transform, TruncateTransform, VoidTransform
from pyiceberg.typedef import Record
from pyiceberg.types import DoubleType, FloatType, IcebergType, LongType, PrimitiveType, UUIDType

from aurum_orchestration.maintenance.backends.iceberg.entries import values_key

_LONGEST_BOUND = 16
"""Bounds of texts this long or longer may be cut off."""

_MOST_LISTED = 20_000


@dataclass(frozen=True, slots=True)
class Values:
    """The values of one partition field in one file: those known, how many there may be, and the lowest."""

    known: frozenset[Any]
    most: float
    single: bool = False
    lowest: Any = None


class Destinations:
    """Reads bounds by a partition spec. Without bounds nothing is known of a file, and it may go anywhere."""

    def __init__(self, spec: PartitionSpec, schema: Schema) -> None:
        self._fields = [(field, _type_of(field, schema)) for field in spec.fields]

    def values(self, file: DataFile) -> list[Values]:
        """Per partition field what values the file's rows have."""
        return [_values(field, kind, file) for field, kind in self._fields]

    def single(self, file: DataFile) -> Record | None:
        """The one partition that all rows of a file fall into; None when it is not certain."""
        found = self.values(file)
        if any(not values.single for values in found):
            return None
        return Record(*(next(iter(values.known)) for values in found))

    def order(self, file: DataFile) -> tuple[Any, ...]:
        """Sorts files so that those which share partitions are near each other."""
        return tuple((values.lowest is not None, values.lowest) for values in self.values(file))

    def count(self, files: Iterable[DataFile]) -> Estimate:
        """How many partitions the rows of files fall into."""
        combinations: set[str] = set()
        columns: list[set[Any]] = [set() for _ in self._fields]
        open_ended = [False] * len(self._fields)
        total, rows, exact = 0.0, 0, True
        for file in files:
            found = self.values(file)
            most = min(math.prod(values.most for values in found), file.record_count)
            rows += file.record_count
            if all(values.single for values in found):
                combinations.add(repr([next(iter(values.known)) for values in found]))
                most = 0
            else:
                exact = False
            total += most
            for position, values in enumerate(found):
                columns[position] |= values.known
                open_ended[position] |= values.most > len(values.known)
        if exact:
            return Estimate(len(combinations), len(combinations))
        product = math.prod(
            math.inf if endless else len(column) for column, endless in zip(columns, open_ended, strict=True)
        )
        least = max((len(column) for column in columns), default=1)
        return Estimate(min(least, rows), int(min(product, total + len(combinations), rows)))


@dataclass(frozen=True, slots=True)
class Estimate:
    """At least and at most so many partitions."""

    least: int
    most: int

    def __str__(self) -> str:
        return f"{self.most:,}" if self.least == self.most else f"{self.least:,} to {self.most:,}"


def _type_of(field: PartitionField, schema: Schema) -> PrimitiveType | None:
    if field.source_id not in schema.field_ids:
        return None
    kind = schema.find_type(field.source_id)
    return kind if isinstance(kind, PrimitiveType) else None


def _values(field: PartitionField, kind: PrimitiveType | None, file: DataFile) -> Values:
    transform = field.transform
    nulls = (file.null_value_counts or {}).get(field.source_id)
    counted = (file.value_counts or {}).get(field.source_id)
    if isinstance(transform, VoidTransform) or (nulls is not None and nulls == counted == file.record_count):
        return Values(frozenset({None}), 1, single=True)
    known: set[Any] = set() if nulls == 0 else {None}
    bounds = _bounds(kind, field.source_id, file) if kind is not None else None
    if kind is None or bounds is None:
        return Values(frozenset(), transform.num_buckets + 1 if isinstance(transform, BucketTransform) else math.inf)
    if isinstance(transform, BucketTransform):
        return _bucketed(transform, kind, known, bounds)
    return _ordered(transform, kind, known, bounds)


def _bucketed(transform: BucketTransform[Any], kind: PrimitiveType, known: set[Any], bounds: tuple[Any, Any]) -> Values:
    low, high = bounds
    if low == high and not _may_be_cut(low):
        return Values(frozenset({*known, transform.transform(kind)(low)}), 1 + len(known), single=not known)
    width = high - low + 1 if isinstance(low, int) else math.inf
    if width < transform.num_buckets:
        return Values(frozenset(), width + len(known))
    return Values(frozenset({*known, *range(transform.num_buckets)}), transform.num_buckets + len(known))


def _ordered(transform: Transform[Any, Any], kind: PrimitiveType, known: set[Any], bounds: tuple[Any, Any]) -> Values:
    """Of a transform that keeps the order of values."""
    applied, result = transform.transform(kind), transform.result_type(kind)
    first, last = (_stored(result, applied(bound)) for bound in bounds)
    certain = not (isinstance(transform, IdentityTransform) and _may_be_cut(*bounds))
    if first == last and certain and not isinstance(kind, (FloatType, DoubleType)):
        return Values(frozenset({*known, first}), 1 + len(known), single=not known, lowest=first)
    if not isinstance(first, int) or isinstance(first, bool):
        return Values(frozenset({*known, first, last}), math.inf, lowest=first)
    step = transform.width if isinstance(transform, TruncateTransform) else 1
    count = (last - first) // step + 1
    if count > _MOST_LISTED:
        return Values(frozenset(), count + len(known), lowest=first)
    return Values(frozenset({*known, *range(first, last + 1, step)}), count + len(known), lowest=first)


def _stored(kind: IcebergType, value: Any) -> Any:
    """A value as manifests hold it."""
    return UUID(bytes=value) if isinstance(kind, UUIDType) and isinstance(value, bytes) else value


def _bounds(kind: PrimitiveType, identity: int, file: DataFile) -> tuple[Any, Any] | None:
    low, high = (file.lower_bounds or {}).get(identity), (file.upper_bounds or {}).get(identity)
    if low is None or high is None:
        return None
    try:
        return _value(kind, low), _value(kind, high)
    except (ValueError, struct.error, ArithmeticError):
        return None


def _value(kind: PrimitiveType, stored: bytes) -> Any:
    if isinstance(kind, LongType) and len(stored) == 4:  # written before the column was promoted
        return struct.unpack("<i", stored)[0]
    return from_bytes(kind, stored)


def _may_be_cut(*bounds: Any) -> bool:
    return any(isinstance(bound, (str, bytes)) and len(bound) >= _LONGEST_BOUND for bound in bounds)


def by_destination(
    files: Sequence[DataFile], destinations: Destinations, own_bytes: float
) -> list[tuple[Record | None, list[DataFile]]]:
    """Files apart by the one partition that they fall into, where that has at least ``own_bytes``.

    All others come together, under None: their rows have to be looked at.
    """
    parts: dict[str, tuple[Record, list[DataFile]]] = {}
    others: list[DataFile] = []
    for file in files:
        record = destinations.single(file)
        if record is None:
            others.append(file)
        else:
            parts.setdefault(values_key(record), (record, []))[1].append(file)
    found: list[tuple[Record | None, list[DataFile]]] = []
    for record, members in parts.values():
        if sum(file.file_size_in_bytes for file in members) >= own_bytes:
            found.append((record, members))
        else:
            others += members
    return [*found, (None, others)] if others else found
