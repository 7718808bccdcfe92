"""Rows of a table with row-level deletes, worked out row by row as the format's text says: a judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow.parquet as pq
from pyiceberg.manifest import DataFileContent, ManifestContent, ManifestEntry
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from aurum_orchestration.maintenance.backends.iceberg.entries import partition_key
from aurum_orchestration_tests.iceberg_deletes import add_equality_deletes
from aurum_orchestration_tests.integration.iceberg.support import Rows, described, local, typed, write_file


def entries(table: Table, content: ManifestContent) -> list[ManifestEntry]:
    """The live entries of data or of delete files."""
    snapshot = table.current_snapshot()
    assert snapshot is not None
    return [
        item
        for manifest in snapshot.manifests(table.io)
        if manifest.content == content
        for item in manifest.fetch_manifest_entry(table.io)
    ]


def delete_paths(table: Table) -> set[str]:
    """The live delete files."""
    return {item.data_file.file_path for item in entries(table, ManifestContent.DELETES)}


def live_rows(table: Table) -> Rows:
    """The multiset of rows after all deletes; columns by field id, in the order of the table's schema."""
    names = {str(field.field_id).encode(): field.name for field in table.schema().fields}
    found: Rows = Counter()
    deletes = entries(table, ManifestContent.DELETES)
    for item in entries(table, ManifestContent.DATA):
        file = pq.ParquetFile(local(item.data_file.file_path))
        ids = [(field.metadata or {})[b"PARQUET:field_id"] for field in file.schema_arrow]
        for position, values in enumerate(file.read().rename_columns([one.decode() for one in ids]).to_pylist()):
            if not any(_deletes(table, delete, item, position, values) for delete in deletes):
                found[repr({name: values.get(one.decode()) for one, name in names.items()})] += 1
    return found


_KEYS: dict[str, list[dict[str, object]]] = {}


def _deletes(table: Table, delete: ManifestEntry, data: ManifestEntry, position: int, row: dict[str, object]) -> bool:
    path, newer = delete.data_file.file_path, (delete.sequence_number or 0) - (data.sequence_number or 0)
    if path not in _KEYS:
        stored = pq.ParquetFile(local(path))
        ids = [(field.metadata or {})[b"PARQUET:field_id"].decode() for field in stored.schema_arrow]
        _KEYS[path] = stored.read().rename_columns(ids).to_pylist()
    same_place = partition_key(delete.data_file) == partition_key(data.data_file)
    if delete.data_file.content == DataFileContent.POSITION_DELETES:
        named = {"2147483546": data.data_file.file_path, "2147483545": position}
        return newer >= 0 and same_place and named in _KEYS[path]
    if newer <= 0 or not (same_place or table.specs()[delete.data_file.spec_id].is_unpartitioned()):
        return False
    wanted = [str(identity) for identity in delete.data_file.equality_ids or ()]
    return any(all(row.get(one) == key.get(one) for one in wanted) for key in _KEYS[path])


def upsert(
    table: Table, rows: Sequence[dict[str, object]], keys: Sequence[str], partition: Record | None = None
) -> None:
    """Rows with their keys deleted before, in one commit, as Flink does it."""
    content = typed(table, rows)
    file = described(table, write_file(table, content), partition=partition)
    file.spec_id = table.spec().spec_id
    add_equality_deletes(table, content, keys, partition=partition, with_data=[file])
