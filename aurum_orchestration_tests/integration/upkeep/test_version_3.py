"""Format version 3: what changes the metadata alone is done, and leaves everything else in it as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.table import Table

from aurum_orchestration_tests.integration.cleanup.judges import NOW, local, on_disk, reachable, rewrite_metadata
from aurum_orchestration_tests.integration.upkeep.lakeside import Lakeside, append, contents

MOVING = {"snapshots", "refs", "snapshot-log", "metadata-log", "last-updated-ms"}
"""What expiry and tags are there to change."""


def upgraded(lake: Lakeside, **more: Any) -> Table:
    """A table of four snapshots, upgraded to version 3, as Java's library leaves it; ``more`` members besides."""
    table = lake.table()
    append(table, 4)

    def upgrade(metadata: dict[str, Any]) -> None:
        metadata.update({"format-version": 3, "next-row-id": 40, **more})
        for number, snapshot in enumerate(metadata["snapshots"]):
            snapshot.update({"first-row-id": number * 10, "added-rows": 10})
        note = metadata["schemas"][0]["fields"][2]
        note.update({"initial-default": "n/a", "write-default": "none"})

    return rewrite_metadata(lake, table, upgrade)


def stored(table: Table) -> dict[str, Any]:
    """The metadata file as it lies there."""
    return dict(json.loads(Path(local(table.refresh().metadata_location)).read_text()))


def test_snapshots_expire_and_what_else_is_in_the_metadata_stays(lake: Lakeside) -> None:
    table = upgraded(lake)
    before, rows, newest = stored(table), contents(table), table.metadata.current_snapshot_id
    done = lake.run("retention", retain_last=1, **NOW)
    assert (done.status, done.problem) == ("completed", None)
    after = stored(table)
    assert [snapshot["snapshot-id"] for snapshot in after["snapshots"]] == [newest]
    parent = {"parent-snapshot-id": before["snapshots"][-2]["snapshot-id"]}  # which is gone
    assert {**after["snapshots"][0], **parent} == before["snapshots"][-1]
    assert {key: after[key] for key in after.keys() - MOVING} == {key: before[key] for key in before.keys() - MOVING}
    assert (after["format-version"], after["next-row-id"]) == (3, 40)
    assert contents(table) == rows
    assert on_disk(table) == reachable(table)


def test_a_backup_and_its_undo(lake: Lakeside) -> None:
    table = upgraded(lake)
    before = stored(table)
    done = lake.run("backup")
    assert done.status == "completed"
    tagged = stored(table)
    assert len(tagged["refs"]) == 2
    assert tagged["snapshots"] == before["snapshots"]
    assert lake.undo(done.operation_id).status == "completed"
    assert stored(table)["refs"] == before["refs"]


@pytest.mark.parametrize("member", ["encryption-keys", "something-new"])
def test_what_pyiceberg_does_not_know_is_not_dropped(lake: Lakeside, member: str) -> None:
    table = upgraded(lake, **{member: [{"key-id": "k", "encrypted-key-metadata": "x"}]})
    before, files = stored(table), on_disk(table)
    for operation in ("retention", "backup"):
        done = lake.run(operation, **({"retain_last": 1, **NOW} if operation == "retention" else {}))
        assert done.status == "skipped"
        assert member in str(done.reason)
    assert (stored(table), on_disk(table)) == (before, files)


def test_a_value_that_would_be_written_as_another_is_refused(lake: Lakeside) -> None:
    rewrite_metadata(lake, upgraded(lake), lambda metadata: metadata.update({"next-row-id": "40"}))
    done = lake.run("backup")
    assert done.status == "skipped"
    assert "next-row-id" in str(done.reason)


def test_rows_and_manifests_are_refused_with_who_could(lake: Lakeside) -> None:
    table = upgraded(lake)
    before = stored(table)
    asked: dict[str, dict[str, Any]] = {
        "compaction": {"min_input_files": 2},
        "manifests": {},
        "partition_evolution": {"spec": ["region"]},
    }
    for operation, given in asked.items():
        done = lake.run(operation, **given)
        assert done.status == "skipped", operation
        assert "version 3" in str(done.reason)
        assert "Spark" in str(done.reason)
    assert stored(table) == before
