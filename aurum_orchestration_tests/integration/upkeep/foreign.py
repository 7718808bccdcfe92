"""Manifests as other writers leave them: fields that PyIceberg does not know, old versions, other schemas."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
from pyiceberg.table import Table

Json = Any


def rewrite_in_place(table: Table, manifest: str, change: Callable[[Json, list[Any]], None]) -> None:
    """Write a manifest anew with a changed schema and records, as another writer would have; same place, same list.

    ``change`` gets the data file's schema and the records and changes both.
    """
    path = Path(manifest.removeprefix("file://"))
    with path.open("rb") as stream:
        reader = fastavro.reader(stream)
        header = {key: value for key, value in reader.metadata.items() if not key.startswith("avro.")}
        schema: Json = copy.deepcopy(reader.writer_schema)
        records = list(reader)
    data_file = next(field for field in schema["fields"] if field["name"] == "data_file")["type"]
    change(data_file, records)
    schema.pop("__fastavro_parsed__", None)
    schema.pop("__named_schemas", None)
    recorded = path.stat().st_size
    for padding in (0, recorded):  # a manifest shorter than its list records is a damaged one
        with path.open("wb") as stream:
            fastavro.writer(stream, schema, records, codec="deflate", metadata={**header, "padding": "-" * padding})
        if path.stat().st_size >= recorded:
            return


def add_field(name: str, id_: int, kind: str, value: Any) -> Callable[[Json, list[Any]], None]:
    """A change that adds an optional field with the same value in every data file."""

    def change(data_file: Json, records: list[Any]) -> None:
        data_file["fields"].append({"name": name, "type": ["null", kind], "default": None, "field-id": id_})
        for record in records:
            record["data_file"][name] = value

    return change


def rename_all(data_file: Json, records: list[Any]) -> None:
    """A change that gives every field another name, as writers that do not care for names may."""
    for field in data_file["fields"]:
        old, field["name"] = field["name"], f"x_{field['name']}"
        for record in records:
            record["data_file"][field["name"]] = record["data_file"].pop(old)


def without_field(name: str) -> Callable[[Json, list[Any]], None]:
    """A change that leaves a field out."""

    def change(data_file: Json, records: list[Any]) -> None:
        data_file["fields"] = [field for field in data_file["fields"] if field["name"] != name]
        for record in records:
            record["data_file"].pop(name)

    return change


def raw_fields(manifest: str, id_: int) -> list[Any]:
    """What each entry of a manifest has in the data file's field of that id, whatever its name."""
    with Path(manifest.removeprefix("file://")).open("rb") as stream:
        reader = fastavro.reader(stream)
        schema: Any = reader.writer_schema
        data_file = next(field for field in schema["fields"] if field.get("field-id") == 2)["type"]
        names = [field["name"] for field in data_file["fields"] if field["field-id"] == id_]
        return [record["data_file"][names[0]] if names else "no such field" for record in reader]  # type: ignore[index,call-overload]


def header_of(manifest: str) -> dict[str, str]:
    """The key-value metadata of a manifest."""
    with Path(manifest.removeprefix("file://")).open("rb") as stream:
        found: dict[str, str] = dict(fastavro.reader(stream).metadata)
        return found
