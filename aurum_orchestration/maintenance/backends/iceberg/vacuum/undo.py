"""Taking a vacuum back: every file from its quarantine to where it was."""

from __future__ import annotations

from collections.abc import Iterable

from pyiceberg.table import Table

from aurum_orchestration.errors import UndoRefusedError
from aurum_orchestration.maintenance.backends.iceberg.rollback import (
    UndoExecution,
    UndoUnit,
    refuse_other_table,
    undo_plan,
)
from aurum_orchestration.maintenance.backends.iceberg.vacuum.orphans import places_of
from aurum_orchestration.maintenance.backends.iceberg.vacuum.places import Place
from aurum_orchestration.maintenance.backends.iceberg.vacuum.plan import SET_ASIDE
from aurum_orchestration.maintenance.backends.iceberg.vacuum.quarantine import folders, restore_quarantine
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    MaintenanceResult,
    PlanStep,
    RunContext,
    UnitOutcome,
)
from aurum_orchestration.maintenance.planner.words import count, size


def plan_restore(table: Table, result: MaintenanceResult) -> MaintenancePlan:
    """The plan that puts an operation's files back; without steps when all are back, as after an undo that was
    killed before it was recorded. Raises UndoRefusedError when there is no quarantine of it.
    """
    places = places_of(table)
    mine = [folder for folder in folders(places) if folder.operation_id == result.operation_id and folder.files]
    files = [file for folder in mine for file in folder.moved]
    if not mine and (back := _all_in_their_places(places, result)):
        return undo_plan(table, result, f"nothing to do: {count(back, 'file')} are where they were", [])
    if not mine:
        raise UndoRefusedError(
            f"there is no quarantine of operation {result.operation_id} (any more)"
            + (f": {result.undo}" if result.undo else "")
        )
    total = sum(file.size for file in files)
    step = PlanStep(
        number=1,
        action="restore",
        summary=f"Move {count(len(files), 'file')} ({size(total)}) back to where they were.",
        risk="None: nothing is overwritten, and nothing refers to these files.",
        detail={"operation_id": result.operation_id, "files": {file.location: file.size for file in files}},
    )
    return undo_plan(table, result, f"{count(len(files), 'file')} ({size(total)}) are in quarantine", [step])


def _all_in_their_places(places: Iterable[Place], result: MaintenanceResult) -> int:
    """How many files a vacuum had set aside, when each of them is where it was; else 0."""
    moved = [one for step in result.steps or () if step.action == SET_ASIDE for one in step.detail["files"]]
    for place in places:
        here = [one for one in moved if one.startswith(f"{place.root}/")]
        if None in place.stat(here):
            return 0
    return len(moved)


class RestoreUnit(UndoUnit):
    """Moves the files back."""

    def commit(self, run: RunContext) -> UnitOutcome:  # noqa: ARG002 - the base's signature
        """Move."""
        restored = restore_quarantine(self._table, self.step.detail["operation_id"])
        warnings = []
        if restored.conflicts:
            warnings.append(
                f"{count(len(restored.conflicts), 'file')} stay in quarantine, there is another at their place: "
                f"{restored.conflicts[0]}"
            )
        if restored.failures:
            warnings.append(f"{count(len(restored.failures), 'file')} could not be moved: {restored.failures[0]}")
        return UnitOutcome(
            metrics={"files_restored": restored.files, "bytes_restored": restored.bytes},
            undo="nothing takes an undo back: run the vacuum again",
            warnings=warnings,
        )


class RestoreExecution(UndoExecution):
    """A plan of :func:`plan_restore`."""

    unit = RestoreUnit

    def refuse_drift(self) -> None:
        """Raise StateDriftedError when the table is another one by now."""
        refuse_other_table(self.table, self.plan)
