"""A table on a disk of its own and what must hold of it, whatever goes wrong."""

from __future__ import annotations

import contextlib
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from aurum_orchestration.errors import AurumError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.backend import HANDLERS, IcebergMaintenanceBackend
from aurum_orchestration.maintenance.factory import MaintenanceFactory
from aurum_orchestration.maintenance.flow import Tally, run_units
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, RunContext
from aurum_orchestration.maintenance.stopping import StopSignal
from aurum_orchestration_tests.faults.reading import Bag, Reader
from aurum_orchestration_tests.integration.iceberg.support import left_behind

TABLE = TableId("lake", ("ns", "t"))
FLOOR = {"override_floor": True, "override_reason": "a test"}
PARAMETERS: dict[str, dict[str, Any]] = {
    "compaction": {"min_input_files": 2, "max_concurrent_groups": 1},
    "retention": {"retention_days": 0, "retain_last": 1, **FLOOR},
    "vacuum": {"older_than_days": 0, **FLOOR},
    "partition_evolution": {"spec": ["bucket(3, id)"], "max_concurrent_groups": 1},
    "bloat": {"orphans_older_than_days": 0},
}
REPORTS = {"stats", "bloat"}
OPERATIONS = sorted(HANDLERS)


@dataclass
class Scene:
    """A table on a disk of its own, its rows as they have to stay, and what runs maintenance on it."""

    disk: Path
    catalog: SqlCatalog
    backend: IcebergMaintenanceBackend
    table: Table
    mounted: bool
    reader: Reader = field(default_factory=Reader)

    def rows(self) -> dict[int, Bag]:
        """Of every snapshot."""
        now = self.catalog.load_table("ns.t")
        return {one.snapshot_id: self.reader.bag(now, one, now.schema()) for one in now.snapshots()}

    def run(
        self, operation: str, between: Callable[[], Any] = lambda: None, **given: Any
    ) -> tuple[Tally, AurumError | None]:
        """Plan, let ``between`` happen, carry out. An error that is not typed is raised."""
        tally, run = Tally(), RunContext(uuid.uuid4().hex)
        made = MaintenanceFactory().create_operation(operation)
        try:
            plan: MaintenancePlan = made.plan(
                self.backend, TABLE, made.parameters({**PARAMETERS.get(operation, {}), **given})
            )
            between()
            run_units(self.backend.open(plan, run), run, tally, StopSignal(), lambda: None)
        except AurumError as error:
            return tally, error
        return tally, None


def mount(*arguments: str) -> bool:
    """Whether it could be done."""
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0
    return False


def heal_and_finish(scene: Scene, operation: str, before: dict[int, Bag]) -> None:
    """The table reads as before, the operation runs, and after a vacuum nothing is left that nothing refers to."""
    held(scene, before)
    tally, error = scene.run(operation)
    assert error is None, error
    assert all(one.ok for one in tally.verifications)
    held(scene, before)
    _, error = scene.run("vacuum", quarantine=False, quarantine_days=0)
    assert error is None, error
    # what was set aside stays until its time is over
    assert {one for one in left_behind(scene.table) if ".aurum-quarantine" not in one} == set()
    held(scene, before)


def held(scene: Scene, before: dict[int, Bag]) -> None:
    """Every snapshot that is still there shows its rows, the newest those of the newest before; the tag stands."""
    now = scene.rows()
    table = scene.catalog.load_table("ns.t")
    newest = table.metadata.current_snapshot_id
    assert newest is not None
    head = list(before)[-1]
    assert {one: rows for one, rows in now.items() if one in before} == {
        one: rows for one, rows in before.items() if one in now
    }
    assert now[newest] == before[head]
    assert table.refs()["theirs"].snapshot_id == list(before)[1]


def told(error: AurumError, *types: str) -> None:
    """The error is of a kind, says what happened and what to do."""
    problem = error.problem(table=str(TABLE))
    assert problem.type in types, problem
    assert problem.detail
    assert problem.hint
