"""The parts of bloat, each in files and bytes that can be won back, and what wins them back."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pyiceberg.manifest import DataFile, DataFileContent
from pyiceberg.table import Table

from aurum_orchestration.maintenance.backends.iceberg.entries import partition_key
from aurum_orchestration.maintenance.backends.iceberg.files import Files, local_path
from aurum_orchestration.maintenance.backends.iceberg.live import LiveEntries
from aurum_orchestration.maintenance.backends.iceberg.reachability import References, table_locations
from aurum_orchestration.maintenance.backends.iceberg.retention.unreachable import held_only_by
from aurum_orchestration.maintenance.backends.iceberg.vacuum.orphans import find_orphans
from aurum_orchestration.maintenance.operations.bloat import BloatParameters
from aurum_orchestration.maintenance.planner.binpack import pack
from aurum_orchestration.maintenance.planner.triggers import OVERHEAD_BYTES

MIB = 1024 * 1024


@dataclass(frozen=True)
class Part:
    """One kind of bloat. ``exact``: counted, not estimated."""

    part: str
    files: int
    bytes: int
    exact: bool
    won_back_by: str

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def small_files(live: LiveEntries, parameters: BloatParameters) -> Part:
    """Files fewer after a compaction, at what a data file takes without a row."""
    partitions: dict[tuple[int, str], list[int]] = {}
    for file in live.data:
        partitions.setdefault(partition_key(file), []).append(file.file_size_in_bytes)
    target = parameters.target_file_size_mb * MIB
    excess = sum(
        bin_.excess
        for sizes in partitions.values()
        for bin_ in pack(sizes, target, parameters.min_input_files, 16 * target)
    )
    freed = min(excess * OVERHEAD_BYTES, sum(file.file_size_in_bytes for file in live.data) // 2)
    return Part("small files", excess, freed, False, "compaction, then retention")


def deleted_rows(live: LiveEntries) -> Part:
    """Delete files, and the share of the data that position deletes hide; what equality deletes hide is not known."""
    rows = sum(file.record_count for file in live.data)
    size = sum(file.file_size_in_bytes for file in live.data)
    hidden = sum(file.record_count for file in live.deletes if file.content is DataFileContent.POSITION_DELETES)
    freed = int(size * min(1.0, hidden / rows)) if rows else 0
    freed += _size(live.deletes)
    return Part("deleted rows", len(live.deletes), freed, not live.deletes, "compaction, then retention")


def old_snapshots(table: Table) -> Part:
    """What only snapshots hold that no branch or tag points to. Raises CorruptTableError."""
    metadata = table.metadata
    heads = {ref.snapshot_id for ref in metadata.refs.values()}
    old = [snapshot for snapshot in metadata.snapshots if snapshot.snapshot_id not in heads]
    held = held_only_by(old, metadata, References(Files(table.io.properties, table.io)))
    return Part("old snapshots", held.count, held.bytes, True, "retention")


def old_metadata(table: Table) -> Part | None:
    """Metadata files of earlier commits; None where their size is not known without asking for each."""
    paths = [local_path(entry.metadata_file) for entry in table.metadata.metadata_log]
    local = [path for path in paths if path is not None]
    if len(local) < len(paths):
        return None
    sizes = [os.stat(path).st_size for path in local if os.path.exists(path)]  # noqa: PTH110, PTH116 - many
    how = "write.metadata.previous-versions-max and write.metadata.delete-after-commit.enabled"
    return Part("old metadata files", len(sizes), sum(sizes), True, how)


def orphans(table: Table, older_than_days: float) -> Part | None:
    """Old files in the table's folders that nothing refers to, as vacuum finds them; None off the local disk.

    Raises UnsupportedError when it cannot be told whose files these are.
    """
    locations = [local_path(location) for location in table_locations(table.metadata)]
    if None in locations or not Files(table.io.properties, table.io).plain:
        return None
    found = find_orphans(table, time.time() - older_than_days * 24 * 60 * 60).orphans
    return Part("orphan files", len(found), sum(file.size for file in found), True, "vacuum")


def _size(files: Sequence[DataFile]) -> int:
    return sum(file.file_size_in_bytes for file in files)
