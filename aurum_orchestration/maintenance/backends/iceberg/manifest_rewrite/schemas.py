"""Avro schemas of data files in manifests: what is laid out alike in bytes, and one schema that holds all fields.

Writers differ in names, docs, and in which optional fields they write; Iceberg's field ids say what is what.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import fastavro
import orjson

CONTENT, BLOCK_SIZE, PARTITION, DATA_FILE = 134, 105, 102, 2
_V1_BLOCK_SIZE = 64 * 1024 * 1024

Json = Any


@dataclass(frozen=True)
class FileSchema:
    """The schema of a data file's record. ``layout``: equal for schemas whose records are the same bytes."""

    definition: Json
    layout: bytes

    @classmethod
    def of(cls, definition: Json) -> FileSchema:
        """The schema that an Avro record definition describes."""
        return cls(definition, orjson.dumps(_layout(definition)))

    @cached_property
    def plain(self) -> Json:
        """For fastavro: without logical types, so that values stay as they are stored."""
        return fastavro.parse_schema(_without_logical_types(self.definition))

    @cached_property
    def fields(self) -> dict[int, Json]:
        """Fields by id."""
        return _by_id(self.definition)

    @cached_property
    def partition(self) -> Sequence[Json]:
        """The fields of the partition record."""
        fields: Sequence[Json] = self.fields[PARTITION]["type"]["fields"]
        return fields


@lru_cache(maxsize=512)
def data_file_schema(schema: bytes) -> FileSchema:
    """The data file's schema within a manifest's. Raises ValueError when it has none."""
    for field in _resolved(orjson.loads(schema), {})["fields"]:
        if field.get("field-id") == DATA_FILE and field["type"].get("type") == "record":
            found = FileSchema.of(field["type"])
            if PARTITION in found.fields:
                return found
    raise ValueError("its schema has no data file")


def target_schema(schemas: Sequence[FileSchema], version: int) -> FileSchema:
    """A schema for manifests of that format version that holds the fields of all; the first one's when it does."""
    base = copy.deepcopy(schemas[0].definition)
    ids = {field["field-id"]: field for field in base["fields"]}
    for other in schemas[1:]:
        for id_, field in other.fields.items():
            if id_ not in ids:
                ids[id_] = copy.deepcopy(field)
                base["fields"].append(ids[id_])
        _widen(ids[PARTITION]["type"], other.fields[PARTITION]["type"])
    if version > 1:
        base["fields"] = [field for field in base["fields"] if field["field-id"] != BLOCK_SIZE]
        if CONTENT not in ids:
            base["fields"].insert(0, {"name": "content", "type": "int", "field-id": CONTENT})
    elif BLOCK_SIZE not in ids:
        base["fields"].append({"name": "block_size_in_bytes", "type": "long", "field-id": BLOCK_SIZE})
    return FileSchema.of(_renamed(base))


def converted(record: Mapping[str, Any], source: FileSchema, target: FileSchema) -> dict[str, Any]:
    """A decoded data file under the names of the target's schema; what the source does not have gets its default."""
    values: dict[str, Any] = {}
    for id_, field in target.fields.items():
        if id_ in source.fields:
            values[field["name"]] = record[source.fields[id_]["name"]]
        else:
            values[field["name"]] = {CONTENT: 0, BLOCK_SIZE: _V1_BLOCK_SIZE}.get(id_)
    given: Mapping[str, Any] = values[target.fields[PARTITION]["name"]]
    before = _by_id(source.fields[PARTITION]["type"])
    values[target.fields[PARTITION]["name"]] = {
        field["name"]: _fitted(given[before[id_]["name"]], field["type"]) if id_ in before else None
        for id_, field in _by_id(target.fields[PARTITION]["type"]).items()
    }
    return values


def _by_id(record: Json) -> dict[int, Json]:
    return {field["field-id"]: field for field in record["fields"] if "field-id" in field}


def _resolved(schema: Json, named: dict[str, Json]) -> Json:
    """The schema with every reference to a named type replaced by its definition."""
    if isinstance(schema, list):
        return [_resolved(branch, named) for branch in schema]
    if isinstance(schema, str):
        return named.get(schema, schema)
    kind = schema.get("type")
    if not isinstance(kind, str):
        return {**schema, "type": _resolved(kind, named)}
    made = dict(schema)
    if kind == "record":
        made["fields"] = [{**field, "type": _resolved(field["type"], named)} for field in schema["fields"]]
    elif kind == "array":
        made["items"] = _resolved(schema["items"], named)
    elif kind == "map":
        made["values"] = _resolved(schema["values"], named)
    elif kind in named:
        return named[kind]
    if name := schema.get("name"):
        named[name] = made
    return made


def _layout(schema: Json) -> Json:
    """What decides the bytes of a value, and which field they belong to: nothing of names and docs."""
    if isinstance(schema, list):
        return [_layout(branch) for branch in schema]
    if isinstance(schema, str):
        return schema
    kind = schema["type"]
    if kind == "record":
        return [kind, [[field.get("field-id"), _layout(field["type"])] for field in schema["fields"]]]
    if kind == "array":
        return [kind, _layout(schema["items"])]
    if kind == "map":
        return [kind, _layout(schema["values"])]
    return [kind, schema["size"]] if kind == "fixed" else _layout(kind)


def _without_logical_types(schema: Json) -> Json:
    if isinstance(schema, list):
        return [_without_logical_types(item) for item in schema]
    if isinstance(schema, dict):
        return {key: _without_logical_types(value) for key, value in schema.items() if key != "logicalType"}
    return schema


def _renamed(record: Json) -> Json:
    """The record with a name of its own for each type in it that has one: writers and fields may share names."""
    counter = iter(range(1, 10_000))

    def rename(schema: Json) -> Json:
        if isinstance(schema, list):
            return [rename(branch) for branch in schema]
        if not isinstance(schema, dict):
            return schema
        made = dict(schema)
        if made.get("type") in {"record", "fixed", "enum"} and "name" in made:
            made["name"] = f"{made['name'].split('.')[-1]}_{next(counter)}"
            made.pop("namespace", None)
        for key in ("type", "items", "values"):
            if key in made:
                made[key] = rename(made[key])
        if "fields" in made:
            made["fields"] = [rename_field(field) for field in made["fields"]]
        return made

    def rename_field(field: Json) -> Json:
        return {**field, "type": rename(field["type"])}

    fields = [rename_field(field) for field in record["fields"]]
    return {**record, "fields": fields}


_WIDTH = {"int": 1, "long": 2, "float": 1, "double": 2}


def _widen(into: Json, other: Json) -> None:
    """Let each partition field of ``into`` hold the values of ``other``'s: columns may have been promoted between."""
    fields = _by_id(into)
    for id_, field in _by_id(other).items():
        if id_ in fields and _width(field["type"]) > _width(fields[id_]["type"]):
            fields[id_]["type"] = copy.deepcopy(field["type"])


def _width(schema: Json) -> int:
    value = value_type(schema)
    if isinstance(value, dict) and value["type"] == "fixed":
        return int(value["size"])
    return _WIDTH.get(value["type"] if isinstance(value, dict) else value, 0)


def value_type(schema: Json) -> Json:
    """A type without the null that a union allows beside it."""
    if isinstance(schema, list):
        return next((branch for branch in schema if branch != "null"), "null")
    return schema


def _fitted(value: Any, schema: Json) -> Any:
    """A fixed value in the width of the type: the two's complement of a decimal, its sign extended."""
    kind = value_type(schema)
    if isinstance(value, bytes) and isinstance(kind, dict) and kind["type"] == "fixed" and len(value) < kind["size"]:
        return (b"\xff" if value and value[0] & 0x80 else b"\0") * (kind["size"] - len(value)) + value
    return value
