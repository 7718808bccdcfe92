"""A small real engine: a table is a folder of text files and a list of those that count.

Rows are lines. Writers and maintenance replace the list (``CURRENT``) under a file lock, atomically,
after checking what they rely on, so that concurrent writers and two processes behave as on a lake.
Faults are put in by ``hooks``: called at a named point with the step's number.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from aurum_orchestration.errors import BackendUnavailableError, CommitConflictError, TableNotFoundError
from aurum_orchestration.fleet.table_id import TableId, discovered_by
from aurum_orchestration.maintenance.backends.base import BaseMaintenanceBackend
from aurum_orchestration.maintenance.interfaces import (
    DiscoveredTable,
    MaintenancePlan,
    OperationType,
    PlanStep,
    PolicyLookup,
    RunContext,
    TableHealth,
    Unit,
    UnitOutcome,
    Verification,
)

Hook = Callable[[int, RunContext], object]
GROUP = 4
"""Files merged into one by a step."""


class FileTable:
    """One table on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def files(self) -> list[str]:
        return list(json.loads((self.folder / "CURRENT").read_text()))

    def create(self) -> FileTable:
        self.folder.mkdir(parents=True)
        (self.folder / "CURRENT").write_text("[]")
        return self

    def append(self, *rows: str) -> None:
        name = f"{uuid.uuid4().hex}.txt"
        (self.folder / name).write_text("".join(f"{row}\n" for row in rows))
        self.replace((), (name,))

    def replace(self, old: Sequence[str], new: Sequence[str]) -> None:
        """Swap files in the list; CommitConflictError when one of the old ones is not in it any more."""
        with self._locked():
            files = self.files
            if missing := set(old) - set(files):
                raise CommitConflictError(f"{len(missing)} of the files are gone", table=self.folder.name)
            draft = self.folder / f".{uuid.uuid4().hex}"
            draft.write_text(json.dumps([*(name for name in files if name not in set(old)), *new]))
            draft.rename(self.folder / "CURRENT")

    def rows(self) -> list[str]:
        return sorted(line for name in self.files for line in (self.folder / name).read_text().splitlines())

    def leftovers(self) -> set[str]:
        """Files that staging left behind."""
        return {path.name for path in self.folder.glob("staged-*")} - set(self.files)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def fingerprint(lines: Sequence[str]) -> int:
    """Order-independent: the sum of the rows' hashes."""
    return sum(int.from_bytes(hashlib.sha256(line.encode()).digest()[:8]) for line in lines)


class MergeUnit(Unit):
    """Merges some files into one."""

    def __init__(self, step: PlanStep, table: FileTable, backend: FilesBackend) -> None:
        super().__init__(step)
        self.verify_first = backend.verify_first
        self.table, self.backend = table, backend
        self.old: list[str] = step.detail["files"]
        self.new = f"staged-{uuid.uuid4().hex}.txt"
        self.committed = False

    def stage(self, run: RunContext) -> None:
        with self.backend.at_work():
            self.before = [line for name in self.old for line in (self.table.folder / name).read_text().splitlines()]
            (self.table.folder / self.new).write_text("".join(f"{line}\n" for line in self.before))
            self.backend.reach("stage", self.step.number, run)

    def verify(self, run: RunContext) -> Verification:
        after = (self.table.folder / self.new).read_text().splitlines()
        self.backend.reach("verify", self.step.number, run)
        return Verification(
            method="row-count+multiset-checksum",
            rows_before=len(self.before),
            rows_after=len(after),
            checksum_equal=fingerprint(self.before) == fingerprint(after),
        )

    def commit(self, run: RunContext) -> UnitOutcome:
        self.backend.reach("commit", self.step.number, run)
        self.table.replace(self.old, [self.new])
        self.backend.reach("committed", self.step.number, run)
        self.backend.commits.append(self.step.number)
        return UnitOutcome(
            metrics={"files_rewritten": len(self.old), "files_added": 1, "rows_rewritten": len(self.before)},
            undo=f"put {len(self.old)} files back",
        )

    def discard(self) -> None:
        self.backend.discarded.append(self.step.number)
        (self.table.folder / self.new).unlink(missing_ok=True)

    def take_back(self, run: RunContext) -> None:
        self.backend.reach("take_back", self.step.number, run)
        self.table.replace([self.new], self.old)
        (self.table.folder / self.new).unlink()


class MergeExecution:
    def __init__(self, plan: MaintenancePlan, backend: FilesBackend) -> None:
        self.plan, self.backend = plan, backend
        self.workers: int = plan.parameters["max_concurrent_groups"]

    def units(self) -> Iterator[Unit]:
        table = self.backend.table(TableId.parse(self.plan.table))
        for step in self.plan.steps:
            yield MergeUnit(step, table, self.backend)


class FilesBackend(BaseMaintenanceBackend):
    """Tables in ``root/namespace/table``. ``hooks`` maps a point (``stage``, ``commit``, ...) to a fault."""

    def __init__(self, config: Mapping[str, Any] | None = None, *, name: str | None = None) -> None:
        super().__init__(config, name=name)
        self.root = Path(self.config["root"])
        self.hooks: dict[str, Hook] = {}
        self.verify_first = True
        self.commits: list[int] = []
        self.discarded: list[int] = []
        self.planned = 0
        self.busiest = 0
        self.connections = 0
        self._busy = 0
        self._guard = threading.Lock()

    @property
    def backend_type(self) -> str:
        return "files"

    @property
    def supported_operations(self) -> Sequence[OperationType]:
        return [OperationType.COMPACTION]

    async def _create_connection(self) -> object:
        if not self.root.is_dir():
            raise BackendUnavailableError(f"{self.root.name} is not there")
        self.connections += 1
        return object()

    def reach(self, point: str, number: int = 0, run: RunContext | None = None) -> None:
        if hook := self.hooks.get(point):
            hook(number, run or RunContext("-"))

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Counts how many are at work at the same time."""
        with self._guard:
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
        try:
            yield
        finally:
            with self._guard:
                self._busy -= 1

    def table(self, table: TableId) -> FileTable:
        return FileTable(self.root.joinpath(*table.parts))

    def discover(self, patterns: Sequence[str]) -> list[DiscoveredTable]:
        self.reach("discover")
        ids = [
            TableId(self.name, (path.parent.parent.name, path.parent.name)) for path in self.root.glob("*/*/CURRENT")
        ]
        return [DiscoveredTable(table, "files") for table in sorted(ids) if discovered_by(patterns, table)]

    def measure(self, tables: Sequence[TableId], policy: PolicyLookup) -> list[TableHealth]:
        self.reach("measure")
        return [self._measure(table) for table in tables]

    def _measure(self, table: TableId) -> TableHealth:
        files = self.table(table).files
        excess = sum(len(group) - 1 for group in _groups(files))
        size = sum((self.table(table).folder / name).stat().st_size for name in files)
        metrics = {"data_files": len(files), "small_files": len(files), "data_bytes": size, "excess_files": excess}
        return TableHealth(
            table, self.name, hashlib.sha256(repr(files).encode()).hexdigest(), datetime.now(UTC), metrics
        )

    def plan(self, table: TableId, operation: str, parameters: BaseModel) -> MaintenancePlan:
        self.planned += 1
        self.reach("plan", self.planned)
        place = self.table(table)
        if not place.folder.is_dir():
            raise TableNotFoundError(f"there is no {table}", table=str(table))
        groups = _groups(place.files)
        return MaintenancePlan(
            table=str(table),
            backend=self.name,
            operation=operation,
            parameters=parameters.model_dump(),
            reason=f"{len(place.files)} files, {len(groups)} groups to merge",
            fingerprint={"files": place.files},
            steps=[
                PlanStep(number=n, action="rewrite", summary=f"merge {len(g)} files", risk="none", detail={"files": g})
                for n, g in enumerate(groups, 1)
            ],
        )

    def open(self, plan: MaintenancePlan, run: RunContext) -> MergeExecution:
        self.reach("open", self.planned, run)
        return MergeExecution(plan, self)


def _groups(files: Sequence[str]) -> list[list[str]]:
    """Small files, those not merged yet, in groups of GROUP; a rest of one file is left alone."""
    small = [name for name in files if not name.startswith("staged-")]
    groups = [small[start : start + GROUP] for start in range(0, len(small), GROUP)]
    return [group for group in groups if len(group) > 1]
