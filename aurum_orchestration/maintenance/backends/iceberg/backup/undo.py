"""Taking back a backup: its ref goes, and the older ones that it replaced are made again."""

from __future__ import annotations

from pyiceberg.table import Table
from pyiceberg.table.update import AssertRefSnapshotId, RemoveSnapshotRefUpdate

from aurum_orchestration.errors import UndoRefusedError
from aurum_orchestration.maintenance.backends.iceberg.backup.execute import points_to, set_ref
from aurum_orchestration.maintenance.backends.iceberg.publish import commit_updates
from aurum_orchestration.maintenance.backends.iceberg.rollback import UndoExecution, UndoUnit, undo_plan
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    MaintenanceResult,
    PlanStep,
    RunContext,
    UnitOutcome,
)

_RISK = "None for rows: refs only. A snapshot that no other ref keeps may expire from then on."


def plan_undo(table: Table, result: MaintenanceResult) -> MaintenancePlan:
    """The refs to remove and to make again. Raises UndoRefusedError when a branch has got commits of its own."""
    data, metadata = result.undo_data or {}, table.metadata
    created = [ref for ref in data.get("created", ()) if ref["name"] in metadata.refs]
    moved = [ref["name"] for ref in created if not points_to(metadata, ref["name"], ref["snapshot_id"])]
    if moved:
        raise UndoRefusedError(f"{', '.join(moved)} points to another snapshot by now, which would be lost")
    removed = [ref for ref in data.get("removed", ()) if ref["name"] not in metadata.refs]
    again = [ref for ref in removed if metadata.snapshot_by_id(ref["snapshot_id"]) is not None]
    gone = len(removed) - len(again)
    expired = f"; {gone:,} cannot be made again, their snapshots have expired" if gone else ""
    if not created and not again:
        return undo_plan(table, result, f"nothing to undo: no ref of it is left{expired}", [])
    summary = f"Remove {len(created):,} refs, make {len(again):,} again{expired}."
    step = PlanStep(number=1, action="refs", summary=summary, risk=_RISK, detail={"remove": created, "make": again})
    return undo_plan(table, result, summary, [step])


class _RefsUnit(UndoUnit):
    def commit(self, run: RunContext) -> UnitOutcome:  # noqa: ARG002 - the base's signature
        """Change all refs at once, if each is as it was seen."""
        remove, make = self.step.detail["remove"], self.step.detail["make"]
        commit_updates(
            self._table,
            [
                *(AssertRefSnapshotId(ref=ref["name"], snapshot_id=ref["snapshot_id"]) for ref in remove),
                *(AssertRefSnapshotId(ref=ref["name"], snapshot_id=None) for ref in make),
            ],
            [
                *(set_ref(ref["name"], ref) for ref in make),
                *(RemoveSnapshotRefUpdate(ref_name=ref["name"]) for ref in remove),
            ],
            lambda now: (
                not any(ref["name"] in now.refs for ref in remove)
                and all(points_to(now, ref["name"], ref["snapshot_id"]) for ref in make)
            ),
        )
        return UnitOutcome(
            metrics={"refs_removed": len(remove), "refs_created": len(make)},
            undo="nothing takes an undo back: run the backup again",
        )


class BackupUndo(UndoExecution):
    """A plan of :func:`plan_undo`: one commit for all refs."""

    unit = _RefsUnit
