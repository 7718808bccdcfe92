"""kill -9 at every step of what rewrites data files: each kind of compaction, partition evolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.table import Table
from pyiceberg.types import LongType, StringType

from aurum_orchestration_tests.faults.killing import Case, kill_at_every_step, kill_at_some_steps, shape
from aurum_orchestration_tests.iceberg_deletes import add_equality_deletes, add_position_deletes, live_data_files
from aurum_orchestration_tests.integration.iceberg.merged import live_rows
from aurum_orchestration_tests.integration.iceberg.support import append as append_files
from aurum_orchestration_tests.integration.iceberg.support import append_numbers, data_paths, fields
from aurum_orchestration_tests.integration.upkeep.lakeside import BY_REGION, Lakeside, append

FEW = {"min_input_files": 2}
NUMBERED = fields(id=LongType(), name=StringType())


def two_groups(lake: Lakeside) -> None:
    """Three files in each of two partitions, refs on their way, and a history store."""
    table = lake.table(spec=BY_REGION)
    append(table, 3, region="N")
    head = table.metadata.current_snapshot_id
    assert head is not None
    table.manage_snapshots().create_tag(head, "theirs").create_branch(head, "audit").commit()
    append(table.refresh(), 3, start=100, region=None)
    lake.run("stats", sample_rows=0)


def without_history(lake: Lakeside) -> None:
    """The first operation there ever is: it makes the history store too."""
    append(lake.table(), 3)


def with_position_deletes(lake: Lakeside) -> None:
    """Deletes of one file, and deletes over several."""
    two_groups(lake)
    table = lake.catalog.load_table("ns.t")
    paths = [file.file_path for file in live_data_files(table)]
    add_position_deletes(table, {paths[0]: [0, 1]}, file_scoped=True)
    add_position_deletes(table, {paths[1]: [3], paths[2]: [4, 5]})


def with_equality_deletes(lake: Lakeside) -> None:
    append(table := lake.table(), 4)
    add_equality_deletes(table, pa.table({"id": pa.array([5, 16, 27], pa.int64())}), ["id"])
    append(table, 1, start=5)
    lake.run("stats", sample_rows=0)


def with_large_row_groups(lake: Lakeside) -> None:
    """Two files with a row group that is copied, two small ones between them."""
    table = lake.table(schema=NUMBERED, properties={"write.parquet.row-group-limit": "500"})
    for number in range(2):
        rows = {"id": [*range(number * 1000, number * 1000 + 150)], "name": [f"name-{one % 7}" for one in range(150)]}
        append_files(table, rows, compression="zstd")
        append_numbers(table, files=1, rows=5, name=f"small-{number}")
    lake.run("stats", sample_rows=0)


def row_groups(table: Table) -> Any:
    """Files and their row groups: a rewrite without copying would make one of all."""
    return (shape(table), sorted(pq.read_metadata(path).num_row_groups for path in data_paths(table)))


def partitioned(table: Table) -> Any:
    """The partition spec, and which specs files have."""
    fields = [(field.source_id, str(field.transform)) for field in table.spec().fields]
    return (fields, sorted(file.spec_id for file in live_data_files(table)))


def head_with_deletes(table: Table) -> dict[Any, Any]:
    """The rows after equality deletes, which PyIceberg does not read."""
    return {"head": live_rows(table)}


CASES = {
    "bin-pack": Case("compaction", two_groups, FEW),
    "first ever": Case("compaction", without_history, FEW),
    "sort": Case("compaction", two_groups, {**FEW, "strategy": "sort", "sort_columns": "id desc"}),
    "row-group copy": Case("compaction", with_large_row_groups, FEW, done=row_groups),
    "position deletes": Case("compaction", with_position_deletes, FEW),
    "partition evolution": Case("partition_evolution", two_groups, {"spec": ["bucket(2, id)"]}, done=partitioned),
    "equality deletes": Case("compaction", with_equality_deletes, FEW, rows=head_with_deletes),
}


QUICK = ("bin-pack", "row-group copy", "position deletes")
"""Killed at a few steps in every test run."""


@pytest.mark.parametrize("name", QUICK)
def test_some_steps(name: str, tmp_path: Path, subtests: pytest.Subtests) -> None:
    kill_at_some_steps(tmp_path, CASES[name], subtests)


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CASES)
def test_every_step(name: str, tmp_path: Path, subtests: pytest.Subtests) -> None:
    assert kill_at_every_step(tmp_path, CASES[name], subtests) > 15
