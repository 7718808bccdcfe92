"""Refs that a concurrent writer made on a snapshot while it was being expired, where the catalog cannot forbid it.

A REST catalog is given requirements about refs that are known; one made a moment before the commit is
dropped with its snapshot, silently. The metadata file that the commit replaced still names both. Nothing
has been deleted by then, so the snapshot's contents come back under a new id, and the ref with them.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import SnapshotRef
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import AddSnapshotUpdate, AssertRefSnapshotId, SetSnapshotRefUpdate

from aurum_orchestration.errors import AurumError, VerificationError
from aurum_orchestration.maintenance.backends.iceberg.publish import commit_updates, reload

_LOOK_BACK = 20
"""So many metadata files are looked at for the one that an expiry replaced: others may have committed on top."""


@dataclass(frozen=True)
class LostRef:
    """A ref that went with an expired snapshot though nobody meant it to."""

    name: str
    ref: SnapshotRef
    snapshot: Snapshot


def lost_refs(table: Table, expired: Collection[int], known: Collection[str]) -> list[LostRef] | None:
    """Refs on expired snapshots that were not ``known`` when it was decided; None when that cannot be told."""
    if isinstance(table.catalog, MetastoreCatalog):
        return []  # a requirement of the commit
    before = _metadata_before(table, expired)
    if before is None:
        return None
    return [
        LostRef(name, ref, snapshot)
        for name, ref in before.refs.items()
        if name not in known and ref.snapshot_id in expired and (snapshot := before.snapshot_by_id(ref.snapshot_id))
    ]


def put_back(table: Table, lost: Collection[LostRef], properties: Mapping[str, str]) -> Table:
    """Commit the contents of lost snapshots as new ones, and the refs on them.

    Raises VerificationError when that fails: then somebody has to look, before the next vacuum.
    """
    try:
        for one in lost:
            table = _put_back(reload(table), one, properties)
    except AurumError as error:
        names = ", ".join(f"{one.name} on snapshot {one.ref.snapshot_id}" for one in lost)
        raise VerificationError(
            f"refs made during the expiry were lost with their snapshots and could not be put back: {names}; {error}",
            hint="No file was deleted. Put them back from the metadata file before, or switch vacuum off until then.",
        ) from error
    return table


def _put_back(table: Table, lost: LostRef, properties: Mapping[str, str]) -> Table:
    metadata, ref = table.metadata, lost.ref
    settings = {
        name: value
        for name in ("max_ref_age_ms", "max_snapshot_age_ms", "min_snapshots_to_keep")
        if (value := getattr(ref, name)) is not None
    }
    summary = lost.snapshot.summary
    snapshot = lost.snapshot.model_copy(
        update={
            # an old sequence number or time would set back the table's own
            "snapshot_id": metadata.new_snapshot_id(),
            "parent_snapshot_id": None,
            "sequence_number": metadata.next_sequence_number(),
            "timestamp_ms": max(int(time.time() * 1000), metadata.last_updated_ms),
            "summary": summary and summary.model_copy(update=dict(properties)),
        }
    )
    return commit_updates(
        table,
        [AssertRefSnapshotId(ref=lost.name, snapshot_id=None)],
        [
            AddSnapshotUpdate(snapshot=snapshot),
            SetSnapshotRefUpdate(
                ref_name=lost.name, type=ref.snapshot_ref_type, snapshot_id=snapshot.snapshot_id, **settings
            ),
        ],
        lambda now: lost.name in now.refs,
    )


def _metadata_before(table: Table, expired: Collection[int]) -> TableMetadata | None:
    """The newest logged metadata that still has an expired snapshot: what the expiry replaced."""
    for entry in reversed(table.metadata.metadata_log[-_LOOK_BACK:]):
        try:
            metadata = FromInputFile.table_metadata(table.io.new_input(entry.metadata_file))
        except Exception:
            return None
        if any(snapshot.snapshot_id in expired for snapshot in metadata.snapshots):
            return metadata
    return None
