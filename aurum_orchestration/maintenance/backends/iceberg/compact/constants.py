"""Columns that a data file lacks because its partition tells them, as in tables that came from Hive.

A reader takes such a column from the partition's value where an identity transform exists for it
(https://iceberg.apache.org/spec/#column-projection); a rewritten file carries the column itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from types import MappingProxyType
from typing import Any

import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.transforms import IdentityTransform

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.maintenance.backends.iceberg.arrow_types import field_id

Constants = Mapping[int, Any]
"""Values by field id, as they stand in a manifest."""

NO_CONSTANTS: Constants = MappingProxyType({})
"""A file that has all its columns."""


def constants_of(metadata: TableMetadata, file: DataFile) -> Constants:
    """What the file's partition tells of its columns: the values of identity fields that are not null."""
    spec = metadata.specs()[file.spec_id]
    return {
        field.source_id: value
        for position, field in enumerate(spec.fields)
        if isinstance(field.transform, IdentityTransform) and (value := file.partition[position]) is not None
    }


def inner_ids(schema: pa.Schema) -> frozenset[int]:
    """Ids of the fields inside the columns of a schema."""
    return frozenset(_ids(schema)) - {field_id(field) for field in schema}


def refuse_missing(inside: Set[int], schema: pa.Schema, location: str) -> None:
    """Raise UnsupportedError when a file's schema lacks a field inside a column that its partition tells."""
    if missing := inside - set(_ids(schema)):
        raise UnsupportedError(
            f"{location} lacks the field with id {min(missing)} inside a column, which only its partition tells",
            hint="Rewrite the table's files with Spark once.",
        )


def repeated(value: Any, field: pa.Field, rows: int) -> pa.Array:
    """A column of one value. ``value`` is as a manifest has it: days, microseconds, bytes of a UUID."""
    kind = field.type
    if pa.types.is_date32(kind):
        scalar = pa.scalar(value, pa.int32()).cast(kind)
    elif pa.types.is_timestamp(kind) or pa.types.is_time64(kind):
        scalar = pa.scalar(value, pa.int64()).cast(kind)
    else:
        scalar = pa.scalar(getattr(value, "bytes", value), getattr(kind, "storage_type", kind))
    column = pa.repeat(scalar, rows)
    return pa.ExtensionArray.from_storage(kind, column) if isinstance(kind, pa.BaseExtensionType) else column


def _ids(fields: pa.Schema | list[pa.Field]) -> Iterator[int]:
    for field in fields:
        if (identity := field_id(field)) is not None:
            yield identity
        kind = field.type
        if pa.types.is_map(kind):
            yield from _ids([kind.key_field, kind.item_field])
        elif pa.types.is_nested(kind):
            yield from _ids([kind.field(index) for index in range(kind.num_fields)])
