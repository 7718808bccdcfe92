"""Arrow schemas for Iceberg tables, and reading a data file's columns by field id."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema

from aurum_orchestration.errors import UnsupportedError

FIELD_ID = b"PARQUET:field_id"
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


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

    Raises UnsupportedError when a column, or a field inside one, has no field id.
    """
    for field in schema:
        _require_ids(field, field.name)
    by_id = {field_id(field): index for index, field in enumerate(schema)}
    return [by_id.get(identity) for identity in wanted]


def _require_ids(field: pa.Field, path: str) -> None:
    if field_id(field) is None:
        raise UnsupportedError(
            f"column {path!r} of a data file has no field id",
            hint="Files that were added without field ids need the table property schema.name-mapping.default, "
            "or a rewrite by Spark.",
        )
    for inner in _struct_fields(field.type):
        _require_ids(inner, f"{path}.{inner.name}")


def _struct_fields(kind: pa.DataType) -> list[pa.Field]:
    """The fields of the structs nearest inside a type, through lists and maps."""
    fields = [kind.field(index) for index in range(kind.num_fields)] if pa.types.is_nested(kind) else []
    if pa.types.is_struct(kind):
        return fields
    if pa.types.is_map(kind):
        fields = [kind.key_field, kind.item_field]
    return [inner for field in fields for inner in _struct_fields(field.type)]


def same_type(kind: pa.DataType, target: pa.DataType) -> bool:
    """True when the types agree and so do the field ids inside: a name may have been given to a new field."""
    if kind != target:
        return False
    if not pa.types.is_nested(kind):
        return True
    pairs = ((kind.field(index), target.field(index)) for index in range(kind.num_fields))
    return all(field_id(own) == field_id(other) and same_type(own.type, other.type) for own, other in pairs)


def conform(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """A column in the type of ``field``; a dictionary-encoded string column stays encoded.

    Nested fields are matched by field id, so added, dropped, renamed and reordered ones come out right.
    Raises UnsupportedError when the stored type is none that the table's type can be promoted from.
    """
    if pa.types.is_dictionary(column.type) and column.type.value_type == field.type:
        return column
    if same_type(column.type, field.type):
        return column
    if pa.types.is_nested(field.type) and pa.types.is_nested(column.type):
        return pa.chunked_array([_conform_nested(chunk, field.type) for chunk in column.chunks], type=field.type)
    return _cast(column, field.type)


def _conform_nested(array: pa.Array, target: pa.DataType) -> pa.Array:
    """An array in the type ``target``, structs matched by field id at every depth, validity kept."""
    if same_type(array.type, target):
        return array
    if pa.types.is_struct(target) and pa.types.is_struct(array.type):
        by_id = {field_id(array.type.field(index)): index for index in range(array.type.num_fields)}
        children = [
            _conform_nested(array.field(by_id[identity]), field.type)
            if (identity := field_id(field)) in by_id
            else pa.nulls(len(array), field.type)
            for field in target
        ]
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(children, fields=list(target), mask=mask)
    if pa.types.is_map(target) and pa.types.is_map(array.type):
        entries = pa.StructArray.from_arrays(
            [_conform_nested(array.keys, target.key_type), _conform_nested(array.items, target.item_type)],
            fields=[target.key_field, target.item_field],
        )
        return with_child(array, target, entries)
    if pa.types.is_list(target) and any(test(array.type) for test in _LISTS):
        lists = as_list(array)
        return with_child(lists, target, _conform_nested(lists.values, target.value_type))
    return _cast(array, target)


def as_list(array: pa.Array) -> pa.Array:
    """A list array with 32-bit offsets: large and fixed-size ones come from writers that store their Arrow schema."""
    return array if pa.types.is_list(array.type) else array.cast(pa.list_(array.type.value_field))


def with_child(array: pa.Array, target: pa.DataType, child: pa.Array) -> pa.Array:
    """A list or map array with other elements, in the type ``target``."""
    return pa.Array.from_buffers(
        target, len(array), array.buffers()[:2], null_count=array.null_count, offset=array.offset, children=[child]
    )


def _cast(values: Any, target: pa.DataType) -> Any:
    """Values in another type. Raises UnsupportedError when that is no promotion that keeps every value."""
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    # another unit or scale would change the numbers that a checksum is made of
    alike = all(getattr(kind, name, None) == getattr(target, name, None) for name in ("unit", "scale"))
    narrower = pa.types.is_floating(kind) and kind.bit_width > target.bit_width
    if pa.types.is_null(kind) or (alike and not narrower and not pa.types.is_nested(target)):
        with contextlib.suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return values.cast(target)
    raise UnsupportedError(
        f"a data file stores {kind} where the table has {target}",
        hint="Such files need a rewrite by Spark or Trino.",
    )
