"""A reader of Iceberg snapshots in plain Python, to judge by: slow, for small tables, and nobody else's code.

PyIceberg reads the metadata and PyArrow decodes the files; which rows live, and what they look like in a
schema, is decided here. So equality deletes are read, and a null list of structs stays null.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile, DataFileContent, ManifestEntry, ManifestFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.types import IcebergType, ListType, MapType, StructType

Bag = Counter[Any]
"""Rows as a multiset."""


@dataclass(frozen=True)
class Row:
    """A row as it was written: its values by name, and the Arrow type that has the field ids."""

    values: Mapping[str, Any]
    written_as: pa.StructType

    def seen_as(self, schema: Schema) -> Any:
        """The row in another schema of the table: columns found by id, absent ones null."""
        return seen_as(self.values, self.written_as, schema.as_struct())


@dataclass(frozen=True)
class LiveRow(Row):
    """A row that a snapshot has, and where."""

    file: DataFile
    position: int


def seen_as(value: Any, written_as: pa.DataType, wanted: IcebergType) -> Any:
    """A value in another type of its field, comparable: -0.0 is not 0.0, NaN equals NaN, null is not empty."""
    if value is None:
        return None
    if isinstance(wanted, StructType):
        by_id = {field_id(field): field for field in written_as}
        return tuple(
            (one.field_id, seen_as(value[by_id[one.field_id].name], by_id[one.field_id].type, one.field_type))
            if one.field_id in by_id
            else (one.field_id, None)
            for one in sorted(wanted.fields, key=lambda one: one.field_id)
        )
    if isinstance(wanted, ListType):
        return tuple(seen_as(one, written_as.value_type, wanted.element_type) for one in value)
    if isinstance(wanted, MapType):
        return tuple(
            (seen_as(key, written_as.key_type, wanted.key_type), seen_as(one, written_as.item_type, wanted.value_type))
            for key, one in value
        )
    return repr(value.bytes if isinstance(value, uuid.UUID) else value)


def field_id(field: pa.Field) -> int:
    return int(field.metadata[b"PARQUET:field_id"])


def local(location: str) -> str:
    return location.removeprefix("file://")


class Reader:
    """Reads snapshots; keeps decoded files for as long as they stay as they are on disk."""

    def __init__(self) -> None:
        self._listed: dict[str, tuple[tuple[int, int], list[ManifestEntry]]] = {}
        self._decoded: dict[str, tuple[tuple[int, int], pa.StructType, list[dict[str, Any]]]] = {}

    def bag(self, table: Table, snapshot: Snapshot | None, schema: Schema) -> Bag:
        """The rows of a snapshot in a schema."""
        return Counter(row.seen_as(schema) for row in self.rows(table, snapshot))

    def rows(self, table: Table, snapshot: Snapshot | None) -> Iterator[LiveRow]:
        """The live rows of a snapshot. Raises FileNotFoundError when any file of it is gone."""
        data, positions, equality = self._entries(table, snapshot)
        gone = {
            (row["file_path"], row["pos"]): entry.sequence_number or 0
            for entry in positions
            for row in self._decode(entry.data_file.file_path)[1]
        }
        keys = [(entry, *self._keys(table, entry.data_file)) for entry in equality]
        for entry in data:
            written_as, values = self._decode(entry.data_file.file_path)
            applied = [one for one in keys if _applies(table, one[0], entry)]
            for position, one in enumerate(values):
                row = LiveRow(one, written_as, entry.data_file, position)
                newest = gone.get((entry.data_file.file_path, position))
                if newest is not None and newest >= (entry.sequence_number or 0):
                    continue
                if not any(row.seen_as(schema) in wanted for _, schema, wanted in applied):
                    yield row

    def _entries(
        self, table: Table, snapshot: Snapshot | None
    ) -> tuple[list[ManifestEntry], list[ManifestEntry], list[ManifestEntry]]:
        kinds: dict[DataFileContent, list[ManifestEntry]] = {kind: [] for kind in DataFileContent}
        if snapshot is not None:
            _state(snapshot.manifest_list)  # PyIceberg may have it in memory
            for manifest in snapshot.manifests(table.io):
                for entry in self._list(table, manifest):
                    kinds[entry.data_file.content].append(entry)
        data = kinds[DataFileContent.DATA]
        return data, kinds[DataFileContent.POSITION_DELETES], kinds[DataFileContent.EQUALITY_DELETES]

    def _list(self, table: Table, manifest: ManifestFile) -> list[ManifestEntry]:
        state = _state(manifest.manifest_path)
        known = self._listed.get(manifest.manifest_path)
        if known is None or known[0] != state:
            known = (state, manifest.fetch_manifest_entry(table.io, discard_deleted=True))
            self._listed[manifest.manifest_path] = known
        return known[1]

    def _keys(self, table: Table, file: DataFile) -> tuple[Schema, set[Any]]:
        """The columns that an equality delete compares, as they are called now or last were, and its keys."""
        known = {
            one.field_id: one
            for schema in [*sorted(table.schemas().values(), key=lambda one: one.schema_id), table.schema()]
            for one in schema.fields
        }
        schema = Schema(*(known[one] for one in file.equality_ids or ()))
        written_as, values = self._decode(file.file_path)
        return schema, {seen_as(one, written_as, schema.as_struct()) for one in values}

    def _decode(self, location: str) -> tuple[pa.StructType, list[dict[str, Any]]]:
        state = _state(location)
        known = self._decoded.get(location)
        if known is None or known[0] != state:
            with pq.ParquetFile(local(location)) as file:
                rows = file.read()
            known = self._decoded[location] = (state, pa.struct(list(rows.schema)), rows.to_pylist())
        return known[1], known[2]


def _state(location: str) -> tuple[int, int]:
    found = Path(local(location)).stat()
    return found.st_mtime_ns, found.st_size


def _applies(table: Table, delete: ManifestEntry, data: ManifestEntry) -> bool:
    """An equality delete applies to older files of its partition, or of all where its spec has none."""
    if (delete.sequence_number or 0) <= (data.sequence_number or 0):
        return False
    spec = table.specs()[delete.data_file.spec_id]
    return spec.is_unpartitioned() or place(delete.data_file) == place(data.data_file)


def place(file: DataFile) -> tuple[int, str]:
    """A file's spec and partition."""
    return file.spec_id, repr([file.partition[index] for index in range(len(file.partition))])
