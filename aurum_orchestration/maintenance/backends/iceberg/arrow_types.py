"""Arrow schemas for Iceberg tables, and reading a data file's columns by field id."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema

from aurum_orchestration.errors import UnsupportedError

FIELD_ID = b"PARQUET:field_id"


def arrow_schema(schema: Schema) -> pa.Schema:
    """The schema to write with: field ids in the metadata, 32-bit offsets (a row group is bounded)."""
    return pa.schema([_small_field(field) for field in schema_to_pyarrow(schema)])


def _small_field(field: pa.Field) -> pa.Field:
    return field.with_type(_small(field.type))


def _small(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_large_binary(kind):
        return pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([_small_field(kind.field(index)) for index in range(kind.num_fields)])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_small_field(kind.value_field))
    if pa.types.is_map(kind):
        return pa.map_(_small_field(kind.key_field), _small_field(kind.item_field))
    return kind


def field_id(field: pa.Field) -> int | None:
    """The Iceberg field id that a Parquet reader left in a field's metadata."""
    value = (field.metadata or {}).get(FIELD_ID)
    return int(value) if value is not None else None


def select_columns(schema: pa.Schema, wanted: Sequence[int | None]) -> list[int | None]:
    """For each wanted field id the position of its column in ``schema``, None where it is missing.

    Raises UnsupportedError when a column has no field id.
    """
    by_id: dict[int, int] = {}
    for index, field in enumerate(schema):
        identity = field_id(field)
        if identity is None:
            raise UnsupportedError(
                f"column {field.name!r} of a data file has no field id",
                hint="Files that were added without field ids need a rewrite by Spark or Trino.",
            )
        by_id[identity] = index
    return [by_id.get(identity) if identity is not None else None for identity in wanted]


def conform(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """A column in the type of ``field``; a dictionary-encoded string column stays encoded.

    Nested fields are matched by field id, so added, dropped, renamed and reordered ones come out right.
    """
    if pa.types.is_dictionary(column.type) and column.type.value_type in (pa.string(), pa.binary()):
        return column
    if column.type == field.type:
        return column
    if pa.types.is_nested(field.type) and pa.types.is_nested(column.type):
        return pa.chunked_array([_conform_nested(chunk, field.type) for chunk in column.chunks], type=field.type)
    return column.cast(field.type)


def _conform_nested(array: pa.Array, target: pa.DataType) -> pa.Array:
    """An array in the type ``target``, structs matched by field id at every depth, validity kept."""
    if array.type == target:
        return array
    if pa.types.is_struct(target):
        by_id = {field_id(array.type.field(index)): index for index in range(array.type.num_fields)}
        children = [
            _conform_nested(_child(array, by_id[identity]), field.type)
            if (identity := field_id(field)) in by_id
            else pa.nulls(len(array), field.type)
            for field in target
        ]
        return pa.StructArray.from_arrays(children, fields=list(target), mask=_mask(array))
    if pa.types.is_list(target):
        values = _conform_nested(array.values, target.value_type)
        return _with_offsets(array, target, [values])
    if pa.types.is_map(target):
        entries = pa.StructArray.from_arrays(
            [_conform_nested(array.keys, target.key_type), _conform_nested(array.items, target.item_type)],
            fields=[target.key_field, target.item_field],
        )
        return _with_offsets(array, target, [entries])
    return array.cast(target)


def _child(array: pa.StructArray, index: int) -> pa.Array:
    return array.field(index)


def _mask(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None


def _with_offsets(array: pa.Array, target: pa.DataType, children: Sequence[pa.Array]) -> pa.Array:
    if pa.types.is_large_list(array.type):
        array = array.cast(pa.list_(array.type.value_field))
    return pa.Array.from_buffers(
        target, len(array), array.buffers()[:2], null_count=array.null_count, offset=array.offset, children=children
    )
