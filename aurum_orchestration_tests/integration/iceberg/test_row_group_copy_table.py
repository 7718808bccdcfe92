"""Row-group copy in a compaction of a table: what it reports, what the manifests say, that it ends."""

from __future__ import annotations

import struct

import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table
from pyiceberg.types import LongType, StringType

from aurum_orchestration_tests.iceberg_deletes import live_data_files
from aurum_orchestration_tests.integration.iceberg.support import (
    append,
    append_numbers,
    by_scan,
    compact,
    data_paths,
    fields,
    judge,
    make_table,
    plan_of,
    stored_files,
)

SCHEMA = fields(id=LongType(), name=StringType())
ROW_GROUP = {"write.parquet.row-group-limit": "500"}


def large(first: int) -> dict[str, list[object]]:
    return {"id": [*range(first, first + 150)], "name": [f"name-{number % 7}" for number in range(150)]}


@pytest.fixture
def table(catalog: SqlCatalog) -> Table:
    """Four files with a healthy row group each, four small ones in between."""
    made = make_table(catalog, SCHEMA, properties=ROW_GROUP)
    for number in range(4):
        append(made, large(number * 1000), compression="zstd")
        append_numbers(made, files=1, rows=5, name=f"small-{number}")
    return made


def test_the_rows_stay_and_the_next_plan_is_empty(table: Table) -> None:
    before = judge(table)
    done = compact(table)
    assert judge(table) == before
    assert (done.metrics["row_groups_copied"], done.metrics["files_rewritten"], done.metrics["files_added"]) == (
        4,
        8,
        1,
    )
    assert 0 < done.metrics["bytes_copied"] < done.metrics["bytes_added"]
    [proof] = done.tally.verifications
    assert proof.ok
    assert (proof.rows_before, proof.method) == (620, "row-count+sequence-digest+chunk-digest")
    assert plan_of(table).steps == []


def test_the_manifest_describes_copied_and_encoded_rows(table: Table) -> None:
    compact(table)
    [file] = live_data_files(table)
    [path] = data_paths(table)
    assert (file.record_count, file.value_counts[1], file.null_value_counts[1]) == (620, 620, 0)
    assert struct.unpack("<q", file.lower_bounds[1]) == (0,)
    assert struct.unpack("<q", file.upper_bounds[1]) == (3149,)
    assert file.upper_bounds[2] == b"small-3"
    groups = pq.read_metadata(path)
    assert len(file.split_offsets or []) == groups.num_row_groups == 5
    assert file.column_sizes[1] == sum(groups.row_group(index).column(0).total_compressed_size for index in range(5))


def test_the_next_compaction_copies_what_the_last_one_encoded(table: Table) -> None:
    compact(table)
    for number in range(40):
        append_numbers(table, files=1, rows=5, name=f"later-{number}")
    before = judge(table)
    done = compact(table)
    assert judge(table) == before
    assert done.metrics["row_groups_copied"] == 4


def test_told_not_to_it_decodes_everything(table: Table) -> None:
    before = judge(table)
    done = compact(table, row_group_copy=False)
    assert judge(table) == before
    assert "row_groups_copied" not in done.metrics
    assert done.tally.verifications[0].method == "row-count+sequence-digest"


def test_without_verification_it_copies_all_the_same(table: Table) -> None:
    before = judge(table)
    done = compact(table, verify=False)
    assert (done.metrics["row_groups_copied"], done.tally.verifications) == (4, [])
    assert judge(table) == before


def test_a_column_that_got_another_name_is_copied(table: Table) -> None:
    with table.update_schema() as update:
        update.rename_column("name", "label")
    before = by_scan(table)
    done = compact(table)
    assert done.metrics["row_groups_copied"] == 4
    assert by_scan(table) == before
    assert {name for path in data_paths(table) for name in pq.read_schema(path).names} == {"id", "label"}


def test_an_added_column_makes_older_files_be_decoded(table: Table) -> None:
    with table.update_schema() as update:
        update.add_column("extra", LongType())
    append(table, {**large(9000), "extra": range(150)}, compression="zstd")
    before = by_scan(table)
    done = compact(table)
    assert done.metrics["row_groups_copied"] == 1
    assert by_scan(table) == before


def test_a_promoted_column_is_decoded(catalog: SqlCatalog) -> None:
    from pyiceberg.types import IntegerType

    table = make_table(catalog, fields(id=IntegerType(), name=StringType()), properties=ROW_GROUP)
    append(table, large(0), large(1000), compression="zstd")
    with table.update_schema() as update:
        update.update_column("id", LongType())
    append(table, large(2000), compression="zstd")
    before = by_scan(table)
    done = compact(table)
    assert done.metrics["row_groups_copied"] == 1
    assert by_scan(table) == before


def test_a_copy_that_fails_leaves_nothing_behind(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    from aurum_orchestration.errors import VerificationError
    from aurum_orchestration.maintenance.backends.iceberg.compact import copy

    before, files = judge(table), stored_files(table)
    written = copy.CopyingRewrite.run

    def damaged(self: copy.CopyingRewrite, *given: object) -> None:
        written(self, *given)  # type: ignore[arg-type]
        for location in self.locations:
            path = location.removeprefix("file://")
            with open(path, "r+b") as stream:  # noqa: PTH123
                stream.seek(40)
                found = stream.read(1)
                stream.seek(40)
                stream.write(bytes([found[0] ^ 255]))

    monkeypatch.setattr(copy.CopyingRewrite, "run", damaged)
    with pytest.raises(VerificationError, match="checksums differ"):
        compact(table)
    table.refresh()
    assert judge(table) == before
    assert stored_files(table) - files == set()
