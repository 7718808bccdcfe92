"""Manifests of delete files without some of their files.

Entries are copied as the records they are: PyIceberg's reader leaves out fields (which data file a delete
refers to) that the files that stay must keep.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import IO, Any, cast

import fastavro
from pyiceberg.manifest import UNASSIGNED_SEQ, ManifestContent, ManifestEntryStatus, ManifestFile
from pyiceberg.table import Table

from aurum_orchestration.errors import CorruptTableError

_OWN_KEYS = ("avro.schema", "avro.codec")


def without(
    table: Table, manifest: ManifestFile, gone: Collection[str], location: str, snapshot_id: int
) -> ManifestFile:
    """Write ``manifest`` anew with the files ``gone`` deleted, describe it for the manifest list.

    Raises CorruptTableError when it cannot be read.
    """
    try:
        with table.io.new_input(manifest.manifest_path).open() as stream:
            reader = fastavro.reader(cast(IO[Any], stream))
            schema: Any = reader.writer_schema
            header, codec = dict(reader.metadata), reader.codec
            records = [
                _carried(record, manifest, gone, snapshot_id) for record in map(_as_record, reader) if _live(record)
            ]
    except (ValueError, EOFError, KeyError) as error:
        raise CorruptTableError(f"manifest {manifest.manifest_path} cannot be read: {error}") from error
    metadata = {key: value for key, value in header.items() if key not in _OWN_KEYS}
    output = table.io.new_output(location)
    with output.create(overwrite=False) as stream:
        writer = fastavro.write.Writer(cast(IO[Any], stream), schema, codec=codec, metadata=metadata)
        for record in records:
            writer.write(record)
        writer.flush()
    left = [record for record in records if record["status"] != ManifestEntryStatus.DELETED]
    deleted = [record for record in records if record["status"] == ManifestEntryStatus.DELETED]
    return ManifestFile.from_args(
        manifest_path=location,
        manifest_length=len(table.io.new_input(location)),
        partition_spec_id=manifest.partition_spec_id,
        content=ManifestContent.DELETES,
        sequence_number=UNASSIGNED_SEQ,
        min_sequence_number=min((record["sequence_number"] for record in left), default=UNASSIGNED_SEQ),
        added_snapshot_id=snapshot_id,
        added_files_count=0,
        existing_files_count=len(left),
        deleted_files_count=len(deleted),
        added_rows_count=0,
        existing_rows_count=sum(record["data_file"]["record_count"] for record in left),
        deleted_rows_count=sum(record["data_file"]["record_count"] for record in deleted),
        partitions=manifest.partitions,  # bounds of more than is left, which loses nobody anything
        key_metadata=None,
    )


def _as_record(record: Any) -> dict[str, Any]:
    return cast(dict[str, Any], record)


def _live(record: dict[str, Any]) -> bool:
    return bool(record["status"] != ManifestEntryStatus.DELETED)


def _carried(record: dict[str, Any], manifest: ManifestFile, gone: Collection[str], snapshot_id: int) -> dict[str, Any]:
    """An entry with what it inherits written out; deleted by the new snapshot, or left as it is."""
    deleted = record["data_file"]["file_path"] in gone
    inherited = {
        name: manifest.sequence_number
        for name in ("sequence_number", "file_sequence_number")
        if record.get(name) is None
    }
    own = record["snapshot_id"] if record["snapshot_id"] is not None else manifest.added_snapshot_id
    return {
        **record,
        **inherited,
        "status": int(ManifestEntryStatus.DELETED if deleted else ManifestEntryStatus.EXISTING),
        "snapshot_id": snapshot_id if deleted else own,
    }
