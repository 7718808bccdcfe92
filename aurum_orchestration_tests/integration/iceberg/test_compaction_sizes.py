"""Sizes of what compaction writes: near the target, no small rest, and no candidate for the next plan."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import LongType, NestedField, StringType

from aurum_orchestration.maintenance.backends.iceberg.arrow_types import arrow_schema
from aurum_orchestration.maintenance.backends.iceberg.compact.rewrite import Rewrite, Source
from aurum_orchestration.maintenance.backends.iceberg.compact.writer import OpenFile, WriteOptions
from aurum_orchestration.maintenance.interfaces import RunContext
from aurum_orchestration.maintenance.operations.compaction import MIB
from aurum_orchestration.maintenance.planner.binpack import SMALL_SHARE, files_out, is_small
from aurum_orchestration_tests.iceberg_deletes import live_data_files
from aurum_orchestration_tests.integration.iceberg.support import (
    append,
    carry_out,
    compact,
    data_paths,
    digest,
    judge,
    make_table,
    open_plan,
    operations_since,
    plan_of,
)

NUMBERS = Schema(NestedField(1, "id", LongType()), NestedField(2, "word", StringType()))
ROWS_PER_MIB = 130_000  # of random longs, which nothing compresses
RNG = np.random.default_rng(1)


def rows(count: int) -> dict[str, object]:
    return {"id": RNG.integers(-(2**62), 2**62, count), "word": [None] * count}


def sizes(table: Table) -> list[float]:
    """MiB of the live data files."""
    return [file.file_size_in_bytes / MIB for file in live_data_files(table)]


def table_of(catalog: SqlCatalog, shares: Sequence[float]) -> Table:
    """Files of so many MiB each, in one commit."""
    table = make_table(catalog, NUMBERS, {"write.parquet.compression-codec": "uncompressed"})
    append(table, *(rows(int(share * ROWS_PER_MIB)) for share in shares), compression="none", use_dictionary=False)
    return table


@pytest.mark.parametrize("copy", [False, True], ids=["decoded", "copied where healthy"])
def test_files_near_the_target_and_nothing_left_to_do(catalog: SqlCatalog, copy: bool) -> None:
    table = table_of(catalog, [0.1] * 12 + [2.0, 0.7, 0.7, 0.2, 0.9])
    before, big = digest(table), {path for path in data_paths(table) if Path(path).stat().st_size > SMALL_SHARE * MIB}
    planned = plan_of(table, target_file_size_mb=1, row_group_copy=copy).steps
    compact(table, target_file_size_mb=1, row_group_copy=copy)
    assert digest(table) == before
    assert big <= set(data_paths(table))
    written = [size for path, size in zip(data_paths(table), sizes(table), strict=True) if path not in big]
    assert len(big) == 2
    assert len(written) == sum(step.detail["files_out"] for step in planned) == 3
    assert min(written) > 0.8
    assert max(written) < 1.4
    assert plan_of(table, target_file_size_mb=1, row_group_copy=copy).steps == []


def test_groups_have_a_largest_size_and_a_commit_each(catalog: SqlCatalog) -> None:
    table = table_of(catalog, [0.5] * 14)
    known = list(table.metadata.snapshots)
    before = digest(table)
    result = compact(table, target_file_size_mb=1, max_group_size_mb=3)
    inputs = [step.detail["bytes"] for step in result.plan.steps]
    assert len(inputs) == 3
    assert max(inputs) <= 3 * MIB
    assert sum(inputs) > 6.8 * MIB
    assert operations_since(table, known) == ["replace"] * 3
    assert all(0.8 < size < 1.4 for size in sizes(table))
    assert digest(table) == before
    assert plan_of(table, target_file_size_mb=1, max_group_size_mb=3).steps == []


def test_a_partition_of_fewer_small_files_than_asked_for_is_left_alone(catalog: SqlCatalog) -> None:
    table = table_of(catalog, [0.01] * 4)
    plan = plan_of(table, min_input_files=5)
    assert plan.steps == []
    assert plan.reason == "nothing to do: no partition has 5 files below 96 MiB; 4 data files in all"
    assert len(plan_of(table, min_input_files=4).steps) == 1


def test_the_same_plan_is_made_twice(catalog: SqlCatalog) -> None:
    table = table_of(catalog, [0.01] * 4)
    assert plan_of(table).plan_id == plan_of(table).plan_id


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_inputs_no_small_file_is_left(tmp_path: Path, seed: int) -> None:
    """The writer alone, over many groups: one small file only where all there is makes one small file."""
    io, schema = PyArrowFileIO(), arrow_schema(Schema(NestedField(1, "id", LongType())))
    options = WriteOptions.of({"write.parquet.compression-codec": "uncompressed"}, MIB, Schema())
    chance = random.Random(seed)
    numbers = pa.table({"id": RNG.integers(-(2**62), 2**62, ROWS_PER_MIB)}, schema=schema)
    for trial in range(15):
        sources = []
        for number in range(chance.randint(2, 9)):
            path = tmp_path / f"{trial}-{number}.parquet"
            count = chance.choice([chance.randint(1, 97_000), chance.randint(1, 2_000), 96_000])
            pq.write_table(numbers.slice(0, count), path, compression="none", use_dictionary=False)
            sources.append(Source(f"file://{path}", os.path.getsize(path), count))  # noqa: PTH202
        rewrite = Rewrite(
            io, sources, schema, options, lambda name: f"file://{tmp_path}/out-{name}", with_checksum=False
        )
        rewrite.run(RunContext("operation-1"))
        written = [file.bytes for file in rewrite.files]
        assert len(written) == 1 or not any(is_small(size, MIB) for size in written)
        assert max(written) < 1.95 * MIB
        assert abs(len(written) - files_out(sum(source.bytes for source in sources), MIB)) <= 1


def test_row_groups_are_bounded_by_what_they_take_in_memory(tmp_path: Path) -> None:
    """A column of nulls takes nothing on storage and a word per row in memory."""
    schema = arrow_schema(Schema(*(NestedField(number, f"c{number}", LongType()) for number in range(1, 31))))
    path = tmp_path / "wide.parquet"
    pq.write_table(pa.table([pa.nulls(60_000, pa.int64())] * 30, schema=schema), path)
    properties = {"write.parquet.row-group-size-bytes": str(MIB)}
    rewrite = Rewrite(
        PyArrowFileIO(),
        [Source(f"file://{path}", os.path.getsize(path), 60_000)],  # noqa: PTH202
        schema,
        WriteOptions.of(properties, 128 * MIB, Schema()),
        lambda name: f"file://{tmp_path}/out-{name}",
        with_checksum=True,
    )
    rewrite.run(RunContext("operation-1"))
    (written,) = rewrite.files
    groups = [written.metadata.row_group(index).num_rows for index in range(written.metadata.num_row_groups)]
    assert sum(groups) == 60_000
    assert max(groups) * 30 * 8 <= MIB
    assert rewrite.read_back(RunContext("operation-1")) == rewrite.before


def in_many_groups(tmp_path: Path, ahead: bool) -> Rewrite:
    """The rewrite of a file of 50,000 numbers in rising order into row groups of a tenth."""
    schema = arrow_schema(NUMBERS)
    path = tmp_path / "numbers.parquet"
    pq.write_table(pa.table([pa.array(range(50_000)), pa.nulls(50_000, pa.string())], schema=schema), path)
    return Rewrite(
        PyArrowFileIO(),
        [Source(f"file://{path}", path.stat().st_size, 50_000)],
        schema,
        WriteOptions.of({"write.parquet.row-group-limit": "5000"}, 128 * MIB, Schema()),
        lambda name: f"file://{tmp_path}/out-{name}",
        with_checksum=True,
        ahead=ahead,
    )


def test_row_groups_written_behind_the_reading_are_the_same(tmp_path: Path) -> None:
    written = []
    for ahead in (False, True):
        rewrite = in_many_groups(tmp_path, ahead)
        rewrite.run(RunContext("operation-1"))
        assert rewrite.read_back(RunContext("operation-1")) == rewrite.before
        (file,) = rewrite.files
        assert file.metadata.num_row_groups == 10
        written.append((rewrite.before, pq.read_table(file.location.removeprefix("file://"))))
    assert written[0] == written[1]
    assert written[0][1].column("id").to_pylist() == list(range(50_000))


@pytest.mark.parametrize("failing", [1, 5, 10])
def test_what_a_write_behind_the_reading_raises_is_raised(
    tmp_path: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    write = OpenFile.write

    def refuse(self: OpenFile, table: pa.Table) -> None:
        calls.append(table)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, "full")
        write(self, table)

    monkeypatch.setattr(OpenFile, "write", refuse)
    rewrite = in_many_groups(tmp_path, ahead=True)
    with pytest.raises(OSError, match="full"):
        rewrite.run(RunContext("operation-1"))
    assert len(calls) == failing
    assert rewrite.files == []


def test_progress_counts_the_bytes_of_all_groups(catalog: SqlCatalog) -> None:
    table = table_of(catalog, [0.5] * 6)
    told: list[tuple[float, float, str]] = []
    plan = plan_of(table, target_file_size_mb=1, max_group_size_mb=2)
    carry_out(open_plan(plan, table), progress=lambda *news: told.append(news))
    total = sum(step.detail["bytes"] for step in plan.steps)
    assert len(plan.steps) == 2
    assert told == sorted(told)
    assert told[-1] == (total, total, "bytes")
    assert len(told) == 6


def test_files_without_rows_vanish(catalog: SqlCatalog) -> None:
    table = make_table(catalog, NUMBERS)
    append(table, rows(0), rows(0), rows(0))
    assert compact(table).metrics["files_added"] == 0
    assert data_paths(table) == []
    append(table, rows(0), rows(5), rows(0))
    before = judge(table)
    assert compact(table).metrics["files_added"] == 1
    assert judge(table) == before
