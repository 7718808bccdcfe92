"""kill -9 of a real process at every step: the same rows, every ref intact, and the next run finishes the job."""

from __future__ import annotations

import signal
from datetime import timedelta

import pytest
from pyiceberg.table import Table

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.history import History
from aurum_orchestration_tests.forking import SERVER
from aurum_orchestration_tests.integration.upkeep.lakeside import (
    BY_REGION,
    Lakeside,
    append,
    contents,
    entries,
    files_of,
    manifests,
)
from aurum_orchestration_tests.integration.upkeep.victim import victim


def kill_at(lake: Lakeside, operation: str, point: str) -> None:
    """Let a process do the operation and be killed at the point; its lease is taken for expired then."""
    process = SERVER.Process(target=victim, args=(str(lake.home), operation, "lake.ns.t", point))
    process.start()
    process.join(240)
    if process.is_alive():
        process.kill()
        raise AssertionError(f"still running: {operation} that was to die at {point}")
    assert process.exitcode == -signal.SIGKILL, f"ended with {process.exitcode} instead of being killed"
    forget_lease(lake)


def forget_lease(lake: Lakeside) -> None:
    """The lease of a killed process expires after a minute; nobody wants to wait that long here."""
    with History(lake.settings.history_url) as history:
        lease = history.holder(TableId("lake", ("ns", "t")))
        if lease is not None:
            assert lease.ttl <= timedelta(seconds=60)
            history.release(lease)


def unreferenced(table: Table) -> set[str]:
    """Manifests and manifest lists that no snapshot names."""
    named = set()
    for snapshot in table.metadata.snapshots:
        named |= {snapshot.manifest_list, *(one.manifest_path for one in snapshot.manifests(table.io))}
    known = {path.rsplit("/", 1)[-1] for path in named}
    return {path for path in files_of(table) if path.endswith(".avro") and path.rsplit("/", 1)[-1] not in known}


def prepared(lake: Lakeside) -> Table:
    table = lake.table(spec=BY_REGION)
    append(table, 3, region="N")
    append(table, 3, start=100, region=None)
    head = table.metadata.current_snapshot_id
    assert head is not None
    table.manage_snapshots().create_tag(head, "theirs").commit()
    return table.refresh()


@pytest.mark.parametrize(
    ("point", "committed"),
    [
        ("write:1", False),
        ("half:1", False),
        ("write:2", False),
        ("half:2", False),
        ("write:3", False),
        ("commit", False),
        ("committed", True),
        ("record", True),
    ],
)
def test_a_rewrite_of_manifests(lake: Lakeside, point: str, committed: bool) -> None:
    table = prepared(lake)
    before, rows, tag = entries(table), contents(table), table.metadata.refs["theirs"]
    kill_at(lake, "manifests", point)
    table.refresh()
    assert (entries(table), contents(table), table.metadata.refs["theirs"]) == (before, rows, tag)
    assert len(manifests(table)) == (1 if committed else 6)
    # the next run finishes it, or sees that it is done
    again = lake.run("manifests")
    assert again.status == ("skipped" if committed else "completed")
    table.refresh()
    assert (entries(table), contents(table), table.metadata.refs["theirs"]) == (before, rows, tag)
    assert len(manifests(table)) == 1
    # what is left are files that nothing names, for the next vacuum; none in the data folder
    assert all(path.startswith("metadata/") for path in unreferenced(table))


@pytest.mark.parametrize("point", ["commit", "committed", "record"])
def test_a_backup(lake: Lakeside, point: str) -> None:
    table = prepared(lake)
    first = lake.run("backup")
    append(table.refresh(), 1, start=500)
    rows = contents(table)
    old = [name for name in table.refresh().metadata.refs if name.startswith("aurum_backup_")]
    assert (first.status, len(old)) == ("completed", 1)
    kill_at(lake, "backup", point)
    table.refresh()
    now = {name: ref for name, ref in table.metadata.refs.items() if name.startswith("aurum_backup_")}
    # the older one goes only after the newer one was verified
    assert set(old) <= set(now) or point == "record"
    assert len(now) == {"commit": 1, "committed": 2, "record": 1}[point]
    lake.run("backup", keep_last=1)
    table.refresh()
    left = [name for name in table.metadata.refs if name.startswith("aurum_backup_")]
    assert len(left) == 1
    assert table.metadata.refs[left[0]].snapshot_id == table.metadata.current_snapshot_id
    assert contents(table) == rows
    assert "theirs" in table.metadata.refs


@pytest.mark.parametrize("point", ["commit", "committed", "record"])
def test_an_undo(lake: Lakeside, point: str) -> None:
    table = prepared(lake)
    rows, head = contents(table), table.metadata.current_snapshot_id
    done = lake.run("manifests")
    kill_at(lake, f"undo:{done.operation_id}", point)
    assert contents(table.refresh()) == rows
    again = lake.undo(done.operation_id)
    assert again.status == ("completed" if point == "commit" else "skipped")
    table.refresh()
    assert (table.metadata.current_snapshot_id, contents(table)) == (head, rows)
    # the killed one is told as failed
    assert [str(one.status) for one in lake.recorded() if str(one.config.operation_type) == "undo"][-1] in {
        "failed",
        "running",
    }


def test_an_operation_that_was_killed_after_its_commit_can_be_undone(lake: Lakeside) -> None:
    table = prepared(lake)
    head = table.metadata.current_snapshot_id
    kill_at(lake, "manifests", "record")
    (killed,) = lake.recorded()
    undone = lake.undo(killed.operation_id)
    assert (undone.status, table.refresh().metadata.current_snapshot_id) == ("completed", head)
    statuses = [str(one.status) for one in lake.recorded()]
    assert statuses == ["completed", "failed"]
