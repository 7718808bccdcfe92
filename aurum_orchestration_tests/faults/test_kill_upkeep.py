"""kill -9 at every step of what keeps metadata healthy: manifests, statistics, bloat, backup, undo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.table import Table

from aurum_orchestration_tests.faults.killing import Case, kill_at_every_step, kill_at_some_steps, shape
from aurum_orchestration_tests.iceberg_deletes import add_position_deletes, live_data_files
from aurum_orchestration_tests.integration.upkeep.lakeside import BY_REGION, Lakeside, append


def prepared(lake: Lakeside) -> Table:
    """Six files in two partitions, a tag and a branch on their way."""
    table = lake.table(spec=BY_REGION)
    append(table, 3, region="N")
    head = table.metadata.current_snapshot_id
    assert head is not None
    table.manage_snapshots().create_tag(head, "theirs").create_branch(head, "audit").commit()
    append(table, 3, start=100, region=None)
    lake.run("stats", sample_rows=0)  # makes the history store
    return table.refresh()


def plain(lake: Lakeside) -> None:
    prepared(lake)


def with_deletes(lake: Lakeside) -> None:
    """Manifests of deletes too."""
    table = prepared(lake)
    for file in live_data_files(table)[:3]:
        add_position_deletes(table, {file.file_path: [1]})


def backed_up(lake: Lakeside) -> None:
    """One backup there is, of an older snapshot; it is the next one's to remove."""
    table = prepared(lake)
    assert lake.run("backup").status == "completed"
    append(table.refresh(), 1, start=500)


def done_already(operation: str, **parameters: Any) -> Callable[[Lakeside], Mapping[str, Any]]:
    """The operation was done, and is to be taken back."""

    def prepare(lake: Lakeside) -> Mapping[str, Any]:
        (backed_up if operation == "backup" else plain)(lake)
        done = lake.run(operation, **parameters)
        assert done.status == "completed"
        return {"undo": done.operation_id}

    return prepare


def is_backup(name: str) -> bool:
    return name.startswith("aurum_backup_")


def backups(table: Table) -> Any:
    """Which snapshots are kept by backups; the head is one of them or not."""
    kept = [ref.snapshot_id for name, ref in table.metadata.refs.items() if is_backup(name)]
    return (shape(table), [one == table.metadata.current_snapshot_id for one in sorted(kept)])


def head(table: Table) -> Any:
    return (shape(table), table.metadata.current_snapshot_id)


def told(table: Table) -> Any:
    """Whose distinct values are stored, snapshot by snapshot."""
    return (shape(table), [[one.fields for one in file.blob_metadata] for file in table.metadata.statistics])


def specs(table: Table) -> Any:
    return (head(table), table.spec())


CASES = {
    "manifests": Case("manifests", plain),
    "manifests of deletes": Case("manifests", with_deletes),
    "stats": Case("stats", plain),
    "stats that are stored": Case("stats", plain, {"ndv": True, "sample_rows": 0}, done=told),
    "bloat": Case("bloat", plain),
    "backup": Case("backup", backed_up, {"keep_last": 1}, done=backups, own_ref=is_backup),
    "undo of manifests": Case("undo", done_already("manifests"), done=head),
    "undo of compaction": Case("undo", done_already("compaction", min_input_files=2), done=head),
    "undo of partition evolution": Case(
        "undo", done_already("partition_evolution", spec=["bucket(2, id)"]), done=specs
    ),
    "undo of stats": Case("undo", done_already("stats", ndv=True), done=told),
    "undo of backup": Case("undo", done_already("backup", keep_last=1), done=backups, own_ref=is_backup),
}


QUICK = ("manifests", "backup", "undo of compaction")
"""Killed at a few steps in every test run."""


@pytest.mark.parametrize("name", QUICK)
def test_some_steps(name: str, tmp_path: Path, subtests: pytest.Subtests) -> None:
    kill_at_some_steps(tmp_path, CASES[name], subtests)


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CASES)
def test_every_step(name: str, tmp_path: Path, subtests: pytest.Subtests) -> None:
    assert kill_at_every_step(tmp_path, CASES[name], subtests) >= 4
