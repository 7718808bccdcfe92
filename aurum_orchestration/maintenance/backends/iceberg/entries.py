"""Manifest entries as a commit needs them: read whole and kept, written in blocks.

PyIceberg reads manifests quickly but writes an Avro block per entry; fastavro writes the same schema
three times as fast and a quarter of the size. (For measuring, which needs few fields of many
manifests, see :mod:`~aurum_orchestration.maintenance.backends.iceberg.manifests`.)
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from typing import IO, Any, cast

import fastavro
from pyiceberg.io import FileIO
from pyiceberg.manifest import (
    UNASSIGNED_SEQ,
    DataFile,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    PartitionFieldSummary,
    construct_partition_summaries,
    data_file_with_partition,
    manifest_entry_schema_with_data_file,
)
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.transforms import VoidTransform
from pyiceberg.typedef import Record, TableVersion
from pyiceberg.types import NestedField
from pyiceberg.utils.schema_conversion import AvroSchemaConversion

from aurum_orchestration.errors import BackendUnavailableError, CorruptTableError
from aurum_orchestration.maintenance.backends.iceberg.avro import avro_codec

MAX_CACHED_ENTRIES = 50_000
ENTRIES_PER_MANIFEST = 20_000
_V1_BLOCK_SIZE = 64 * 1024 * 1024
_METRICS = ("column_sizes", "value_counts", "null_value_counts", "nan_value_counts", "lower_bounds", "upper_bounds")


class EntryReader:
    """Live entries of manifests, those read last kept in memory (manifests never change)."""

    def __init__(self, io: FileIO) -> None:
        self._io = io
        self._cached: OrderedDict[str, list[ManifestEntry]] = OrderedDict()
        self._count = 0
        self._lock = threading.Lock()

    def live(self, manifest: ManifestFile) -> list[ManifestEntry]:
        """The entries that are not deleted. Raises CorruptTableError when the manifest cannot be read."""
        path = manifest.manifest_path
        with self._lock:
            if path in self._cached:
                self._cached.move_to_end(path)
                return self._cached[path]
        with _decoding(f"manifest {path}"):
            entries = manifest.fetch_manifest_entry(self._io, discard_deleted=True)
        if len(entries) < (manifest.added_files_count or 0) + (manifest.existing_files_count or 0):
            raise CorruptTableError(f"manifest {path} is cut short: it lists fewer files than its manifest list says")
        with self._lock:
            self._cached[path] = entries
            self._count += len(entries)
            while self._count > MAX_CACHED_ENTRIES and len(self._cached) > 1:
                self._count -= len(self._cached.popitem(last=False)[1])
        return entries


def manifests_of(snapshot: Snapshot, io: FileIO) -> list[ManifestFile]:
    """The manifests of a snapshot. Raises CorruptTableError, BackendUnavailableError."""
    with _decoding(f"manifest list {snapshot.manifest_list}"):
        return snapshot.manifests(io)


@contextlib.contextmanager
def _decoding(what: str) -> Iterator[None]:
    """Turns what PyIceberg raises while it reads a metadata file into the package's errors.

    Its decoder stumbles over garbage with whatever comes first: ValueError, KeyError, SystemError, zlib's own.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorruptTableError(f"{what} is missing") from error
    except (PermissionError, IsADirectoryError) as error:
        raise CorruptTableError(f"{what} cannot be read: {error.strerror or error}") from error
    except OSError as error:
        raise BackendUnavailableError(f"{what} cannot be read: {error}") from error
    except Exception as error:
        raise CorruptTableError(f"{what} cannot be read: {error or type(error).__name__}") from error


def partition_key(file: DataFile) -> tuple[int, str]:
    """Spec and values of a file's partition, to group and compare by.

    PyIceberg prints a Record with ``str``: null like the text "None", two texts like one with a comma.
    """
    return file.spec_id, values_key(file.partition)


def values_key(partition: Record) -> str:
    """The values of a partition, to compare by."""
    return repr([partition[index] for index in range(len(partition))])


def applies_everywhere(spec: PartitionSpec) -> bool:
    """Whether an equality delete of that spec applies to the whole table: it has no partitions, or only void ones.

    Format version 1 never drops a partition field, it makes it void.
    """
    return all(isinstance(field.transform, VoidTransform) for field in spec.fields)


def schema_for(metadata: TableMetadata, spec: PartitionSpec) -> Schema:
    """The current schema, and what a spec is made of besides: columns that were dropped since, as they last were."""
    schema = metadata.schema()
    known = set(schema.field_ids)
    missing = {field.source_id for field in spec.fields} - known
    dropped: dict[int, NestedField] = {}
    for older in sorted(metadata.schemas, key=lambda one: one.schema_id):
        dropped |= {identity: older.find_field(identity) for identity in missing if identity in older.field_ids}
    if not dropped:
        return schema
    fields = [
        NestedField(identity, f"dropped_{identity}", field.field_type, required=False)
        for identity, field in dropped.items()
    ]
    return Schema(*schema.fields, *fields, schema_id=schema.schema_id)


def entry(
    status: ManifestEntryStatus, snapshot_id: int | None, data_file: DataFile, like: ManifestEntry | None = None
) -> ManifestEntry:
    """A manifest entry, with the sequence numbers of ``like`` (none: the commit's own)."""
    return ManifestEntry.from_args(
        status=status,
        snapshot_id=snapshot_id,
        sequence_number=like.sequence_number if like else None,
        file_sequence_number=like.file_sequence_number if like else None,
        data_file=data_file,
    )


def write_manifest(
    table: Table,
    location: str,
    spec: PartitionSpec,
    entries: list[ManifestEntry],
    snapshot_id: int,
    *,
    with_metrics: bool = True,
) -> ManifestFile:
    """Write data-file entries as one manifest of the table's format version and describe it.

    Without metrics the entries have no sizes, counts and bounds of columns, by which readers skip files.
    """
    metadata, io = table.metadata, table.io
    version, schema = metadata.format_version, metadata.schema()
    # fastavro has zstandard only with one more package, and readers take any codec
    codec = avro_codec(metadata.properties).replace("zstandard", "deflate")
    # https://iceberg.apache.org/spec/#manifests names these keys
    header = {
        "schema": schema.model_dump_json(),
        "schema-id": str(schema.schema_id),
        "partition-spec": "[" + ",".join(field.model_dump_json() for field in spec.fields) + "]",
        "partition-spec-id": str(spec.spec_id),
        "format-version": str(version),
        **({"content": "data"} if version > 1 else {}),
    }
    of_partitions = schema_for(metadata, spec)
    avro_schema, partition_names = _avro_schema(version, spec, of_partitions)
    output = io.new_output(location)
    with output.create(overwrite=False) as stream:
        writer = fastavro.write.Writer(cast(IO[Any], stream), avro_schema, codec=codec, metadata=header)
        for item in entries:
            writer.write(_entry_record(item, version, partition_names, with_metrics))
        writer.flush()
    partitions = construct_partition_summaries(spec, of_partitions, [item.data_file.partition for item in entries])
    return _describe(location, len(io.new_input(location)), spec.spec_id, entries, snapshot_id, partitions)


def _avro_schema(version: int, spec: PartitionSpec, schema: Schema) -> tuple[Any, list[str]]:
    """The Avro schema of an entry and the names that partition fields have in it (Avro allows fewer characters)."""
    known = cast(TableVersion, version)
    data_file = data_file_with_partition(spec.partition_type(schema), known)
    entry_schema = manifest_entry_schema_with_data_file(known, data_file)
    avro_schema: Any = AvroSchemaConversion().iceberg_to_avro(entry_schema, schema_name="manifest_entry")
    file_fields = next(field for field in avro_schema["fields"] if field["name"] == "data_file")["type"]["fields"]
    partition = next(field for field in file_fields if field["name"] == "partition")["type"]
    for field in partition["fields"]:
        _name_by_field(field)
    return avro_schema, [field["name"] for field in partition["fields"]]


def _name_by_field(field: dict[str, Any]) -> None:
    """Name a fixed type after its field too: two decimals of the same precision would define one name twice."""
    kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
    for kind in kinds:
        if isinstance(kind, dict) and kind["type"] == "fixed":
            kind["name"] = f"{kind['name']}_{field['field-id']}"


def _entry_record(item: ManifestEntry, version: int, partition_names: list[str], with_metrics: bool) -> dict[str, Any]:
    record: dict[str, Any] = {
        "status": int(item.status),
        "snapshot_id": item.snapshot_id,
        "data_file": _file_record(item.data_file, version, partition_names, with_metrics),
    }
    if version > 1:
        record["sequence_number"] = item.sequence_number
        record["file_sequence_number"] = item.file_sequence_number
    return record


def _file_record(file: DataFile, version: int, partition_names: list[str], with_metrics: bool) -> dict[str, Any]:
    return {
        "content": int(file.content),
        "file_path": file.file_path,
        "file_format": str(file.file_format.value),
        "partition": {name: _plain(file.partition[index]) for index, name in enumerate(partition_names)},
        "record_count": file.record_count,
        "file_size_in_bytes": file.file_size_in_bytes,
        # PyIceberg's listing of entries wants a map, be it empty
        **{name: _pairs(getattr(file, name) if with_metrics else {}) for name in _METRICS},
        "key_metadata": file.key_metadata,
        "split_offsets": _array(file.split_offsets),
        "equality_ids": _array(file.equality_ids),
        "sort_order_id": file.sort_order_id,
        **({"block_size_in_bytes": _V1_BLOCK_SIZE} if version == 1 else {}),
    }


def _plain(value: Any) -> Any:
    return value.bytes if isinstance(value, uuid.UUID) else value


def _pairs(values: dict[int, Any] | None) -> tuple[str, list[Any]] | None:
    """A map as Iceberg writes it to Avro: an array of key-value records."""
    return _array(None if values is None else [{"key": key, "value": value} for key, value in values.items()])


def _array(values: list[Any] | None) -> tuple[str, list[Any]] | None:
    """A list with the branch of its union named, so that fastavro need not try the branches on every element."""
    return None if values is None else ("array", values)


def _describe(  # noqa: PLR0917 - the columns of a row
    location: str,
    length: int,
    spec_id: int,
    entries: list[ManifestEntry],
    snapshot_id: int,
    partitions: list[PartitionFieldSummary],
) -> ManifestFile:
    """The manifest list's row for a manifest just written; the list's writer fills in unassigned sequence numbers."""
    files = dict.fromkeys(ManifestEntryStatus, 0)
    rows = dict.fromkeys(ManifestEntryStatus, 0)
    for item in entries:
        files[item.status] += 1
        rows[item.status] += item.data_file.record_count
    known = [
        item.sequence_number
        for item in entries
        if item.status != ManifestEntryStatus.DELETED and item.sequence_number is not None
    ]
    return ManifestFile.from_args(
        manifest_path=location,
        manifest_length=length,
        partition_spec_id=spec_id,
        content=ManifestContent.DATA,
        sequence_number=UNASSIGNED_SEQ,
        min_sequence_number=min(known) if known else UNASSIGNED_SEQ,
        added_snapshot_id=snapshot_id,
        added_files_count=files[ManifestEntryStatus.ADDED],
        existing_files_count=files[ManifestEntryStatus.EXISTING],
        deleted_files_count=files[ManifestEntryStatus.DELETED],
        added_rows_count=rows[ManifestEntryStatus.ADDED],
        existing_rows_count=rows[ManifestEntryStatus.EXISTING],
        deleted_rows_count=rows[ManifestEntryStatus.DELETED],
        partitions=partitions,
        key_metadata=None,
    )
