"""Live entries of manifests with their data files as the bytes that they were written as.

Copying these bytes is fast, and keeps what no library here knows: fields that a newer writer added. Entries
written with another schema than the target's are decoded and encoded anew.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import fastavro
from pyiceberg.manifest import ManifestFile

from aurum_orchestration.errors import CorruptTableError
from aurum_orchestration.maintenance.backends.iceberg.avro import SPAN, AvroError, Projection, read_blocks
from aurum_orchestration.maintenance.backends.iceberg.files import Files, in_threads
from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.schemas import (
    FileSchema,
    converted,
    data_file_schema,
)

_ADDED, _DELETED = 1, 2
_ENTRY: Projection = (0, 1, 3, 4, (2, (SPAN, 134, 100, 103, 104, 102)))


class RawEntry(NamedTuple):
    """A live entry: the snapshot and sequence numbers that hold for it, what identifies its file, and its bytes.

    ``partition`` holds the values as the writer stored them, in the types of his ``schema``.
    """

    snapshot_id: int | None
    sequence_number: int | None
    file_sequence_number: int | None
    content: int
    path: bytes
    rows: int
    size: int
    partition: tuple[Any, ...]
    data_file: bytes
    schema: FileSchema

    def fact(self) -> tuple[Any, ...]:
        """All there is to say of the entry: what identifies it, decoded, and its file's bytes."""
        return (*self[:7], self.data_file)


class RawManifest(NamedTuple):
    """A manifest as read: where it is listed, its header, its live entries."""

    listed: ManifestFile
    header: Mapping[str, bytes]
    schema: FileSchema
    entries: list[RawEntry]


def read_manifests(listed: Sequence[ManifestFile], files: Files) -> Iterator[RawManifest]:
    """The manifests with the live entries of each. Raises CorruptTableError."""

    def read(one: ManifestFile) -> RawManifest:
        return read_manifest(one, files.read(one.manifest_path))

    local = not listed or files.is_local(listed[0].manifest_path)
    return map(read, listed) if local else in_threads(read, listed)


def read_manifest(listed: ManifestFile, content: bytes) -> RawManifest:
    """A manifest's live entries, with what they inherit from the manifest filled in. Raises CorruptTableError."""
    if len(content) < listed.manifest_length:  # between two blocks that is no error of the decoder
        raise CorruptTableError(f"manifest {listed.manifest_path} is cut short")
    try:
        header, blocks = read_blocks(content, _ENTRY)
        schema = data_file_schema(header["avro.schema"])
        entries = [
            _entry(listed, schema, record, block.content)
            for block in blocks
            for record in block.records
            if record[0] != _DELETED
        ]
    except (AvroError, KeyError, TypeError, ValueError) as error:
        raise CorruptTableError(f"manifest {listed.manifest_path}: {error}") from error
    return RawManifest(listed, header, schema, entries)


def _entry(listed: ManifestFile, schema: FileSchema, record: tuple[Any, ...], block: bytes) -> RawEntry:
    """An entry with what it inherits: https://iceberg.apache.org/spec/#sequence-number-inheritance."""
    status, snapshot_id, sequence_number, file_sequence_number, file = record
    (start, end), content, path, rows, size, partition = file
    if path is None or rows is None or size is None or partition is None:
        raise ValueError("an entry lacks its path, partition, rows or size")
    number = listed.sequence_number or 0
    if status == _ADDED or not number:
        sequence_number = number if sequence_number is None else sequence_number
        file_sequence_number = number if file_sequence_number is None else file_sequence_number
    elif sequence_number is None:
        raise ValueError(f"the entry of {path.decode()} has no sequence number and may not inherit one")
    return RawEntry(
        listed.added_snapshot_id if snapshot_id is None else snapshot_id,
        sequence_number,
        file_sequence_number,
        content or 0,
        path,
        rows,
        size,
        partition,
        block[start:end],
        schema,
    )


def in_schema(entry: RawEntry, target: FileSchema) -> RawEntry:
    """The entry with its data file in the target's schema: as it is when that is its own."""
    if entry.schema.layout == target.layout:
        return entry
    given = cast(Mapping[str, Any], fastavro.schemaless_reader(io.BytesIO(entry.data_file), entry.schema.plain, None))
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, target.plain, converted(given, entry.schema, target))
    return entry._replace(data_file=buffer.getvalue())
