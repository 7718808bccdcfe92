"""What a vacuum would do now, as data: files to set aside, and quarantines whose time is over."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from pyiceberg.table import Table

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.reachability import refuse_foreign_files
from aurum_orchestration.maintenance.backends.iceberg.vacuum.neighbours import refuse_neighbours
from aurum_orchestration.maintenance.backends.iceberg.vacuum.orphans import QUARANTINE, Found, find_orphans
from aurum_orchestration.maintenance.backends.iceberg.vacuum.places import Stored
from aurum_orchestration.maintenance.backends.iceberg.vacuum.quarantine import Folder, folders
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType, PlanStep
from aurum_orchestration.maintenance.operations.vacuum import VacuumParameters
from aurum_orchestration.maintenance.planner.words import count, size

SET_ASIDE, DELETE, PURGE = "quarantine", "delete", "purge"
DAY = 86_400.0


def plan_vacuum(table: Table, table_id: TableId, parameters: VacuumParameters) -> MaintenancePlan:
    """The plan for a table as it is now.

    Raises UnsupportedError when it cannot be told whose files these are, CorruptTableError when what the table
    refers to cannot be read, BackendUnavailableError when its storage cannot be listed.
    """
    metadata = table.metadata
    refuse_foreign_files(metadata, OperationType.VACUUM)
    refuse_neighbours(table)
    now = time.time()
    found = find_orphans(table, now - parameters.older_than_days * DAY, dropped_tables=parameters.dropped_tables)
    over = [
        folder
        for folder in folders(found.places)
        if folder.since is not None and folder.since < now - parameters.quarantine_days * DAY
    ]
    steps = [_purge_step(number, folder) for number, folder in enumerate(over, 1)]
    if found.orphans:
        steps.append(_orphans_step(len(steps) + 1, found.orphans, parameters))
    return MaintenancePlan(
        table=str(table_id),
        backend=table_id.backend,
        operation=OperationType.VACUUM,
        parameters=parameters.model_dump(),
        reason=_reason(found, over, parameters),
        fingerprint={
            "table_uuid": str(metadata.table_uuid),
            "snapshot_id": metadata.current_snapshot_id,
        },
        steps=steps,
        warnings=found.warnings,
    )


def _orphans_step(number: int, orphans: Sequence[Stored], parameters: VacuumParameters) -> PlanStep:
    total = sum(file.size for file in orphans)
    what = f"{count(len(orphans), 'file')} ({size(total)}) that nothing refers to"
    days = f"{parameters.quarantine_days:g} days"
    return PlanStep(
        number=number,
        action=SET_ASIDE if parameters.quarantine else DELETE,
        summary=f"Move {what} into {QUARANTINE} for {days}." if parameters.quarantine else f"Delete {what}.",
        risk=(
            f"None for readers and writers; for {days} an undo puts every file back."
            if parameters.quarantine
            else "Final. Each file is looked up again in what the table refers to right before."
        ),
        detail={"files": {file.location: file.size for file in orphans}, "bytes": total},
    )


def _purge_step(number: int, folder: Folder) -> PlanStep:
    total = sum(file.size for file in folder.moved)
    return PlanStep(
        number=number,
        action=PURGE,
        summary=f"Delete {count(len(folder.moved), 'file')} ({size(total)}) quarantined by {folder.operation_id}.",
        risk="Final: after this the files cannot be put back.",
        detail={
            "folder": folder.location,
            "files": {file.location: file.size for file in folder.moved},
            "bytes": total,
        },
    )


def _reason(found: Found, over: Iterable[Folder], parameters: VacuumParameters) -> str:
    purged = [folder.operation_id for folder in over]
    if not found.orphans and not purged:
        return (
            f"nothing to do: of {count(found.listed, 'file')} each is referred to, "
            f"or younger than {parameters.older_than_days:g} days"
        )
    total = sum(file.size for file in found.orphans)
    told = [
        f"{count(len(found.orphans), 'file')} of {found.listed:,} ({size(total)}) are referred to by nothing and older "
        f"than {parameters.older_than_days:g} days"
    ] * bool(found.orphans)
    told += [f"{count(len(purged), 'quarantine')} older than {parameters.quarantine_days:g} days"] * bool(purged)
    return "; ".join(told)
