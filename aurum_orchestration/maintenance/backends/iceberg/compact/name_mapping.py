"""Files without field ids: their columns by name, as the table's property ``schema.name-mapping.default`` tells.

Such files were added as other tools had written them. As for every reader, the mapping counts only for a file in
which no field at all has an id (https://iceberg.apache.org/spec/#column-projection); a column that it does not
name is none of the table's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
from pydantic import ValidationError
from pyiceberg.table.name_mapping import MappedField, NameMapping, parse_mapping_from_json

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.maintenance.backends.iceberg.arrow_types import FIELD_ID, as_list, field_id, with_child

NAME_MAPPING = "schema.name-mapping.default"
"""The table property that tells readers the columns of files without field ids."""


def mapping_of(properties: Mapping[str, str]) -> NameMapping | None:
    """The table's name mapping, None when it has none. Raises UnsupportedError when it is no mapping."""
    text = properties.get(NAME_MAPPING)
    if text is None:
        return None
    try:
        return parse_mapping_from_json(text)
    except (ValidationError, ValueError) as error:
        raise UnsupportedError(f"the table's property {NAME_MAPPING} is no name mapping") from error


def has_ids(fields: Sequence[pa.Field] | pa.Schema) -> bool:
    """Whether any field has an id, at any depth."""
    return any(field_id(field) is not None or has_ids(_inner(field.type)) for field in fields)


def identified(table: pa.Table, mapping: NameMapping | None) -> pa.Table:
    """The columns of a file without ids that the mapping names, with their ids; the table as it is if it has ids.

    Raises UnsupportedError when the mapping names two columns for one id, or nothing inside a struct.
    """
    if mapping is None or has_ids(table.schema):
        return table
    columns, fields = [], []
    for position, field in _mapped(table.schema, mapping.root):
        named = _field(table.schema.field(position), field)
        chunks = [_relabelled(chunk, named.type) for chunk in table.column(position).chunks]
        columns.append(pa.chunked_array(chunks, type=named.type))
        fields.append(named)
    if not fields:
        raise UnsupportedError("the table's name mapping names no column of a data file without field ids")
    return pa.table(columns, schema=pa.schema(fields))


def _inner(kind: pa.DataType) -> list[pa.Field]:
    if pa.types.is_map(kind):
        return [kind.key_field, kind.item_field]
    return [kind.field(index) for index in range(kind.num_fields)] if pa.types.is_nested(kind) else []


def _mapped(fields: Sequence[pa.Field] | pa.Schema, mapping: Sequence[MappedField]) -> list[tuple[int, MappedField]]:
    """The places of the fields that are named, each with what names it."""
    found = [(index, named) for index, field in enumerate(fields) for named in mapping if field.name in named.names]
    ids = [named.field_id for _, named in found]
    if len(set(ids)) < len(ids) or len({index for index, _ in found}) < len(found):
        raise UnsupportedError("the table's name mapping names two columns of a data file for one, or one for two")
    return [(index, named) for index, named in found if named.field_id is not None]


def _field(field: pa.Field, named: MappedField) -> pa.Field:
    return pa.field(field.name, _type(field.type, named), field.nullable, {FIELD_ID: str(named.field_id)})


def _type(kind: pa.DataType, named: MappedField) -> pa.DataType:
    if pa.types.is_struct(kind):
        inner = [_field(kind.field(index), child) for index, child in _mapped(_inner(kind), named.fields)]
        if not inner:
            raise UnsupportedError(f"the table's name mapping names nothing inside {'/'.join(named.names)}")
        return pa.struct(inner)
    if pa.types.is_map(kind):
        return pa.map_(_child(kind.key_field, "key", named), _child(kind.item_field, "value", named))
    if pa.types.is_nested(kind):
        return pa.list_(_child(kind.field(0), "element", named))
    return kind


def _child(field: pa.Field, role: str, named: MappedField) -> pa.Field:
    """A list's element, a map's key or value: named by its role, whatever the file calls it."""
    found = next((child for child in named.fields if role in child.names and child.field_id is not None), None)
    if found is None:
        raise UnsupportedError(f"the table's name mapping does not name the {role} of {'/'.join(named.names)}")
    return _field(field, found)


def _relabelled(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The array with the field ids of ``kind`` inside its type, and only the fields that it has."""
    if pa.types.is_struct(kind):
        children = [
            _relabelled(array.field(array.type.get_field_index(field.name)), field.type) for field in _inner(kind)
        ]
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(children, fields=_inner(kind), mask=mask)
    if pa.types.is_map(kind):
        entries = pa.StructArray.from_arrays(
            [_relabelled(array.keys, kind.key_type), _relabelled(array.items, kind.item_type)], fields=_inner(kind)
        )
        return with_child(array, kind, entries)
    if pa.types.is_nested(kind):
        lists = as_list(array)
        return with_child(lists, kind, _relabelled(lists.values, kind.value_type))
    return array
