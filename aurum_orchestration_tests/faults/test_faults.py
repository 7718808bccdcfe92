"""Every operation under every fault: a typed error or the right result, and nothing that the next vacuum leaves.

The storage is a small disk of its own where mounting is allowed, so that a full and a read-only one are real.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import LongType, NestedField

from aurum_orchestration.errors import AurumError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.backend import HANDLERS, IcebergMaintenanceBackend
from aurum_orchestration.maintenance.factory import MaintenanceFactory
from aurum_orchestration.maintenance.flow import Tally, run_units
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, RunContext
from aurum_orchestration.maintenance.stopping import StopSignal
from aurum_orchestration_tests.faults.reading import Bag, Reader, local
from aurum_orchestration_tests.iceberg_deletes import add_position_deletes, live_data_files
from aurum_orchestration_tests.integration.iceberg.support import left_behind
from aurum_orchestration_tests.integration.upkeep.lakeside import BY_REGION, SCHEMA, append

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


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, bool]]:
    """A folder that is a disk of 2 MiB if this process may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = _mount("-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place))
    try:
        yield place, mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)  # what failed may hold a file


def _mount(*arguments: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0
    return False


@pytest.fixture
def scene(tmp_path: Path, disk: tuple[Path, bool]) -> Iterator[Scene]:
    """Two partitions of three files, position deletes, a tag, an old snapshot, an orphan: every operation has work."""
    place, mounted = disk
    uri, warehouse = f"sqlite:///{tmp_path}/catalog.db?timeout=0.2", f"file://{place}"
    with contextlib.closing(SqlCatalog("lake", uri=uri, warehouse=warehouse)) as catalog:
        catalog.create_namespace("ns")
        table = catalog.create_table("ns.t", SCHEMA, partition_spec=BY_REGION)
        append(table, 3, region="N")
        append(table, 3, start=100, region="S")
        add_position_deletes(table, {live_data_files(table)[0].file_path: [0, 1]})
        oldest = table.snapshots()[1].snapshot_id
        table.manage_snapshots().create_tag(oldest, "theirs").commit()
        (place / "ns/t/data/orphan.parquet").write_bytes(b"PAR1")
        backend = IcebergMaintenanceBackend(
            {"catalog": {"type": "sql", "uri": uri, "warehouse": warehouse}}, name="lake"
        )
        with contextlib.closing(backend.catalog):
            yield Scene(place, catalog, backend, table.refresh(), mounted)


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


# --- the storage


@pytest.mark.thorough
@pytest.mark.parametrize("free", [0, 5_000, 12_000], ids=lambda free: f"{free} bytes free")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_disk_without_space(scene: Scene, operation: str, free: int) -> None:
    if not scene.mounted:
        pytest.skip("mounting a disk of its own is not allowed here")
    before = scene.rows()
    filler = scene.disk / "filler"
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while stream.write(b"x" * 4096):
            pass
    with filler.open("r+b") as stream:
        stream.truncate(max(filler.stat().st_size - free, 0) // 4096 * 4096)
    tally, error = scene.run(operation)
    if error is not None:
        told(error, "storage-write")
    else:
        assert operation in REPORTS or tally.steps
    filler.unlink()
    heal_and_finish(scene, operation, before)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_warehouse_that_may_only_be_read(scene: Scene, operation: str) -> None:
    if not scene.mounted:
        pytest.skip("mounting a disk of its own is not allowed here")
    before = scene.rows()
    assert _mount("-o", "remount,ro", str(scene.disk))
    _, error = scene.run(operation)
    assert _mount("-o", "remount,rw", str(scene.disk))
    if operation in REPORTS:
        assert error is None
    else:
        assert error is not None
        told(error, "storage-write")
    heal_and_finish(scene, operation, before)


# --- damaged files


@pytest.mark.parametrize("which", ["manifest list", "manifest"])
def test_garbage_in_place_of_metadata_is_a_corrupt_table(scene: Scene, which: str) -> None:
    before, head = scene.rows(), scene.table.current_snapshot()
    assert head is not None
    location = head.manifest_list if which == "manifest list" else head.manifests(scene.table.io)[-1].manifest_path
    path = Path(local(location))
    content = path.read_bytes()
    path.write_bytes(b"garbage" * (len(content) // 7))
    _, error = scene.run("compaction")
    assert error is not None
    told(error, "corrupt-table")
    path.write_bytes(content)
    heal_and_finish(scene, "compaction", before)


# --- a table that vanishes, a catalog that fails


@pytest.mark.thorough
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_table_that_is_dropped_after_it_was_planned(scene: Scene, operation: str) -> None:
    stored = left_behind(scene.table)
    _, error = scene.run(operation, lambda: scene.catalog.drop_table("ns.t"))
    if error is None:
        assert operation == "bloat"  # whose report is its plan
    else:
        told(error, "table-not-found")
    scene.catalog.register_table("ns.t", scene.table.metadata_location)
    assert left_behind(scene.table) == stored


CHANGING = [one for one in OPERATIONS if one not in {*REPORTS, "vacuum"}]
"""Those that commit to the catalog."""


def at_commit(monkeypatch: pytest.MonkeyPatch, fault: Callable[[Callable[[], Any]], Any]) -> None:
    """Let ``fault`` take the place of the first commit; it is given the real one."""
    real = SqlCatalog.commit_table
    waiting = [fault]

    def commit(self: SqlCatalog, *given: Any) -> Any:
        return waiting.pop()(lambda: real(self, *given)) if waiting else real(self, *given)

    monkeypatch.setattr(SqlCatalog, "commit_table", commit)


@pytest.mark.parametrize("operation", CHANGING)
def test_a_table_that_is_dropped_before_the_commit(
    scene: Scene, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = left_behind(scene.table)

    def dropped(commit: Callable[[], Any]) -> Any:
        scene.catalog.drop_table("ns.t")
        return commit()

    at_commit(monkeypatch, dropped)
    _, error = scene.run(operation)
    assert error is not None
    told(error, "table-not-found")
    scene.catalog.register_table("ns.t", scene.table.metadata_location)
    assert left_behind(scene.table) == stored


@pytest.mark.thorough
@pytest.mark.parametrize("operation", CHANGING)
def test_an_answer_that_is_lost_after_the_commit(scene: Scene, operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = scene.rows()

    def lost(commit: Callable[[], Any]) -> Any:
        commit()
        raise TimeoutError("no answer")

    at_commit(monkeypatch, lost)
    _, error = scene.run(operation)
    assert error is None, error
    heal_and_finish(scene, operation, before)


@pytest.mark.thorough
@pytest.mark.parametrize("operation", CHANGING)
def test_a_request_that_is_lost_before_the_commit(
    scene: Scene, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = scene.rows()

    def lost(commit: Callable[[], Any]) -> Any:
        raise ConnectionResetError("the catalog went away")

    at_commit(monkeypatch, lost)
    _, error = scene.run(operation)
    assert error is not None
    told(error, "backend-unavailable")
    heal_and_finish(scene, operation, before)


@pytest.mark.thorough
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_catalog_that_another_process_locks(scene: Scene, operation: str) -> None:
    before = scene.rows()
    path = scene.disk.parent / "catalog.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin exclusive")
        _, error = scene.run(operation)
        other.execute("rollback")
    assert error is not None
    told(error, "backend-unavailable")
    heal_and_finish(scene, operation, before)


@pytest.mark.parametrize("operation", ["compaction", "backup"])
def test_a_catalog_that_is_locked_from_the_commit_on(
    scene: Scene, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can tell then: nothing is deleted, and the next run sees how it ended."""
    before = scene.rows()
    with contextlib.closing(sqlite3.connect(scene.disk.parent / "catalog.db", isolation_level=None)) as other:

        def locked(commit: Callable[[], Any]) -> Any:
            other.execute("begin exclusive")
            return commit()

        at_commit(monkeypatch, locked)
        _, error = scene.run(operation)
        other.execute("rollback")
    assert error is not None
    told(error, "commit-state-unknown")
    heal_and_finish(scene, operation, before)


# --- clocks and odd sizes


@pytest.mark.thorough
@pytest.mark.parametrize("operation", OPERATIONS)
def test_snapshots_that_say_they_were_made_tomorrow(scene: Scene, operation: str) -> None:
    path = Path(local(scene.table.metadata_location))
    metadata = json.loads(path.read_text())
    for item in (*metadata["snapshots"], *metadata["snapshot-log"]):
        item["timestamp-ms"] += 86_400_000
    metadata["last-updated-ms"] += 86_400_000
    path.write_text(json.dumps(metadata))
    scene.table.refresh()
    heal_and_finish(scene, operation, scene.rows())


@pytest.mark.thorough
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_thousand_columns(scene: Scene, operation: str) -> None:
    scene.catalog.drop_table("ns.t")
    columns = [NestedField(1, "id", LongType(), required=False)]
    columns += [NestedField(number, f"c{number}", LongType(), required=False) for number in range(2, 1001)]
    table = scene.catalog.create_table("ns.t", Schema(*columns), location=f"file://{scene.disk.parent}/wide")
    for number in range(2):
        table.append(pa.table({name.name: [number, number + 10] for name in columns}))
    table.manage_snapshots().create_tag(table.snapshots()[1].snapshot_id, "theirs").commit()
    scene.table = table.refresh()
    heal_and_finish(scene, operation, scene.rows())
