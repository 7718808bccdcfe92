"""Expiring snapshots: one commit that takes them out of the metadata, then the deletion of what only they held.

What could lose a row, and what prevents it:

* a ref keeps a snapshot that goes: the rules are evaluated on the metadata that is committed on, and every
  ref has to stand where it stood then. A ref made in between: catalogs whose files PyIceberg writes check
  it with the commit; behind others (REST) the metadata file before is read afterwards, and the snapshot and
  its ref are put back before anything is deleted;
* a file is deleted that something still reads: deleted is only what the plan named and nothing in the
  metadata after the commit refers to, by any spelling of its path; what cannot be read means no deletion;
* the catalog did not say whether it committed: it is read back; nothing is deleted unless that is sure.

What could leave debris: a kill after the commit leaves files that nothing refers to, which a vacuum removes;
files go before what refers to them. What could block a writer: nothing, the commit is optimistic.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.update import (
    AssertRefSnapshotId,
    RemovePartitionStatisticsUpdate,
    RemoveSnapshotRefUpdate,
    RemoveSnapshotsUpdate,
    RemoveStatisticsUpdate,
    TableRequirement,
    TableUpdate,
    ValidatableTableRequirement,
)

from aurum_orchestration.errors import CommitConflictError, StateDriftedError
from aurum_orchestration.maintenance.backends.iceberg.publish import commit_updates, reload
from aurum_orchestration.maintenance.backends.iceberg.retention.expiry import Expiry, Ref

_ATTEMPTS = 20
_IDS_AN_UPDATE = 500
"""PyIceberg looks for each snapshot to be removed among all of them: in portions this stays fast."""

_log = logging.getLogger(__name__)


def refs_of(metadata: TableMetadata) -> dict[str, Ref]:
    """The refs of a table, as the rules want them."""
    return {
        name: Ref(
            ref.snapshot_id,
            ref.snapshot_ref_type == SnapshotRefType.BRANCH,
            ref.min_snapshots_to_keep,
            ref.max_snapshot_age_ms,
            ref.max_ref_age_ms,
        )
        for name, ref in metadata.refs.items()
    }


class NoOtherRefs(ValidatableTableRequirement):
    """The table has no ref besides those named. Checked by PyIceberg on the metadata that it replaces."""

    type: str = "aurum-no-other-refs"
    refs: tuple[str, ...]

    def validate(self, base_metadata: TableMetadata | None) -> None:  # type: ignore[override] # as PyIceberg names it
        """Raise CommitFailedException when there is another ref."""
        others = [name for name in base_metadata.refs if name not in self.refs] if base_metadata else []
        if others:
            raise CommitFailedException(f"Requirement failed: {', '.join(others)} was created concurrently")


@dataclass(frozen=True)
class Expired:
    """An expiry that took place: the table after it, the refs it was decided on, failed attempts."""

    table: Table
    refs: Mapping[str, Ref]
    retries: int


def commit_expiry(table: Table, planned: Expiry, now_expirable: Callable[[TableMetadata], Expiry]) -> Expired:
    """Take the planned snapshots and refs out of the metadata.

    ``now_expirable`` says of metadata what may go: whenever a ref moved meanwhile, it is asked again. Raises
    StateDriftedError when something planned may not go any more, CommitConflictError, BackendUnavailableError,
    CommitStateUnknownError.
    """
    for attempt in range(_ATTEMPTS):
        metadata = table.metadata
        refuse_drift(planned, now_expirable(metadata), metadata)
        refs = refs_of(metadata)
        try:
            done = commit_updates(
                table, _requirements(table, refs), _updates(metadata, planned), lambda now: not _left(planned, now)
            )
        except CommitConflictError as error:
            _log.info("attempt %s: %s", attempt + 1, error)
            table = reload(table)
            continue
        return Expired(done, refs, attempt)
    raise CommitConflictError(f"{_ATTEMPTS} times in a row a ref moved before the commit")


def refuse_drift(planned: Expiry, allowed: Expiry, metadata: TableMetadata) -> None:
    """Raise StateDriftedError when something planned may not go any more."""
    if kept := set(planned.snapshots) - set(allowed.snapshots):
        one = min(kept)
        holding = [name for name, ref in metadata.refs.items() if ref.snapshot_id == one]
        by = f", now held by {', '.join(holding)}" if holding else ""
        raise StateDriftedError(f"{len(kept)} planned snapshots may not go any more, e.g. {one}{by}")
    if kept_refs := set(planned.refs) - set(allowed.refs):
        raise StateDriftedError(f"planned refs may not go any more: {', '.join(sorted(kept_refs))}")


def _left(planned: Expiry, metadata: TableMetadata) -> bool:
    """True when the metadata still has something of what was planned to go."""
    gone = set(planned.snapshots)
    return any(snapshot.snapshot_id in gone for snapshot in metadata.snapshots) or any(
        name in metadata.refs for name in planned.refs
    )


def _requirements(table: Table, refs: Mapping[str, Ref]) -> list[TableRequirement]:
    needed: list[Any] = [AssertRefSnapshotId(ref=name, snapshot_id=ref.snapshot_id) for name, ref in refs.items()]
    if isinstance(table.catalog, MetastoreCatalog):
        needed.append(NoOtherRefs(refs=tuple(refs)))
    return needed


def _updates(metadata: TableMetadata, planned: Expiry) -> Iterable[TableUpdate]:
    gone = set(planned.snapshots)
    for name in planned.refs:
        yield RemoveSnapshotRefUpdate(ref_name=name)
    for snapshot_id in dict.fromkeys(file.snapshot_id for file in metadata.statistics if file.snapshot_id in gone):
        yield RemoveStatisticsUpdate(snapshot_id=snapshot_id)
    partitions = (file.snapshot_id for file in metadata.partition_statistics if file.snapshot_id in gone)
    for snapshot_id in dict.fromkeys(partitions):
        yield RemovePartitionStatisticsUpdate(snapshot_id=snapshot_id)
    ids = [snapshot.snapshot_id for snapshot in metadata.snapshots if snapshot.snapshot_id in gone]
    for start in range(0, len(ids), _IDS_AN_UPDATE):
        yield RemoveSnapshotsUpdate(snapshot_ids=ids[start : start + _IDS_AN_UPDATE])
