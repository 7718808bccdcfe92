"""Entries in the order of their partitions, and what a manifest list says of the partitions in a manifest."""

from __future__ import annotations

import math
import struct
import uuid
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import orjson
from pyiceberg.manifest import PartitionFieldStats, PartitionFieldSummary
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.types import PrimitiveType, UnknownType

from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.raw import RawEntry
from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.schemas import FileSchema, value_type

Values = tuple[Any, ...]


class Partitions:
    """Partition values as stored in manifests, decoded once each."""

    def __init__(self) -> None:
        self._decoded: dict[tuple[bytes, Values], Values] = {}

    def values(self, entry: RawEntry) -> Values:
        """The values of an entry's partition, as PyIceberg has them."""
        key = (entry.schema.layout, entry.partition)
        if key not in self._decoded:
            fields = entry.schema.partition
            self._decoded[key] = tuple(
                _decode(value, field["type"]) for value, field in zip(entry.partition, fields, strict=True)
            )
        return self._decoded[key]

    def clustered(self, entries: Iterable[RawEntry]) -> list[RawEntry]:
        """Entries by partition, those of one partition in the order in which they were committed."""
        orders: dict[Values, tuple[Any, ...]] = {}

        def order(entry: RawEntry) -> tuple[Any, ...]:
            values = self.values(entry)
            if values not in orders:
                orders[values] = tuple(map(_order, values))
            return (*orders[values], entry.sequence_number or 0, entry.path)

        return sorted(entries, key=order)

    def summaries(self, entries: Iterable[RawEntry], types: Sequence[PrimitiveType]) -> list[PartitionFieldSummary]:
        """Bounds and nulls of each partition field over the entries."""
        distinct = {self.values(entry) for entry in entries}
        found = []
        for position, kind in enumerate(types):
            stats = PartitionFieldStats(kind)
            for values in distinct:
                stats.update(values[position])
            found.append(stats.to_summary())
        return found


def partition_types(header: Mapping[str, bytes], target: FileSchema) -> list[PrimitiveType]:
    """Types of the partition fields of a manifest, from the schema and the spec that its header keeps.

    The table's own schema may have lost the column that an old spec is about. Raises ValueError.
    """
    schema = Schema.model_validate_json(header["schema"])
    given = orjson.loads(header["partition-spec"])
    fields = given["fields"] if isinstance(given, dict) else given
    spec = PartitionSpec(*(PartitionField.model_validate(field) for field in fields))
    types = {field.field_id: field.field_type for field in spec.partition_type(schema).fields}
    found = [types.get(field["field-id"]) for field in target.partition]
    if any(not isinstance(kind, PrimitiveType) or isinstance(kind, UnknownType) for kind in found):
        raise ValueError("the header does not say which types the partition fields have")
    return [kind for kind in found if isinstance(kind, PrimitiveType)]


def _decode(value: Any, schema: Any) -> Any:
    """A stored value as PyIceberg would have it. Numbers are numbers already."""
    if not isinstance(value, bytes):
        return value
    kind = value_type(schema)
    name, logical = (kind["type"], kind.get("logicalType")) if isinstance(kind, dict) else (kind, None)
    if name == "string":
        return value.decode()
    if name in {"float", "double"}:
        return struct.unpack("<f" if name == "float" else "<d", value)[0]
    if logical == "decimal":
        return Decimal(int.from_bytes(value, signed=True)).scaleb(-int(kind["scale"]))
    return uuid.UUID(bytes=value) if logical == "uuid" else value


def _order(value: Any) -> tuple[int, Any]:
    """Nulls first, NaN last."""
    if value is None:
        return 0, 0
    if isinstance(value, float) and math.isnan(value):
        return 2, 0
    return 1, value
