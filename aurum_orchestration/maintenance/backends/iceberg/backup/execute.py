"""Making, verifying and removing refs of backups.

What could lose a row, block a writer or leave debris, and what prevents it:

* a backup that promises what is not there: every file of the snapshot is looked for first, and after the
  commit the ref is read back; one that is not as it should be is removed again;
* a backup that expires at once, because the age of a ref counts from its snapshot's commit: its age so far
  is added to its life;
* the last good backup goes before there is a newer one: older ones are removed in a step of their own,
  after the newer one was verified, each only if it still points where it was seen;
* somebody else's ref: only names with a timestamp in the place of the template's are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.update import AssertRefSnapshotId, RemoveSnapshotRefUpdate, SetSnapshotRefUpdate

from aurum_orchestration.errors import StateDriftedError
from aurum_orchestration.maintenance.backends.iceberg.presence import Presence, presence
from aurum_orchestration.maintenance.backends.iceberg.publish import commit_updates, reload
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
    Verification,
)

METHOD = "ref-points-to-snapshot+every-file-present"


class BackupExecution:
    """The units of a backup plan, on the table as it is now."""

    workers = 1

    def __init__(self, plan: MaintenancePlan, table: Table) -> None:
        self.plan, self.table = plan, table
        self.verified: set[str] = set()

    def units(self) -> Iterator[Unit]:
        """Make the new ref, then remove old ones. Raises StateDriftedError for another table of that name."""
        if str(self.table.metadata.table_uuid) != self.plan.fingerprint["table_uuid"]:
            raise StateDriftedError("the table was created anew", table=self.plan.table)
        for step in self.plan.steps:
            yield CreateUnit(step, self) if step.action == "create-ref" else PruneUnit(step, self)

    def check(self, snapshot_id: int, run: RunContext) -> Presence:
        """Look for every file of a snapshot. Raises StateDriftedError when it expired, CorruptTableError."""
        snapshot = self.table.metadata.snapshot_by_id(snapshot_id)
        if snapshot is None:
            raise StateDriftedError(f"snapshot {snapshot_id} has expired", table=self.plan.table)
        found = presence(self.table, snapshot, run)
        found.require(snapshot)
        return found


class CreateUnit(Unit):
    """Makes the ref of a backup; removed again when reading back does not show it."""

    verify_first = False

    def __init__(self, step: PlanStep, execution: BackupExecution) -> None:
        super().__init__(step)
        self._execution = execution
        self._found = Presence()

    def stage(self, run: RunContext) -> None:
        """Look for the files of the snapshot."""
        self._found = self._execution.check(self.step.detail["snapshot_id"], run)

    def commit(self, run: RunContext) -> UnitOutcome:
        """Make the ref, unless one of that name has appeared."""
        ref = self.step.detail
        self._execution.table = commit_updates(
            self._execution.table,
            [AssertRefSnapshotId(ref=ref["name"], snapshot_id=None)],
            [set_ref(ref["name"], ref)],
            lambda now: points_to(now, ref["name"], ref["snapshot_id"]),
        )
        return UnitOutcome(
            metrics={"refs_created": 1, "files_checked": self._found.files, "bytes_checked": self._found.bytes},
            undo=f"aurum undo {run.operation_id}: removes {ref['name']} and makes the backups again that it replaced",
            undo_data={"created": [{"name": ref["name"], "snapshot_id": ref["snapshot_id"]}]},
        )

    def verify(self, run: RunContext) -> Verification | None:  # noqa: ARG002 - the base's signature
        """Read the ref back."""
        name, wanted = self.step.detail["name"], self.step.detail
        self._execution.table = reload(self._execution.table)
        there = points_to(self._execution.table.metadata, name, wanted["snapshot_id"])
        if there:
            self._execution.verified.add(name)
        rows = self._found.rows
        return Verification(method=METHOD, rows_before=rows, rows_after=rows * there, checksum_equal=there)

    def take_back(self, run: RunContext) -> None:  # noqa: ARG002 - the base's signature
        """Remove the ref if it is there."""
        metadata, name = self._execution.table.metadata, self.step.detail["name"]
        if name in metadata.refs:
            commit_updates(
                self._execution.table, [], [RemoveSnapshotRefUpdate(ref_name=name)], lambda now: name not in now.refs
            )

    def discard(self) -> None:
        """Nothing was written."""


class PruneUnit(Unit):
    """Removes the refs of older backups, once the newest one is verified."""

    def __init__(self, step: PlanStep, execution: BackupExecution) -> None:
        super().__init__(step)
        self._execution = execution

    def stage(self, run: RunContext) -> None:
        """Look for the files of the newest backup, unless that was just done."""
        newest, execution = self.step.detail["newest"], self._execution
        ref = execution.table.metadata.refs.get(newest)
        if ref is None:
            raise StateDriftedError(f"{newest} is gone, so no older backup is removed", table=execution.plan.table)
        if newest not in execution.verified:
            execution.check(ref.snapshot_id, run)

    def verify(self, run: RunContext) -> Verification | None:  # noqa: ARG002 - the base's signature
        """Nothing is rewritten."""
        return None

    def commit(self, run: RunContext) -> UnitOutcome:
        """Remove the refs, all or none, if each still points where it was seen."""
        refs = self.step.detail["refs"]
        names = [ref["name"] for ref in refs]
        self._execution.table = commit_updates(
            self._execution.table,
            [AssertRefSnapshotId(ref=ref["name"], snapshot_id=ref["snapshot_id"]) for ref in refs],
            [RemoveSnapshotRefUpdate(ref_name=name) for name in names],
            lambda now: not any(name in now.refs for name in names),
        )
        return UnitOutcome(
            metrics={"refs_removed": len(refs)},
            undo=f"aurum undo {run.operation_id}: makes the removed backups again whose snapshots have not expired",
            undo_data={"removed": refs},
        )

    def discard(self) -> None:
        """Nothing was written."""


def set_ref(name: str, settings: Mapping[str, Any]) -> SetSnapshotRefUpdate:
    """The update that makes a ref with these settings."""
    kept = ("max_ref_age_ms", "max_snapshot_age_ms", "min_snapshots_to_keep")
    return SetSnapshotRefUpdate(
        ref_name=name,
        type=SnapshotRefType(settings["type"]),
        snapshot_id=settings["snapshot_id"],
        **{key: settings[key] for key in kept if settings[key] is not None},
    )


def points_to(metadata: TableMetadata, name: str, snapshot_id: int) -> bool:
    """True when the ref exists and points to the snapshot, which exists too."""
    ref = metadata.refs.get(name)
    return ref is not None and ref.snapshot_id == snapshot_id and metadata.snapshot_by_id(snapshot_id) is not None
