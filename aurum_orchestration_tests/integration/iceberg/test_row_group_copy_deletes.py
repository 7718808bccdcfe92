"""Row-group copy in files with row-level deletes: only the row groups with a deleted row are decoded."""

from __future__ import annotations

import struct
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table
from pyiceberg.types import LongType, StringType

from aurum_orchestration_tests.iceberg_deletes import add_equality_deletes, add_position_deletes, live_data_files
from aurum_orchestration_tests.integration.iceberg.merged import delete_paths, live_rows
from aurum_orchestration_tests.integration.iceberg.support import (
    append_files,
    append_numbers,
    by_duckdb,
    compact,
    fields,
    local,
    make_table,
    typed,
)

SCHEMA = fields(id=LongType(), name=StringType())
LARGE = 150


@pytest.fixture
def table(catalog: SqlCatalog) -> Table:
    """Row groups of 100 rows are large enough."""
    return make_table(catalog, SCHEMA, properties={"write.parquet.row-group-limit": "500"})


def append_groups(table: Table, *groups: tuple[int, int]) -> str:
    """One file, whose row groups have consecutive ids: from which number on, and how many."""
    path = f"{table.location()}/data/{uuid.uuid4()}.parquet"
    local(path).parent.mkdir(parents=True, exist_ok=True)
    parts = [
        typed(table, {"id": [*range(first, first + rows)], "name": [f"name-{row % 7}" for row in range(rows)]})
        for first, rows in groups
    ]
    with pq.ParquetWriter(local(path), parts[0].schema, compression="zstd") as writer:
        for part in parts:
            writer.write_table(part)
    append_files(table, [path])
    return path


@pytest.mark.parametrize("file_scoped", [False, True], ids=["partition", "file"])
def test_only_row_groups_with_a_deleted_row_are_decoded(table: Table, *, file_scoped: bool) -> None:
    first = append_groups(table, (0, LARGE), (1000, LARGE), (2000, 40), (3000, LARGE))
    second = append_groups(table, (4000, LARGE), (5000, LARGE))
    # the last row of one row group and the first of the next; one of a small row group; the last of a file
    add_position_deletes(table, {first: [149, 150, 320], second: [299]}, file_scoped=file_scoped)
    before = live_rows(table)
    done = compact(table)
    assert (done.metrics["row_groups_copied"], done.metrics["deleted_rows_folded"]) == (2, 4)
    assert done.tally.verifications[0].rows_after == 786
    assert live_rows(table) == before == by_duckdb(table)
    assert not delete_paths(table)


def test_the_first_row_of_a_small_row_group_between_two_copied_ones_goes(table: Table) -> None:
    path = append_groups(table, (0, LARGE), (1000, 40), (2000, LARGE), (3000, 40))
    append_numbers(table, files=1, rows=5, name="small")
    add_position_deletes(table, {path: [150, 340, 379]})
    before = live_rows(table)
    done = compact(table)
    assert (done.metrics["row_groups_copied"], done.metrics["deleted_rows_folded"]) == (2, 3)
    assert live_rows(table) == before == by_duckdb(table)


def test_equality_deletes_leave_the_other_row_groups_to_be_copied(table: Table) -> None:
    append_groups(table, (0, LARGE), (1000, LARGE), (2000, LARGE))
    append_numbers(table, files=2, rows=5, name="small")
    add_equality_deletes(table, pa.table({"id": [1000, 1149, 7777]}), ["id"])
    before = live_rows(table)
    done = compact(table)
    assert (done.metrics["row_groups_copied"], done.metrics["deleted_rows_folded"]) == (2, 2)
    assert live_rows(table) == before == by_duckdb(table)


def test_a_file_without_a_living_row_is_not_copied(table: Table) -> None:
    gone = append_groups(table, (0, LARGE))
    append_groups(table, (1000, LARGE))
    append_numbers(table, files=2, rows=5, name="small")
    add_position_deletes(table, {gone: range(LARGE)})
    before = live_rows(table)
    done = compact(table)
    assert (done.metrics["row_groups_copied"], done.metrics["deleted_rows_folded"]) == (1, LARGE)
    assert live_rows(table) == before == by_duckdb(table)
    [file] = live_data_files(table)
    assert file.lower_bounds[1] == struct.pack("<q", 0)  # of the small files
