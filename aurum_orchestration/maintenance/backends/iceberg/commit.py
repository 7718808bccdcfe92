"""Committing a rewrite: one snapshot that swaps data files; ``replace`` where that changes no row.

What could go wrong, and what prevents it (besides what :mod:`publish` sees to):

* a file that somebody deleted meanwhile comes back: every replaced file must still be live in the head;
* a concurrent row-level delete is undone: no delete file newer than the *base* snapshot (the one the
  data was read at) may apply to a replaced file. Comparing with the head instead, as PyIceberg 0.12
  does, misses a delete that is followed by an append. Equality deletes need no conflict when the new files
  take the base's sequence number, as in Apache Iceberg: newer deletes then apply to them too, unless the
  rows change their partition: then a newer delete of either partition is a conflict, because it would
  miss rows that it hid before, or hide some that it did not;
* a deleted row comes back: a delete file leaves the metadata only when the head has no live data file
  left that it may touch, whatever was planned, and never one that is newer than the base.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
)
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation, Snapshot, ancestors_of

from aurum_orchestration.errors import CommitConflictError
from aurum_orchestration.maintenance.backends.iceberg.compact.deletes import (
    NamedPaths,
    droppable,
    is_equality,
    is_readable,
    path_bounds,
    sequence_of,
)
from aurum_orchestration.maintenance.backends.iceberg.delete_manifests import without
from aurum_orchestration.maintenance.backends.iceberg.entries import (
    ENTRIES_PER_MANIFEST,
    EntryReader,
    applies_everywhere,
    entry,
    manifests_of,
    partition_key,
    write_manifest,
)
from aurum_orchestration.maintenance.backends.iceberg.publish import (
    Committed,
    SnapshotBuilder,
    delete_quietly,
    publish,
)
from aurum_orchestration.maintenance.backends.iceberg.refusals import NEWEST_FORMAT

__all__ = ["Replacement", "check_no_conflict", "commit_replace", "delete_quietly"]


@dataclass(frozen=True, slots=True)
class Replacement:
    """What is swapped: the files replaced, by location, and the files that take their place.

    ``sequence_number`` is the data sequence number of those, by default the commit's own. With ``names``,
    delete files that touch no data file any more are dropped. ``operation`` is what the snapshot says it is.
    """

    spec_id: int
    removed: Mapping[str, DataFile]
    added: Sequence[DataFile]
    sequence_number: int | None = None
    names: NamedPaths | None = None
    operation: Operation = Operation.REPLACE

    def moved(self) -> set[tuple[int, str]]:
        """The partitions that rows leave or come to, if they change their partition."""
        left = {partition_key(file) for file in self.removed.values()}
        come_to = {partition_key(file) for file in self.added}
        return left | come_to if come_to - left else set()


def commit_replace(
    table: Table,
    base: Snapshot,
    replacement: Replacement,
    reader: EntryReader,
    properties: Mapping[str, str],
) -> Committed:
    """Commit ``replacement`` on the main branch, on top of whatever was committed since ``base``.

    ``properties`` go into the snapshot's summary. Raises CommitConflictError when a concurrent commit
    touched the replaced files, CommitStateUnknownError when even reading back does not tell.
    Whatever raises, manifests of failed attempts are removed.
    """
    snapshot_id = table.metadata.new_snapshot_id()

    def build(table: Table, head: Snapshot) -> SnapshotBuilder:
        if table.metadata.format_version > NEWEST_FORMAT:
            raise CommitConflictError(f"the table was upgraded to format version {table.metadata.format_version}")
        if head.snapshot_id != base.snapshot_id:
            check_no_conflict(table, base, head, replacement, reader)
        newest = base.sequence_number or 0
        return _Builder(
            table, head, snapshot_id, replacement=replacement, newest=newest, reader=reader, properties=properties
        )

    return publish(table, snapshot_id, build)


def check_no_conflict(
    table: Table, base: Snapshot, head: Snapshot, replacement: Replacement, reader: EntryReader
) -> None:
    """Raise CommitConflictError when a commit between ``base`` and ``head`` touches the replaced files.

    That the files are still live is checked where the new manifests are built.
    """
    metadata = table.metadata
    if all(ancestor.snapshot_id != base.snapshot_id for ancestor in ancestors_of(head, metadata)):
        raise CommitConflictError(
            f"snapshot {base.snapshot_id} is no ancestor of the head any more: rolled back or expired"
        )
    newest = base.sequence_number or 0
    removed = replacement.removed
    partitions = {partition_key(file) for file in removed.values()}
    moved = replacement.moved()
    for manifest in manifests_of(head, table.io):
        if manifest.content != ManifestContent.DELETES or manifest.sequence_number <= newest:
            continue
        for item in reader.live(manifest):
            if sequence_of(item) <= newest:
                continue
            if is_equality(item) and replacement.sequence_number is not None:
                everywhere = applies_everywhere(metadata.specs()[item.data_file.spec_id])
                touches = not everywhere and partition_key(item.data_file) in moved
            elif replacement.names is not None and not is_equality(item) and is_readable(item):
                touches = not removed.keys().isdisjoint(replacement.names.of(item.data_file))
            else:
                touches = _may_apply(item.data_file, metadata, removed, partitions)
            if touches:
                raise CommitConflictError(
                    f"snapshot {item.snapshot_id} deleted rows from files that were being rewritten"
                )


def _may_apply(
    delete: DataFile, metadata: TableMetadata, removed: Mapping[str, DataFile], partitions: set[tuple[int, str]]
) -> bool:
    """True unless it is certain that the delete file touches none of the removed files."""
    low, high = path_bounds(delete)
    if low is not None and low == high:
        return low in removed
    if applies_everywhere(metadata.specs()[delete.spec_id]):
        return True
    same_spec = any(spec_id == delete.spec_id for spec_id, _ in partitions)
    return not same_spec or partition_key(delete) in partitions


class _Builder(SnapshotBuilder):
    """The manifests and the summary of one attempt."""

    def __init__(
        self,
        table: Table,
        head: Snapshot,
        snapshot_id: int,
        *,
        replacement: Replacement,
        newest: int,
        reader: EntryReader,
        properties: Mapping[str, str],
    ) -> None:
        super().__init__(table, head, snapshot_id)
        self._replacement, self._reader, self._properties = replacement, reader, properties
        self.operation = replacement.operation
        self._newest = newest
        self._numbers = 0
        self._dropped: list[DataFile] = []

    def manifests(self) -> Sequence[ManifestFile]:
        """Those kept, and new ones for what was added, removed, and left of manifests that named removed files."""
        removed = self._replacement.removed
        specs = {file.spec_id for file in removed.values()}
        kept: list[ManifestFile] = []
        survivors: list[ManifestEntry] = []
        deleted: list[ManifestEntry] = []
        deletes: list[ManifestFile] = []
        for manifest in manifests_of(self.head, self.table.io):
            if manifest.content != ManifestContent.DATA:
                deletes.append(manifest)
                continue
            if not (manifest.has_added_files() or manifest.has_existing_files()):
                continue
            entries = self._reader.live(manifest) if manifest.partition_spec_id in specs else []
            hit = [item for item in entries if item.data_file.file_path in removed]
            if not hit:
                kept.append(manifest)
                continue
            deleted += [
                entry(
                    ManifestEntryStatus.DELETED,
                    self.snapshot_id,
                    item.data_file,
                    item,
                )
                for item in hit
            ]
            survivors += [
                entry(
                    ManifestEntryStatus.EXISTING,
                    item.snapshot_id,
                    item.data_file,
                    item,
                )
                for item in entries
                if item.data_file.file_path not in removed
            ]
        if len(deleted) != len(removed):
            gone = sorted(set(removed) - {item.data_file.file_path for item in deleted})
            raise CommitConflictError(
                f"{len(gone)} of {len(removed)} files were removed by another commit meanwhile, e.g. {gone[0]}"
                if gone
                else "a file is listed twice in the table's manifests"
            )
        added = [entry(ManifestEntryStatus.ADDED, self.snapshot_id, file) for file in self._replacement.added]
        for item in added:
            if self._replacement.sequence_number is not None:
                item.sequence_number = self._replacement.sequence_number
        remaining = list(survivors)
        if deletes:
            remaining += [item for manifest in kept for item in self._reader.live(manifest)]
        return [
            *self._write(added),
            *self._write(survivors),
            # nobody looks for rows in files that were replaced: a scan of changes leaves such snapshots out
            *self._write(deleted, with_metrics=self.operation != Operation.REPLACE),
            *kept,
            *self._without_idle(deletes, remaining),
        ]

    def _without_idle(
        self, manifests: Iterable[ManifestFile], remaining: Sequence[ManifestEntry]
    ) -> Iterable[ManifestFile]:
        """The manifests of delete files, those written anew that list one which touches nothing any more."""
        names = self._replacement.names
        self._dropped = []
        for manifest in manifests:
            if names is None or not (manifest.has_added_files() or manifest.has_existing_files()):
                yield manifest
                continue
            known = [item for item in self._reader.live(manifest) if sequence_of(item) <= self._newest]
            idle = droppable(known, remaining, self.table.metadata.specs(), names)
            if not idle:
                yield manifest
                continue
            self._dropped += [item.data_file for item in idle]
            location = self._next_location()
            yield without(self.table, manifest, {item.data_file.file_path for item in idle}, location, self.snapshot_id)

    def _next_location(self) -> str:
        location = self.location(f"{self.uuid}-m{self._numbers}.avro")
        self._numbers += 1
        self.written.append(location)
        return location

    def _write(self, entries: list[ManifestEntry], *, with_metrics: bool = True) -> Iterable[ManifestFile]:
        """Manifests of entries, each of one partition spec."""
        by_spec: dict[int, list[ManifestEntry]] = {}
        for item in entries:
            by_spec.setdefault(item.data_file.spec_id, []).append(item)
        specs = self.table.metadata.specs()
        for spec_id, alike in by_spec.items():
            for start in range(0, len(alike), ENTRIES_PER_MANIFEST):
                part = alike[start : start + ENTRIES_PER_MANIFEST]
                location = self._next_location()
                yield write_manifest(
                    self.table, location, specs[spec_id], part, self.snapshot_id, with_metrics=with_metrics
                )

    def summary(self) -> Mapping[str, str]:
        """Counts of this commit and the totals that follow from the parent's, as Apache Iceberg writes them."""
        added, removed = self._replacement.added, self._replacement.removed.values()
        counts = {
            "added-data-files": len(added),
            "deleted-data-files": len(removed),
            "added-records": sum(file.record_count for file in added),
            "deleted-records": sum(file.record_count for file in removed),
            "added-files-size": sum(file.file_size_in_bytes for file in added),
            "removed-files-size": sum(file.file_size_in_bytes for file in [*removed, *self._dropped]),
            "changed-partition-count": len({partition_key(file) for file in [*removed, *self._dropped]}),
        }
        equality = [file for file in self._dropped if file.content == DataFileContent.EQUALITY_DELETES]
        position = [file for file in self._dropped if file.content != DataFileContent.EQUALITY_DELETES]
        dropped = {
            "removed-delete-files": len(self._dropped),
            "removed-position-delete-files": len(position),
            "removed-equality-delete-files": len(equality),
            "removed-position-deletes": sum(file.record_count for file in position),
            "removed-equality-deletes": sum(file.record_count for file in equality),
        }
        before = self.head.summary.additional_properties if self.head.summary else {}
        changes = {
            "total-data-files": len(added) - len(removed),
            "total-records": counts["added-records"] - counts["deleted-records"],
            "total-files-size": counts["added-files-size"] - counts["removed-files-size"],
            "total-delete-files": -dropped["removed-delete-files"],
            "total-position-deletes": -dropped["removed-position-deletes"],
            "total-equality-deletes": -dropped["removed-equality-deletes"],
        }
        counts |= {name: count for name, count in dropped.items() if count}
        totals = {name: int(before[name]) + change for name, change in changes.items() if name in before}
        return {**{name: str(value) for name, value in {**counts, **totals}.items()}, **self._properties}
