"""Making a snapshot the head of main, whatever it changes: optimistic, tried again, read back when in doubt.

What could go wrong, and what prevents it:

* a commit of somebody else is lost: the catalog swaps the metadata pointer only if the branch still
  stands where the snapshot was built on; otherwise it is built again on the new head;
* the catalog does not answer at the commit: the snapshot id tells, on reading back, whether it landed;
* manifests of failed attempts stay behind: each attempt removes what it wrote, unless it may have landed.
"""

from __future__ import annotations

import logging
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException, NoSuchTableError
from pyiceberg.manifest import ManifestFile, write_manifest_list
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    AssertTableUUID,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
)
from requests import RequestException

from aurum_orchestration.errors import (
    AurumError,
    CommitConflictError,
    CommitStateUnknownError,
    TableNotFoundError,
)
from aurum_orchestration.maintenance.backends.iceberg.avro import avro_codec
from aurum_orchestration.maintenance.backends.iceberg.failures import not_written, writing

_log = logging.getLogger(__name__)

_ATTEMPTS = 20
_FIRST_WAIT, _LONGEST_WAIT = 0.02, 2.0
_SETTLING, _READ_BACK_WAITS = 0.2, (0.1, 0.5, 2.0)
_UNDER_WAY = (CommitStateUnknownException, RequestException, TimeoutError)
"""What is raised when an answer did not come: the catalog may commit later than the next look."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit that took place: the table after it, its snapshot, the one before, and failed attempts."""

    table: Table
    snapshot_id: int
    parent_id: int
    retries: int


class SnapshotBuilder(ABC):
    """One attempt at a snapshot on top of ``head``: its manifests, its manifest list, its summary."""

    operation = Operation.REPLACE
    """What the snapshot says it is: ``replace`` changes no row."""

    def __init__(self, table: Table, head: Snapshot, snapshot_id: int) -> None:
        self.table, self.head, self.snapshot_id = table, head, snapshot_id
        self.uuid = uuid.uuid4()
        self.written: list[str] = []

    @abstractmethod
    def manifests(self) -> Sequence[ManifestFile]:
        """The manifests of the snapshot; those written now are in ``written``."""

    @abstractmethod
    def summary(self) -> Mapping[str, str]:
        """What the snapshot's summary says besides the operation."""

    def prepare(self, attempt: int) -> Snapshot:
        """Write manifests and manifest list; the snapshot that points to them."""
        metadata = self.table.metadata
        manifests = list(self.manifests())
        listing = self.location(f"snap-{self.snapshot_id}-{attempt}-{self.uuid}.avro")
        sequence_number = metadata.next_sequence_number()
        self.written.append(listing)
        with write_manifest_list(
            format_version=metadata.format_version,
            output_file=self.table.io.new_output(listing),
            snapshot_id=self.snapshot_id,
            parent_snapshot_id=self.head.snapshot_id,
            sequence_number=sequence_number,
            avro_compression=avro_codec(metadata.properties),  # type: ignore[arg-type]
        ) as writer:
            writer.add_manifests(manifests)
        return Snapshot(
            snapshot_id=self.snapshot_id,
            parent_snapshot_id=self.head.snapshot_id,
            manifest_list=listing,
            sequence_number=sequence_number,
            summary=Summary(operation=self.operation, **self.summary()),
            schema_id=metadata.current_schema_id,
        )

    def remove(self) -> None:
        """Delete what this attempt wrote; it is not referenced by anything."""
        for location in self.written:
            delete_quietly(self.table, location)

    def location(self, name: str) -> str:
        """Where a metadata file of that name goes."""
        return self.table.location_provider().new_metadata_location(name)


def publish(table: Table, snapshot_id: int, build: Callable[[Table, Snapshot], SnapshotBuilder]) -> Committed:
    """Commit what ``build`` makes for the head of main, built again whenever another writer was faster.

    ``build`` raises CommitConflictError when the new head does not allow it. Raises CommitStateUnknownError
    when even reading back does not tell. Whatever raises, what failed attempts wrote is removed.
    """
    wait = _FIRST_WAIT
    for attempt in range(_ATTEMPTS):
        head = _head(table)
        builder = build(table, head)
        try:
            with writing("the commit's metadata"):
                snapshot = builder.prepare(attempt)
        except BaseException:
            builder.remove()
            raise
        try:
            return Committed(_swap(table, head, snapshot), snapshot_id, head.snapshot_id, attempt)
        except AurumError:  # the lease is lost; the catalog was not asked
            builder.remove()
            raise
        except Exception as error:
            try:
                table = _read_back(table, error, lambda now: now.snapshot_by_id(snapshot_id) is not None, wait)
            except TableNotFoundError:
                builder.remove()
                raise
            if table.metadata.snapshot_by_id(snapshot_id) is not None:
                return Committed(table, snapshot_id, head.snapshot_id, attempt)
            builder.remove()
            if not isinstance(error, CommitFailedException):
                raise not_written("the catalog did not take the commit", error) from error
            wait = min(wait * 2, _LONGEST_WAIT)
    raise CommitConflictError(f"{_ATTEMPTS} commits in a row found that another writer had been faster")


def commit_updates(
    table: Table,
    requirements: Iterable[TableRequirement],
    updates: Iterable[TableUpdate],
    took_place: Callable[[TableMetadata], bool],
) -> Table:
    """Commit changes of the metadata alone, such as of a ref, while ``requirements`` hold; the table after it.

    ``took_place`` says of metadata read back whether it has the changes. Raises CommitConflictError when a
    requirement no longer holds, StorageWriteError, BackendUnavailableError, CommitStateUnknownError.
    """
    needed, wanted = (AssertTableUUID(uuid=table.metadata.table_uuid), *requirements), tuple(updates)
    wait = _FIRST_WAIT
    for _ in range(_ATTEMPTS):
        try:
            return _commit(table, needed, wanted)
        except AurumError:  # the lease is lost; the catalog was not asked
            raise
        except Exception as error:
            table = _read_back(table, error, took_place, wait)
            if took_place(table.metadata):
                return table
            if not isinstance(error, CommitFailedException):
                raise not_written("the catalog did not take the commit", error) from error
            try:
                for requirement in needed:
                    requirement.validate(table.metadata)
            except CommitFailedException:
                raise CommitConflictError(str(error)) from error
            wait = min(wait * 2, _LONGEST_WAIT)
    raise CommitConflictError(f"{_ATTEMPTS} commits in a row found that another writer had been faster")


def move_main(metadata: TableMetadata, snapshot_id: int) -> SetSnapshotRefUpdate:
    """The update that lets main point to a snapshot, its own retention settings kept."""
    ref = metadata.refs.get(MAIN_BRANCH)
    settings = {
        "max_ref_age_ms": ref.max_ref_age_ms if ref else None,
        "max_snapshot_age_ms": ref.max_snapshot_age_ms if ref else None,
        "min_snapshots_to_keep": ref.min_snapshots_to_keep if ref else None,
    }
    return SetSnapshotRefUpdate(
        ref_name=MAIN_BRANCH,
        type=SnapshotRefType.BRANCH,
        snapshot_id=snapshot_id,
        **{name: value for name, value in settings.items() if value is not None},
    )


def reload(table: Table) -> Table:
    """The same table as its catalog has it now. Raises TableNotFoundError when it was dropped."""
    try:
        now = table.catalog.load_table(table.name())
    except NoSuchTableError as error:
        raise TableNotFoundError("the table was dropped during the operation") from error
    if now.metadata.table_uuid != table.metadata.table_uuid:
        raise TableNotFoundError("the table was dropped and created anew during the operation")
    return now


def delete_quietly(table: Table, location: str) -> None:
    """Delete a file that nothing references; a failure leaves it to the next orphan removal."""
    try:
        table.io.delete(location)
    except Exception as error:
        _log.warning("%s is left behind, the next vacuum removes it: %s", location, error)


def _head(table: Table) -> Snapshot:
    head = table.metadata.snapshot_by_name(MAIN_BRANCH)
    if head is None:
        raise CommitConflictError("the table has no snapshot any more")
    return head


def _swap(table: Table, head: Snapshot, snapshot: Snapshot) -> Table:
    """Ask the catalog to make ``snapshot`` the head of main if it still is ``head``."""
    metadata = table.metadata
    requirements = (
        AssertTableUUID(uuid=metadata.table_uuid),
        AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=head.snapshot_id),
    )
    return _commit(
        table, requirements, (AddSnapshotUpdate(snapshot=snapshot), move_main(metadata, snapshot.snapshot_id))
    )


def _commit(table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]) -> Table:
    answer = table.catalog.commit_table(table, requirements, updates)
    return Table(table.name(), answer.metadata, answer.metadata_location, table.io, table.catalog)


def _may_still_land(cause: Exception) -> bool:
    """Whether the catalog may commit later: it did not answer, or its database's connection broke before it did."""
    return isinstance(cause, _UNDER_WAY) or bool(getattr(cause, "connection_invalidated", False))


def _read_back(table: Table, cause: Exception, took_place: Callable[[TableMetadata], bool], wait: float) -> Table:
    """The table after a commit that failed. The caller looks whether it took place.

    A refusal, too, may answer the repetition of a request whose first sending landed. Where the request
    may still be under way, only what took place is an answer. Raises CommitStateUnknownError when there
    is none, TableNotFoundError when the catalog refused because the table is gone.
    """
    refused = isinstance(cause, CommitFailedException)
    unknown = f"the commit may or may not have taken place: {cause}"
    for pause in (wait if refused else _SETTLING, *_READ_BACK_WAITS):
        time.sleep(pause)
        try:
            now = reload(table)
        except TableNotFoundError as error:
            if refused:
                raise
            raise CommitStateUnknownError(f"{error.detail}; {unknown}") from cause
        except Exception:
            _log.warning("the catalog cannot be read after a commit that failed", exc_info=True)
            continue
        if not _may_still_land(cause) or took_place(now.metadata):
            return now
    raise CommitStateUnknownError(unknown) from cause
