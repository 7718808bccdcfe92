"""Delete files as Spark and Flink write them: PyIceberg reads some of them and writes none.

Each call commits one snapshot that adds delete files, like a row-level DELETE or an upsert of another
engine. Needs a table of format version 2.
"""

from __future__ import annotations

import io
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestWriterV2,
)
from pyiceberg.table import Table, Transaction
from pyiceberg.table.snapshots import Operation, SnapshotSummaryCollector, Summary, update_snapshot_summaries
from pyiceberg.table.update.snapshot import _FastAppendFiles
from pyiceberg.typedef import EMPTY_DICT, Record

# https://iceberg.apache.org/spec/#reserved-field-ids
POSITION_DELETE_SCHEMA = pa.schema(
    [
        pa.field("file_path", pa.string(), nullable=False, metadata={"PARQUET:field_id": "2147483546"}),
        pa.field("pos", pa.int64(), nullable=False, metadata={"PARQUET:field_id": "2147483545"}),
    ]
)


def add_position_deletes(
    table: Table,
    positions: Mapping[str, Sequence[int]],
    *,
    file_scoped: bool = False,
    file_format: FileFormat = FileFormat.PARQUET,
    **options: Any,
) -> list[str]:
    """Delete rows by data file path and position, a delete file per partition. Their paths; the table is refreshed.

    With ``file_scoped`` a delete file per data file, whose bounds say so. ``file_format`` is what they claim to be,
    ``options`` are PyArrow's for writing the others.
    """
    if file_scoped:
        files = {file.file_path: file for file in live_data_files(table)}
        return _commit(
            table, [_position_deletes(table, files[path], {path: positions[path]}, path.encode()) for path in positions]
        )
    groups: defaultdict[tuple[int, Record], list[str]] = defaultdict(list)
    live = {file.file_path: file for file in live_data_files(table)}
    for path in positions:
        groups[(live[path].spec_id, live[path].partition)].append(path)
    added = [
        _position_deletes(table, live[paths[0]], {path: positions[path] for path in paths}, **options)
        for paths in groups.values()
    ]
    for file in added:
        file._data[2] = file_format
    return _commit(table, added)


def _position_deletes(
    table: Table, like: DataFile, positions: Mapping[str, Sequence[int]], bounds: bytes | None = None, **options: Any
) -> DataFile:
    rows = [(path, position) for path in sorted(positions) for position in sorted(positions[path])]
    content = pa.table(
        {"file_path": [path for path, _ in rows], "pos": [position for _, position in rows]},
        schema=POSITION_DELETE_SCHEMA,
    )
    file = _delete_file(table, content, DataFileContent.POSITION_DELETES, like.spec_id, like.partition, None, **options)
    if bounds is not None:
        file.lower_bounds[2147483546] = file.upper_bounds[2147483546] = bounds
    return file


def add_equality_deletes(
    table: Table,
    rows: pa.Table,
    field_names: Sequence[str],
    *,
    partition: Record | None = None,
    with_data: Sequence[DataFile] = (),
    ids: Sequence[int] = (),
) -> list[str]:
    """Delete all rows equal to one of ``rows`` in the named columns, in one partition of the current spec.

    ``partition`` is needed for a partitioned table. ``with_data`` are data files that the same commit adds, as
    an upsert does: the delete does not apply to them. ``ids`` are compared instead of the columns
    themselves. The new files' paths; the table is refreshed.
    """
    schema = table.schema().select(*field_names)
    content = rows.select(list(field_names)).cast(schema_to_pyarrow(schema))
    compared = list(ids) or [table.schema().find_field(name).field_id for name in field_names]
    spec_id = table.spec().spec_id
    file = _delete_file(table, content, DataFileContent.EQUALITY_DELETES, spec_id, partition or Record(), compared)
    return _commit(table, [file], with_data)


def live_data_files(table: Table) -> list[DataFile]:
    """The data files of the current snapshot, in manifest order, with their partition specs."""
    snapshot = table.current_snapshot()
    if snapshot is None:
        return []
    return [
        entry.data_file
        for manifest in snapshot.manifests(table.io)
        if manifest.content == ManifestContent.DATA
        for entry in manifest.fetch_manifest_entry(table.io)
    ]


def _delete_file(
    table: Table,
    content: pa.Table,
    kind: DataFileContent,
    spec_id: int,
    partition: Record,
    equality_ids: list[int] | None,
    **options: Any,
) -> DataFile:
    path = f"{table.location()}/data/{uuid.uuid4()}-deletes.parquet"
    with table.io.new_output(path).create() as stream:
        pq.write_table(content, stream, **options)
    fields: dict[str, Any] = {
        "content": kind,
        "file_path": path,
        "file_format": FileFormat.PARQUET,
        "partition": partition,
        "record_count": content.num_rows,
        "file_size_in_bytes": len(table.io.new_input(path)),
        "column_sizes": {},
        "value_counts": {},
        "null_value_counts": {},
        "nan_value_counts": {},
        "lower_bounds": {},
        "upper_bounds": {},
        "key_metadata": None,
        "split_offsets": None,
        "equality_ids": equality_ids,
        "sort_order_id": None,
    }
    file = DataFile.from_args(**fields)
    file.spec_id = spec_id
    return file


def _commit(table: Table, files: list[DataFile], data: Sequence[DataFile] = ()) -> list[str]:
    with table.transaction() as transaction:
        _RowDelta(transaction, table, files, data).commit()
    table.refresh()
    return [file.file_path for file in files]


class _DeleteManifestWriter(ManifestWriterV2):
    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    def to_manifest_file(self) -> ManifestFile:
        # PyIceberg writes the ids of equality deletes as 64-bit numbers, which Java refuses to read
        with self._output_file.to_input_file().open() as stored:
            reader: Any = fastavro.reader(io.BytesIO(stored.read()))
            schema, header, records = reader.writer_schema, reader.metadata, list(reader)
        file = next(field for field in schema["fields"] if field["name"] == "data_file")["type"]
        ids = next(field for field in file["fields"] if field["name"] == "equality_ids")["type"]
        next(branch for branch in ids if branch != "null")["items"] = "int"
        kept = {key: value for key, value in header.items() if not key.startswith("avro.")}
        content = io.BytesIO()
        fastavro.writer(content, schema, records, metadata=kept)
        with self._output_file.create(overwrite=True) as stream:
            stream.write(content.getvalue())
        return super().to_manifest_file()

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


class _RowDelta(_FastAppendFiles):
    """Adds delete files: keeps all manifests, writes delete manifests beside them."""

    def __init__(self, transaction: Transaction, table: Table, files: list[DataFile], data: Sequence[DataFile]) -> None:
        super().__init__(operation=Operation.DELETE, transaction=transaction, io=table.io)
        self._added_data_files = [*files, *data]  # counted by the summary; written by _manifests below

    def _summary(self, snapshot_properties: dict[str, str] = EMPTY_DICT) -> Summary:
        # PyIceberg takes every added file for one of the current spec
        metadata = self._transaction.table_metadata
        counted = SnapshotSummaryCollector()
        for file in self._added_data_files:
            counted.add_file(file, metadata.schema(), metadata.specs()[file.spec_id])
        parent = metadata.snapshot_by_id(self._parent_snapshot_id) if self._parent_snapshot_id is not None else None
        return update_snapshot_summaries(
            summary=Summary(operation=self._operation, **counted.build(), **snapshot_properties),
            previous_summary=parent.summary if parent is not None else None,
        )

    def _manifests(self) -> list[ManifestFile]:
        by_spec: defaultdict[int, list[DataFile]] = defaultdict(list)
        data = [file for file in self._added_data_files if file.content == DataFileContent.DATA]
        for file in self._added_data_files:
            if file.content != DataFileContent.DATA:
                by_spec[file.spec_id].append(file)
        written = [self._manifest(_DeleteManifestWriter, spec_id, files) for spec_id, files in by_spec.items()]
        if data:
            written.append(self._manifest(ManifestWriterV2, data[0].spec_id, data))
        return [*written, *self._existing_manifests()]

    def _manifest(self, kind: type[ManifestWriterV2], spec_id: int, files: list[DataFile]) -> ManifestFile:
        writer = kind(
            self.spec(spec_id), self.schema(), self.new_manifest_output(), self._snapshot_id, self._compression
        )
        with writer:
            for file in files:
                writer.add(
                    ManifestEntry.from_args(
                        status=ManifestEntryStatus.ADDED,
                        snapshot_id=self._snapshot_id,
                        sequence_number=None,
                        file_sequence_number=None,
                        data_file=file,
                    )
                )
        return writer.to_manifest_file()
