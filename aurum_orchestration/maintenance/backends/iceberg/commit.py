"""Committing a rewrite: one ``replace`` snapshot that swaps data files and changes no row.

What could go wrong, and what prevents it:

* a commit of somebody else is lost: the catalog swaps the metadata pointer only if the branch still
  stands where this commit was built on; otherwise it is built again on the new head, without
  rewriting data;
* a file that somebody deleted meanwhile comes back: every replaced file must still be live in the head;
* a concurrent row-level delete is undone: no delete file newer than the *base* snapshot (the one the
  data was read at) may apply to a replaced file. Comparing with the head instead, as PyIceberg 0.12
  does, misses a delete that is followed by an append;
* the catalog does not answer at the commit: the snapshot id tells, on reading back, whether it landed.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pyiceberg.exceptions import (
    CommitFailedException,
    NoSuchTableError,
)
from pyiceberg.manifest import (
    DataFile,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    write_manifest_list,
)
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot, Summary, ancestors_of
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    AssertTableUUID,
    SetSnapshotRefUpdate,
)

from aurum_orchestration.errors import (
    BackendUnavailableError,
    CommitConflictError,
    CommitStateUnknownError,
    TableNotFoundError,
)
from aurum_orchestration.maintenance.backends.iceberg.entries import (
    ENTRIES_PER_MANIFEST,
    EntryReader,
    entry,
    partition_key,
    write_manifest,
)

_log = logging.getLogger(__name__)

_ATTEMPTS = 20
_FIRST_WAIT, _LONGEST_WAIT = 0.02, 2.0


@dataclass(frozen=True, slots=True)
class Replacement:
    """What is swapped: the files replaced, by location, and the files that take their place."""

    spec_id: int
    removed: Mapping[str, DataFile]
    added: Sequence[DataFile]


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit that took place: the table after it, its snapshot, the one before, and failed attempts."""

    table: Table
    snapshot_id: int
    parent_id: int
    retries: int


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
    wait = _FIRST_WAIT
    for attempt in range(_ATTEMPTS):
        head = _head(table)
        if head.snapshot_id != base.snapshot_id:
            check_no_conflict(table, base, head, replacement.removed, reader)
        builder = _Builder(table, head, replacement, reader, snapshot_id)
        try:
            snapshot = builder.prepare(properties, attempt)
        except BaseException:
            builder.remove()
            raise
        try:
            table = _swap(table, head, snapshot)
        except CommitFailedException:
            builder.remove()
            time.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)
            table = _reload(table)
            continue
        except Exception as error:
            if not _landed(table, snapshot_id, error):
                builder.remove()
                raise BackendUnavailableError(f"the catalog did not take the commit: {error}") from error
            table = _reload(table)
        return Committed(table, snapshot_id, head.snapshot_id, attempt)
    raise CommitConflictError(f"{_ATTEMPTS} commits in a row found that another writer had been faster")


def _head(table: Table) -> Snapshot:
    head = table.metadata.snapshot_by_name(MAIN_BRANCH)
    if head is None:
        raise CommitConflictError("the table has no snapshot any more")
    return head


def _reload(table: Table) -> Table:
    try:
        now = table.catalog.load_table(table.name())
    except NoSuchTableError as error:
        raise TableNotFoundError("the table was dropped during the operation") from error
    if now.metadata.table_uuid != table.metadata.table_uuid:
        raise TableNotFoundError("the table was dropped and created anew during the operation")
    return now


def _landed(table: Table, snapshot_id: int, cause: Exception) -> bool:
    """Read back whether a commit whose answer was lost took place."""
    for wait in (0.1, 0.5, 2.0):
        try:
            return any(item.snapshot_id == snapshot_id for item in _reload(table).metadata.snapshots)
        except TableNotFoundError:
            raise
        except Exception:
            time.sleep(wait)
    raise CommitStateUnknownError(f"snapshot {snapshot_id} may or may not have been committed: {cause}") from cause


def _swap(table: Table, head: Snapshot, snapshot: Snapshot) -> Table:
    """Ask the catalog to make ``snapshot`` the head of main if it still is ``head``."""
    metadata = table.metadata
    answer = table.catalog.commit_table(
        table,
        (
            AssertTableUUID(uuid=metadata.table_uuid),
            AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=head.snapshot_id),
        ),
        (
            AddSnapshotUpdate(snapshot=snapshot),
            SetSnapshotRefUpdate(
                ref_name=MAIN_BRANCH,
                type=SnapshotRefType.BRANCH,
                snapshot_id=snapshot.snapshot_id,
                **_retention(metadata),
            ),
        ),
    )
    return Table(table.name(), answer.metadata, answer.metadata_location, table.io, table.catalog)


def check_no_conflict(
    table: Table, base: Snapshot, head: Snapshot, removed: Mapping[str, DataFile], reader: EntryReader
) -> None:
    """Raise CommitConflictError when a commit between ``base`` and ``head`` touches ``removed`` files.

    That the files are still live is checked where the new manifests are built.
    """
    metadata = table.metadata
    if all(ancestor.snapshot_id != base.snapshot_id for ancestor in ancestors_of(head, metadata)):
        raise CommitConflictError(f"snapshot {base.snapshot_id} is no ancestor of the head any more: rolled back")
    newest = base.sequence_number or 0
    partitions = {partition_key(file) for file in removed.values()}
    for manifest in head.manifests(table.io):
        if manifest.content != ManifestContent.DELETES or manifest.sequence_number <= newest:
            continue
        for item in reader.live(manifest):
            if (item.sequence_number or 0) > newest and _may_apply(item.data_file, metadata, removed, partitions):
                raise CommitConflictError(
                    f"snapshot {item.snapshot_id} deleted rows from files that were being rewritten"
                )


def _may_apply(
    delete: DataFile, metadata: TableMetadata, removed: Mapping[str, DataFile], partitions: set[tuple[int, str]]
) -> bool:
    """True unless it is certain that the delete file touches none of the removed files."""
    low, high = _path_bounds(delete)
    if low is not None and low == high:
        return low in removed
    if metadata.specs()[delete.spec_id].is_unpartitioned():
        return True
    same_spec = any(spec_id == delete.spec_id for spec_id, _ in partitions)
    return not same_spec or partition_key(delete) in partitions


_FILE_PATH_ID = 2147483546
"""Field id of ``file_path`` in position delete files (https://iceberg.apache.org/spec/#reserved-field-ids)."""


def _path_bounds(delete: DataFile) -> tuple[str | None, str | None]:
    """Lowest and highest data file that a position delete file names, when it says so."""
    low = (delete.lower_bounds or {}).get(_FILE_PATH_ID)
    high = (delete.upper_bounds or {}).get(_FILE_PATH_ID)
    return (low.decode() if low else None, high.decode() if high else None)


class _Builder:
    """The manifests, manifest list and snapshot of one attempt."""

    def __init__(
        self, table: Table, head: Snapshot, replacement: Replacement, reader: EntryReader, snapshot_id: int
    ) -> None:
        self._table, self._head, self._replacement = table, head, replacement
        self._reader, self._snapshot_id = reader, snapshot_id
        self._uuid = uuid.uuid4()
        self._numbers = 0
        self.written: list[str] = []

    def prepare(self, properties: Mapping[str, str], attempt: int) -> Snapshot:
        """Write manifests and manifest list; the snapshot that points to them."""
        metadata = self._table.metadata
        manifests = self._manifests()
        listing = self._location(f"snap-{self._snapshot_id}-{attempt}-{self._uuid}.avro")
        sequence_number = metadata.next_sequence_number()
        self.written.append(listing)
        with write_manifest_list(
            format_version=metadata.format_version,
            output_file=self._table.io.new_output(listing),
            snapshot_id=self._snapshot_id,
            parent_snapshot_id=self._head.snapshot_id,
            sequence_number=sequence_number,
            avro_compression=metadata.properties.get("write.avro.compression-codec", "gzip"),  # type: ignore[arg-type]
        ) as writer:
            writer.add_manifests(manifests)
        return Snapshot(
            snapshot_id=self._snapshot_id,
            parent_snapshot_id=self._head.snapshot_id,
            manifest_list=listing,
            sequence_number=sequence_number,
            summary=self._summary(properties),
            schema_id=metadata.current_schema_id,
        )

    def remove(self) -> None:
        """Delete what this attempt wrote; it is not referenced by anything."""
        for location in self.written:
            delete_quietly(self._table, location)

    def _manifests(self) -> list[ManifestFile]:
        removed = self._replacement.removed
        kept: list[ManifestFile] = []
        survivors: list[ManifestEntry] = []
        deleted: list[ManifestEntry] = []
        for manifest in self._head.manifests(self._table.io):
            if manifest.content != ManifestContent.DATA:
                kept.append(manifest)
                continue
            if not (manifest.has_added_files() or manifest.has_existing_files()):
                continue
            entries = self._reader.live(manifest) if manifest.partition_spec_id == self._replacement.spec_id else []
            hit = [item for item in entries if item.data_file.file_path in removed]
            if not hit:
                kept.append(manifest)
                continue
            deleted += [
                entry(
                    ManifestEntryStatus.DELETED,
                    self._snapshot_id,
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
        added = [entry(ManifestEntryStatus.ADDED, self._snapshot_id, file) for file in self._replacement.added]
        return [*self._write(added), *self._write(survivors), *self._write(deleted), *kept]

    def _write(self, entries: list[ManifestEntry]) -> Iterable[ManifestFile]:
        spec = self._table.metadata.specs()[self._replacement.spec_id]
        for start in range(0, len(entries), ENTRIES_PER_MANIFEST):
            part = entries[start : start + ENTRIES_PER_MANIFEST]
            location = self._location(f"{self._uuid}-m{self._numbers}.avro")
            self._numbers += 1
            self.written.append(location)
            yield write_manifest(self._table, location, spec, part, self._snapshot_id)

    def _location(self, name: str) -> str:
        return self._table.location_provider().new_metadata_location(name)

    def _summary(self, properties: Mapping[str, str]) -> Summary:
        """Counts of this commit and the totals that follow from the parent's, as Apache Iceberg writes them."""
        added, removed = self._replacement.added, self._replacement.removed.values()
        counts = {
            "added-data-files": len(added),
            "deleted-data-files": len(removed),
            "added-records": sum(file.record_count for file in added),
            "deleted-records": sum(file.record_count for file in removed),
            "added-files-size": sum(file.file_size_in_bytes for file in added),
            "removed-files-size": sum(file.file_size_in_bytes for file in removed),
            "changed-partition-count": len({partition_key(file) for file in removed}),
        }
        before = self._head.summary.additional_properties if self._head.summary else {}
        changes = {
            "total-data-files": len(added) - len(removed),
            "total-records": 0,
            "total-files-size": counts["added-files-size"] - counts["removed-files-size"],
            "total-delete-files": 0,
            "total-position-deletes": 0,
            "total-equality-deletes": 0,
        }
        totals = {name: int(before[name]) + change for name, change in changes.items() if name in before}
        return Summary(
            operation=Operation.REPLACE,
            **{name: str(value) for name, value in {**counts, **totals}.items()},
            **properties,
        )


def _retention(metadata: TableMetadata) -> dict[str, int]:
    """The main branch's own retention settings: setting a ref anew would drop them."""
    ref = metadata.refs.get(MAIN_BRANCH)
    settings = {
        "max_ref_age_ms": ref.max_ref_age_ms if ref else None,
        "max_snapshot_age_ms": ref.max_snapshot_age_ms if ref else None,
        "min_snapshots_to_keep": ref.min_snapshots_to_keep if ref else None,
    }
    return {name: value for name, value in settings.items() if value is not None}


def delete_quietly(table: Table, location: str) -> None:
    """Delete a file that nothing references; a failure leaves it to the next orphan removal."""
    try:
        table.io.delete(location)
    except Exception as error:
        _log.warning("%s is left behind, the next vacuum removes it: %s", location, error)
