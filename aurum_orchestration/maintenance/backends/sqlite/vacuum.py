"""VACUUM of a SQLite database: written anew without its free pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from aurum_orchestration.errors import UnsupportedError, VerificationError
from aurum_orchestration.maintenance.backends.reports import DirectUnit
from aurum_orchestration.maintenance.backends.sqlite.catalog import Target, integrity
from aurum_orchestration.maintenance.backends.sqlite.connection import value
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    OperationType,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
)
from aurum_orchestration.maintenance.operations.vacuum import VacuumParameters
from aurum_orchestration.maintenance.planner.words import count, size

_ROOM = 2.2
"""VACUUM writes a copy and a journal, each as large as the database at most."""

_RISK = "None for rows: SQLite writes a copy and puts it in place in one transaction. Writers wait for it meanwhile."


def plan(target: Target, parameters: VacuumParameters) -> MaintenancePlan:
    """One VACUUM; no step where no page is free. Raises UnsupportedError where the disk has no room for the copy."""
    target.require_database(OperationType.VACUUM)
    with target.database.look() as connection:
        pages, free, page = (
            int(value(connection, f"PRAGMA {pragma}")) for pragma in ("page_count", "freelist_count", "page_size")
        )
    told = parameters.model_dump()
    if not free:
        return target.plan(OperationType.VACUUM, told, f"none of {count(pages, 'page')} is free", [])
    needed, room = _ROOM * (pages - free) * page, shutil.disk_usage(target.database.path.parent).free
    if room < needed:
        raise UnsupportedError(
            f"VACUUM needs {size(needed)} of disk for a while, and {size(room)} are free",
            operation=OperationType.VACUUM,
            hint="Make room, or move the file to a larger disk.",
        )
    reason = f"{count(free, 'page')} of {pages:,} free, {size(free * page)}"
    step = PlanStep(
        number=1,
        action="sql",
        summary=f"Vacuum {target.id}: {reason}.",
        risk=_RISK,
        detail={"sql": "VACUUM main", "bytes": pages * page, "free_bytes": free * page},
    )
    return target.plan(OperationType.VACUUM, told, reason, [step])


def execution(plan: MaintenancePlan, target: Target) -> _Execution:
    """The VACUUM."""
    return _Execution(plan, target)


class _Execution:
    workers = 1

    def __init__(self, plan: MaintenancePlan, target: Target) -> None:
        self._plan, self._target = plan, target

    def units(self) -> Iterator[Unit]:
        """One unit per step."""
        return (_Vacuum(step, self._target) for step in self._plan.steps)


class _Vacuum(DirectUnit):
    def __init__(self, step: PlanStep, target: Target) -> None:
        super().__init__(step)
        self._database = target.database

    def commit(self, run: RunContext) -> UnitOutcome:
        """Run it, then look at the whole file. Raises LockTimeoutError, StorageWriteError, VerificationError."""
        with self._database.work(run) as connection:
            before = _bytes(value(connection, "PRAGMA page_count"), value(connection, "PRAGMA page_size"))
            connection.execute("VACUUM main")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            after = _bytes(value(connection, "PRAGMA page_count"), value(connection, "PRAGMA page_size"))
            wrong = integrity(connection)
        if wrong:
            raise VerificationError(f"after the vacuum SQLite finds {wrong[0]}", hint="Restore the last backup.")
        return UnitOutcome({"bytes_freed": max(0.0, before - after)}, undo="nothing to undo: no row was changed")


def _bytes(pages: int, page: int) -> float:
    return float(pages * page)
