"""The live data and delete files of main, as reports need them."""

from __future__ import annotations

from dataclasses import dataclass, field

from pyiceberg.manifest import DataFile, DataFileContent
from pyiceberg.table import Table

from aurum_orchestration.maintenance.backends.iceberg.entries import EntryReader
from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.plan import has_live_files, head_of


@dataclass
class LiveEntries:
    """Live files of the head of main."""

    data: list[DataFile] = field(default_factory=list)
    deletes: list[DataFile] = field(default_factory=list)
    manifests: int = 0
    manifest_bytes: int = 0


def live_entries(table: Table, reader: EntryReader) -> LiveEntries:
    """Read them. Raises CorruptTableError."""
    found = LiveEntries()
    for manifest in head_of(table)[1]:
        found.manifests += 1
        found.manifest_bytes += manifest.manifest_length
        if has_live_files(manifest):
            for item in reader.live(manifest):
                is_data = item.data_file.content is DataFileContent.DATA
                (found.data if is_data else found.deletes).append(item.data_file)
    return found
