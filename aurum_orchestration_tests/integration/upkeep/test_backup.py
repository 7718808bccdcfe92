"""Backups: refs that keep what they promise, in the right number, and never at the cost of the last good one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.snapshots import Operation

from aurum_orchestration.errors import RequestError
from aurum_orchestration_tests.integration.upkeep.lakeside import BY_REGION, Lakeside, append, contents, files_of

DAY_MS = 24 * 60 * 60 * 1000


def backups(table: Any) -> list[str]:
    return sorted(name for name in table.refresh().metadata.refs if name != "main")


def test_a_backup_keeps_the_snapshot_and_proves_it(lake: Lakeside) -> None:
    table = lake.table(spec=BY_REGION)
    append(table, 3)
    snapshot, stored = table.current_snapshot(), files_of(table)
    assert snapshot is not None
    done = lake.run("backup")
    (name,) = backups(table)
    ref = table.metadata.refs[name]
    assert name.startswith("aurum_backup_20")
    assert (done.status, done.reason) == ("completed", f"{name} will keep snapshot {snapshot.snapshot_id}")
    assert (ref.snapshot_id, ref.snapshot_ref_type) == (snapshot.snapshot_id, SnapshotRefType.TAG)
    assert done.verification is not None
    assert (done.verification.ok, done.verification.rows_before) == (True, 30)
    assert done.metrics["files_checked"] == 3
    # a ref is all there is: no file but the new metadata
    assert {path for path in files_of(table) - stored if not path.endswith(".metadata.json")} == set()


def test_a_table_is_restored_from_its_backup(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 3)
    rows = contents(table)
    lake.run("backup")
    (name,) = backups(table)
    table.delete("id < 25")
    table.append(table.scan().to_arrow())
    assert contents(table) != rows
    table.manage_snapshots().set_current_snapshot(ref_name=name).commit()
    assert contents(table.refresh()) == rows


def test_the_backup_outlives_the_expiry_of_its_snapshot(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 3)
    rows, kept = contents(table), table.metadata.current_snapshot_id
    lake.run("backup")
    append(table.refresh(), 3, start=500)
    done = lake.run("retention", retention_days=0, retain_last=1, override_floor=True, override_reason="a test")
    assert done.status == "completed"
    assert done.metrics["snapshots_expired"] > 0
    assert contents(table.refresh(), kept) == rows


def test_the_age_of_the_snapshot_does_not_count_against_the_backup(
    lake: Lakeside, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = lake.table()
    real = time.time
    with monkeypatch.context() as past:
        past.setattr(time, "time", lambda: real() - 60 * 24 * 60 * 60)
        append(table, 1)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    age = real() * 1000 - snapshot.timestamp_ms
    if age < 59 * DAY_MS:
        pytest.skip("PyIceberg does not take the time from time.time any more")
    lake.run("backup", keep_days=10)
    (name,) = backups(table)
    life = table.metadata.refs[name].max_ref_age_ms
    assert life is not None
    assert 10 * DAY_MS <= life - age < 10.1 * DAY_MS


def test_a_backup_without_an_age_has_none(lake: Lakeside) -> None:
    append(table := lake.table(), 1)
    lake.run("backup", keep_days=None)
    (name,) = backups(table)
    assert table.metadata.refs[name].max_ref_age_ms is None


def test_a_branch_keeps_its_head_only(lake: Lakeside) -> None:
    append(table := lake.table(), 2)
    lake.run("backup", kind="branch", name="copy of {timestamp}!")
    (name,) = backups(table)
    ref = table.metadata.refs[name]
    assert (ref.snapshot_ref_type, ref.min_snapshots_to_keep, ref.max_snapshot_age_ms) == (SnapshotRefType.BRANCH, 1, 1)


def test_only_older_backups_of_this_name_go_and_only_beyond_the_number(lake: Lakeside) -> None:
    table = lake.table()
    theirs = {}
    for name in (
        "aurum_backup_",
        "aurum_backup_2026",
        "xaurum_backup_20200101T000000Z",
        "aurum_backup_20200101T000000Z_",
    ):
        append(table, 1)
        head = table.metadata.current_snapshot_id
        assert head is not None
        theirs[name] = head
        table.manage_snapshots().create_tag(head, name).commit()
    for year in (2020, 2021, 2022):
        append(table, 1)
        head = table.metadata.current_snapshot_id
        assert head is not None
        table.manage_snapshots().create_tag(head, f"aurum_backup_{year}0101T000000Z").commit()
    append(table, 1)
    done = lake.run("backup", keep_last=2)
    left = [name for name in backups(table) if name not in theirs]
    assert left[0] == "aurum_backup_20220101T000000Z"
    assert len(left) == 2
    assert {name: table.metadata.refs[name].snapshot_id for name in theirs} == theirs
    assert (done.metrics["refs_created"], done.metrics["refs_removed"]) == (1, 2)


def test_what_is_backed_up_already_is_not_again(lake: Lakeside) -> None:
    append(table := lake.table(), 1)
    lake.run("backup")
    again = lake.run("backup")
    (name,) = backups(table)
    assert again.status == "skipped"
    assert again.reason == f"nothing to do: {name} keeps snapshot {table.metadata.current_snapshot_id} already"


def test_a_missing_file_is_no_backup_and_removes_none(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 1)
    lake.run("backup")
    old = backups(table)
    append(table, 1, start=50)
    lost = table.inspect.files()["file_path"][0].as_py()
    Path(lost.removeprefix("file://")).unlink()
    failed = lake.run("backup", keep_last=1)
    assert failed.status == "failed"
    assert lost in failed.reason
    assert backups(table) == old


def test_a_shortened_file_is_no_backup(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 1)
    path = Path(table.inspect.files()["file_path"][0].as_py().removeprefix("file://"))
    path.write_bytes(path.read_bytes()[:-1])
    assert lake.run("backup").status == "failed"
    assert backups(table) == []


def test_a_table_without_a_snapshot_has_nothing_to_back_up(lake: Lakeside) -> None:
    lake.table()
    assert lake.run("backup").reason == "nothing to do: the table has no snapshot to back up"


def test_undo_makes_the_refs_as_they_were(lake: Lakeside) -> None:
    table = lake.table()
    for _ in range(3):
        append(table, 1)
        lake.run("backup", keep_last=2)
        table.refresh()
        time.sleep(1.1)  # names tell seconds apart
    before = {name: ref for name, ref in table.metadata.refs.items() if name != "main"}
    append(table, 1)
    done = lake.run("backup", keep_last=1)
    assert len(backups(table)) == 1
    assert (done.undo or "").count("aurum undo") == 1
    undone = lake.undo(done.operation_id)
    assert undone.status == "completed"
    assert {name: ref for name, ref in table.refresh().metadata.refs.items() if name != "main"} == before
    again = lake.undo(done.operation_id)
    assert (again.status, again.reason) == ("skipped", "nothing to undo: no ref of it is left")


def test_undo_does_not_lose_commits_on_a_backup_branch(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 1)
    done = lake.run("backup", kind="branch")
    (name,) = backups(table)
    table.append(table.scan().to_arrow(), branch=name)
    refused = lake.undo(done.operation_id)
    assert refused.status == "failed"
    assert name in refused.reason
    assert backups(table) == [name]


def test_a_name_needs_a_timestamp(lake: Lakeside) -> None:
    append(lake.table(), 1)
    with pytest.raises(RequestError, match="timestamp"):
        lake.run("backup", name="backup")


def test_a_backup_commits_no_snapshot(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 2)
    before = [snapshot.snapshot_id for snapshot in table.metadata.snapshots]
    lake.run("backup")
    table.refresh()
    assert [snapshot.snapshot_id for snapshot in table.metadata.snapshots] == before
    assert {snapshot.summary.operation for snapshot in table.metadata.snapshots if snapshot.summary} == {
        Operation.APPEND
    }
