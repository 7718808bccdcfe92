"""Whose snapshot is it: names of files that an error of Trino's tells hold the ids of statements of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from aurum_orchestration_tests.faults.trino_site import site
from aurum_orchestration_tests.integration.iceberg.support import local
from aurum_orchestration_tests.servers.trino import TrinoServer

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("embedded", [True, pytest.param(False, marks=pytest.mark.thorough)])
async def test_a_file_of_the_newest_insert_that_cannot_be_read(
    embedded: bool, trino: TrinoServer, tmp_path: Path
) -> None:
    """The error names that file, and the file the statement that wrote it: that insert is not ours to take back."""
    with site(trino, tmp_path) as table:
        before, head = table.snapshots(), table.table().metadata.current_snapshot_id
        [newest] = {task.file.file_path for task in table.table().scan(row_filter="id = 100").plan_files()}
        place = local(newest)
        away = place.rename(place.with_suffix(".away"))
        done = await table.go("compaction", options={"embedded": embedded})
        away.rename(place)
        assert done.status == "failed"
        assert done.problem is not None
        assert Path(newest).name in (done.problem.detail or "")
        assert table.table().metadata.current_snapshot_id == head, done.problem
        await table.finish("compaction", before)
