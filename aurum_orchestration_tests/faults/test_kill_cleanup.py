"""kill -9 at every step of what takes things away: retention, vacuum with and without quarantine, its undo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyiceberg.table import Table

from aurum_orchestration_tests.faults.killing import Case, kill_at_every_step, kill_at_some_steps
from aurum_orchestration_tests.integration.cleanup.judges import (
    DAY,
    NOW,
    age_all,
    aged,
    everything,
    names,
    plant,
    quarantined,
    rewrite_metadata,
)
from aurum_orchestration_tests.integration.upkeep.lakeside import BY_REGION, Lakeside, append, contents, rows

ORPHANS = ("data/lost.parquet", "data/region=N/lost.parquet", "metadata/lost-m0.avro", "metadata/snap-1-lost.avro")


def by_ref(table: Table) -> dict[str, Any]:
    """The rows that each ref leads to, the refs themselves, and how many snapshots there are."""
    found: dict[str, Any] = {name: contents(table, ref.snapshot_id) for name, ref in table.metadata.refs.items()}
    return {**found, "refs": dict(table.metadata.refs), "snapshots": len(table.metadata.snapshots)}


def with_history(lake: Lakeside) -> Table:
    """Files that only old snapshots have, a branch with rows of its own, a tag, another one past its age."""
    table = lake.table(spec=BY_REGION)
    append(table, 2, region="N")
    head = table.metadata.current_snapshot_id
    assert head is not None
    table.manage_snapshots().create_tag(head, "theirs").create_branch(head, "work").commit()
    table.append(rows(table, 300, region="branch"), branch="work")
    append(table, 1, start=100, region="S")
    here = table.refresh().metadata.current_snapshot_id
    assert here is not None
    table.manage_snapshots().create_tag(here, "old", max_ref_age_ms=DAY * 1000).commit()
    table.overwrite(rows(table, 200, region="N"))
    lake.run("stats", sample_rows=0)  # makes the history store
    return aged(lake, table.refresh(), days=30)


def expiring(lake: Lakeside) -> None:
    table = with_history(lake)
    assert set(table.metadata.refs) == {"main", "theirs", "work", "old"}


def with_orphans(lake: Lakeside) -> Table:
    """Orphans in several folders, and files of a snapshot whose metadata is gone."""
    table = with_history(lake)
    plant(table, *ORPHANS)
    head = table.metadata.current_snapshot_id

    def forget(metadata: dict[str, Any]) -> None:
        kept = [one for one in metadata["snapshots"] if one["snapshot-id"] == head]
        kept[0].pop("parent-snapshot-id")
        metadata["snapshots"], metadata["snapshot-log"] = kept, metadata["snapshot-log"][-1:]
        metadata["refs"] = {"main": metadata["refs"]["main"]}

    table = rewrite_metadata(lake, table, forget)
    age_all(table)
    return table


def set_aside_before(lake: Lakeside) -> None:
    """One quarantine that is over, and new orphans."""
    table = with_orphans(lake)
    lake.run("vacuum")
    assert quarantined(table)
    age_all(table)
    plant(table, *(f"{one}.2" for one in ORPHANS))


def undoing(lake: Lakeside) -> dict[str, Any]:
    with_orphans(lake)
    done = lake.run("vacuum")
    assert done.metrics["files_quarantined"] > len(ORPHANS)
    return {"undo": done.operation_id}


def where_files_are(table: Table) -> tuple[list[str], list[str]]:
    """Names of files in quarantine and of those in their places, without metadata files, manifests and their drafts."""
    told = {path for path in everything(table) if not path.name.startswith("manifest.jsonl") and path.suffix != ".json"}
    aside = quarantined(table)
    return names(told & aside), names(told - aside)


CASES = {
    "retention": Case("retention", expiring, {"retain_last": 1, **NOW}, done=by_ref, may_expire=True),
    "vacuum": Case("vacuum", set_aside_before, done=where_files_are),
    "vacuum without quarantine": Case("vacuum", set_aside_before, {"quarantine": False}, done=where_files_are),
    "undo of vacuum": Case("undo", undoing, done=where_files_are),
}


@pytest.mark.parametrize("name", CASES)
def test_some_steps(name: str, tmp_path: Path, subtests: pytest.Subtests) -> None:
    kill_at_some_steps(tmp_path, CASES[name], subtests)


@pytest.mark.thorough
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", CASES)
def test_every_step(name: str, tmp_path: Path, subtests: pytest.Subtests) -> None:
    assert kill_at_every_step(tmp_path, CASES[name], subtests) > len(ORPHANS)
