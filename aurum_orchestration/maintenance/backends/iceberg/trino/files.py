"""Files that go with expiring snapshots: exactly, where the catalog is reachable, else estimated from summaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aurum_orchestration.maintenance.backends.iceberg.retention.expiry import Expiry
from aurum_orchestration.maintenance.backends.iceberg.trino.history import TableHistory

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.iceberg.retention.unreachable import Unreachable
    from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable


@dataclass(frozen=True)
class FilesThatGo:
    """How many files and bytes; ``exact`` with the files themselves in ``detail``."""

    count: int
    bytes: int
    exact: bool
    detail: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class FilesThatWent:
    """Planned files that are gone, and those still there though nothing refers to them."""

    files: int
    bytes: int
    left: tuple[str, ...]


def files_that_go(table: TrinoTable, history: TableHistory, expiry: Expiry) -> FilesThatGo:
    """What becomes unreachable. Raises CorruptTableError when the embedded engine cannot read what snapshots hold."""
    embedded = table.embedded
    if embedded is None:
        return estimated_files(history, expiry)
    from aurum_orchestration.maintenance.backends.iceberg.files import Files
    from aurum_orchestration.maintenance.backends.iceberg.reachability import References
    from aurum_orchestration.maintenance.backends.iceberg.retention.plan import outside, require_head
    from aurum_orchestration.maintenance.backends.iceberg.retention.unreachable import held_only_by

    metadata = embedded.metadata
    references = References(Files(embedded.io.properties, embedded.io))
    require_head(metadata, references)
    gone = set(expiry.snapshots)
    found = held_only_by([one for one in metadata.snapshots if one.snapshot_id in gone], metadata, references)
    detail = {
        "data_files": found.data_files,
        "statistics_files": found.statistics_files,
        "manifests": found.manifests,
        "manifest_lists": found.manifest_lists,
    }
    return FilesThatGo(found.count, found.bytes, True, detail, tuple(outside(found, metadata)))


def files_that_went(table: TrinoTable, detail: Mapping[str, Any]) -> FilesThatWent | None:
    """What of a step's files is gone now. None where the step has estimates only."""
    embedded = table.embedded
    if embedded is None or not detail["exact"]:
        return None
    from aurum_orchestration.maintenance.backends.iceberg.files import Files
    from aurum_orchestration.maintenance.backends.iceberg.presence import sizes_on_storage
    from aurum_orchestration.maintenance.backends.iceberg.publish import reload
    from aurum_orchestration.maintenance.backends.iceberg.reachability import References
    from aurum_orchestration.maintenance.backends.iceberg.retention.unreachable import still_unreachable

    planned = _planned(detail)
    now = reload(embedded)
    files = Files(now.io.properties, now.io)
    paths = [path for path, _ in planned.in_order()]
    there = {path for path, held in zip(paths, sizes_on_storage(files, now, paths), strict=True) if held is not None}
    sizes = {path: size for path, size in planned.in_order() if path not in there}
    debris = still_unreachable(planned, now.metadata, References(files)) if there else None
    left = tuple(path for path, _ in debris.in_order() if path in there) if debris else ()
    return FilesThatWent(len(sizes), sum(sizes.values()), left)


def _planned(detail: Mapping[str, Any]) -> Unreachable:
    from aurum_orchestration.maintenance.backends.iceberg.retention.unreachable import Unreachable

    return Unreachable(detail["data_files"], detail["manifests"], detail["manifest_lists"], detail["statistics_files"])


def estimated_files(history: TableHistory, expiry: Expiry) -> FilesThatGo:
    """What snapshots right after expiring ones took out of the table, and a manifest list for each that goes."""
    gone = set(expiry.snapshots)
    files = stored = 0
    for one in history.snapshots:
        if one.parent_snapshot_id in gone:
            files += _number(one.summary, "deleted-data-files") + _number(one.summary, "removed-delete-files")
            stored += _number(one.summary, "removed-files-size")
    return FilesThatGo(
        files + len(gone),
        stored,
        False,
        warnings=("files and bytes are estimates from the snapshots' summaries: the backend names no catalog",),
    )


def _number(summary: Mapping[str, str], name: str) -> int:
    text = summary.get(name, "0")
    return int(text) if text.isdecimal() else 0


def partition_of_file(table: TrinoTable) -> str:
    """The partition of a file as text, which a table without partitions has no column for."""
    names = {str(row[0]) for row in table.query(f"SHOW COLUMNS FROM {table.relation('$files')}").rows}
    spec = "CAST(spec_id AS varchar)" if "spec_id" in names else "''"
    return f"{spec} || json_format(CAST(partition AS json))" if "partition" in names else spec
