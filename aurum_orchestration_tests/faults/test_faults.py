"""Every operation under every fault: a typed error or the right result, and nothing that the next vacuum leaves.

The storage is a small disk of its own where mounting is allowed, so that a full and a read-only one are real.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField

from aurum_orchestration_tests.faults.reading import local
from aurum_orchestration_tests.faults.scene import OPERATIONS, REPORTS, Scene, heal_and_finish, mount, told
from aurum_orchestration_tests.integration.iceberg.support import left_behind

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
    assert mount("-o", "remount,ro", str(scene.disk))
    _, error = scene.run(operation)
    assert mount("-o", "remount,rw", str(scene.disk))
    if operation in REPORTS:
        assert error is None
    else:
        assert error is not None
        told(error, "storage-write")
    heal_and_finish(scene, operation, before)


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
