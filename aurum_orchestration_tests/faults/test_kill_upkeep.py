"""kill -9 at every step of what keeps metadata healthy: manifests, statistics, bloat, backup, undo."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyiceberg.table import Table

from aurum_orchestration_tests.faults.killing import Case, kill_at_every_step, kill_at_some_steps
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


def manifests(lake: Lakeside) -> None:
    prepared(lake)


CASES = {"manifests": Case("manifests", manifests)}


@pytest.mark.parametrize("name", CASES)
def test_some_steps(name: str, tmp_path: Path, subtests: pytest.Subtests) -> None:
    kill_at_some_steps(tmp_path, CASES[name], subtests)


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CASES)
def test_every_step(name: str, tmp_path: Path, subtests: pytest.Subtests) -> None:
    assert kill_at_every_step(tmp_path, CASES[name], subtests) > 5
