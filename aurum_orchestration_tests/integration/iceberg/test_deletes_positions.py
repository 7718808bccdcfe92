"""Compaction of tables with position deletes: rows that live, delete files that leave, races at the commit."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Callable

import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import FileFormat, ManifestContent
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import LongType, StringType

from aurum_orchestration.errors import CommitConflictError, CorruptTableError, UnsupportedError
from aurum_orchestration_tests.iceberg_deletes import add_position_deletes, live_data_files
from aurum_orchestration_tests.integration.iceberg.merged import delete_paths, entries, live_rows
from aurum_orchestration_tests.integration.iceberg.support import (
    Interfering,
    Rows,
    append,
    append_numbers,
    by_duckdb,
    by_scan,
    carry_out,
    compact,
    fields,
    local,
    make_table,
    open_plan,
    plan_of,
    spec_of,
    stored_files,
)

NUMBERS = fields(id=LongType(), region=StringType())
BY_REGION = spec_of((2, IdentityTransform(), "region"))


def numbers(catalog: SqlCatalog, files: int = 4, rows: int = 10) -> Table:
    table = make_table(catalog, NUMBERS)
    append_numbers(table, files=files, rows=rows, region="N")
    return table


def file_with(table: Table, identity: int) -> str:
    """The data file that has a row with this id."""
    return next(
        file.file_path
        for file in live_data_files(table)
        if identity in pq.ParquetFile(local(file.file_path)).read(["id"]).column("id").to_pylist()
    )


def ids(rows: Rows) -> list[int]:
    return sorted(literal_eval(row)["id"] for row, count in rows.items() for _ in range(count))


def summary(table: Table) -> dict[str, str]:
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    return snapshot.summary.additional_properties


@pytest.mark.parametrize("encoding", ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
def test_paths_of_deletes_that_cannot_be_read_as_a_dictionary(catalog: SqlCatalog, encoding: str) -> None:
    """As newer versions of Trino write them; PyIceberg's own scan cannot read them."""
    table = numbers(catalog)
    add_position_deletes(
        table, {file_with(table, 0): [0, 3]}, use_dictionary=False, column_encoding={"file_path": encoding}
    )
    compact(table)
    assert ids(by_duckdb(table)) == ids(by_scan(table)) == sorted(set(range(40)) - {0, 3})
    assert delete_paths(table) == set()


@pytest.mark.parametrize("file_scoped", [False, True])
def test_deleted_rows_and_their_delete_files_go(catalog: SqlCatalog, file_scoped: bool) -> None:
    table = numbers(catalog)
    gone = add_position_deletes(
        table, {file_with(table, 0): [0, 3], file_with(table, 20): [9]}, file_scoped=file_scoped
    )
    done = compact(table)
    expected = sorted(set(range(40)) - {0, 3, 29})
    assert ids(by_duckdb(table)) == ids(by_scan(table)) == expected
    assert delete_paths(table) == set()
    assert (
        done.plan.steps[0].detail["delete_files"] == done.plan.steps[0].detail["delete_files_dropped"] == sorted(gone)
    )
    assert (done.metrics["deleted_rows_folded"], done.metrics["delete_files_removed"]) == (3, len(gone))
    (checked,) = done.tally.verifications
    assert (checked.rows_before, checked.rows_after, checked.ok) == (37, 37, True)
    told = summary(table)
    assert {name: told.get(name) for name in told if "delete" in name} == {
        "deleted-data-files": "4",
        "deleted-records": "40",
        "removed-delete-files": str(len(gone)),
        "removed-position-delete-files": str(len(gone)),
        "removed-position-deletes": "3",
        "total-delete-files": "0",
        "total-position-deletes": "0",
        "total-equality-deletes": "0",
    }
    assert (told["added-records"], told["total-records"], told["total-data-files"]) == ("37", "37", "1")
    assert int(told["total-files-size"]) == sum(file.file_size_in_bytes for file in live_data_files(table))


def test_the_same_position_twice_and_positions_that_do_not_exist(catalog: SqlCatalog) -> None:
    table = numbers(catalog)
    add_position_deletes(table, {file_with(table, 0): [0, 3, 3, 10, 1_000_000]})
    add_position_deletes(table, {file_with(table, 0): [3, 4]})
    done = compact(table)
    assert ids(by_duckdb(table)) == sorted(set(range(40)) - {0, 3, 4})
    assert done.tally.verifications[0].rows_before == 37


def test_positions_count_through_row_groups_and_batches(catalog: SqlCatalog) -> None:
    table = make_table(catalog, NUMBERS, properties={"write.parquet.row-group-limit": "1000"})
    rows = 3000
    append(
        table, *({"id": range(start, start + rows), "region": ["N"] * rows} for start in (0, rows)), row_group_size=700
    )
    positions = [0, 699, 700, 701, 1399, 1400, 2999]
    add_position_deletes(table, {file_with(table, 0): positions, file_with(table, rows): [1]})
    compact(table, row_group_copy=True)
    assert ids(by_duckdb(table)) == sorted(set(range(2 * rows)) - set(positions) - {rows + 1})


def test_a_file_of_deleted_rows_only_leaves_nothing(catalog: SqlCatalog) -> None:
    table = numbers(catalog, files=2, rows=3)
    add_position_deletes(table, {file.file_path: [0, 1, 2] for file in live_data_files(table)})
    done = compact(table)
    assert live_data_files(table) == []
    assert delete_paths(table) == set()
    assert (done.metrics["files_added"], summary(table)["total-records"]) == (0, "0")


def test_a_delete_file_stays_while_a_file_that_it_names_stays(catalog: SqlCatalog) -> None:
    table = make_table(catalog, NUMBERS, spec=BY_REGION)
    append_numbers(table, files=3, region="N")
    append_numbers(table, files=1, region="S")
    append_numbers(table, files=3, region="W")
    before = live_rows(table)
    north = next(file.file_path for file in live_data_files(table) if file.partition[0] == "N")
    south = next(file.file_path for file in live_data_files(table) if file.partition[0] == "S")
    kept = add_position_deletes(table, {south: [1]})
    dropped = add_position_deletes(table, {north: [2]})
    expected = live_rows(table)
    assert expected.total() == before.total() - 2
    # one file of ten rows, one of them deleted, is below the ratio
    done = compact(table, max_deleted_ratio=0.2)
    assert delete_paths(table) == set(kept)
    assert live_rows(table) == expected == by_scan(table)
    assert done.metrics["delete_files_removed"] == len(dropped)
    assert summary(table)["total-delete-files"] == "1"
    # what stays has its sequence number: it still applies
    (entry,) = entries(table, ManifestContent.DELETES)
    assert entry.sequence_number is not None
    (old,) = [item for item in entries(table, ManifestContent.DATA) if item.data_file.file_path == south]
    assert old.sequence_number is not None
    assert entry.sequence_number > old.sequence_number


def test_one_delete_file_in_a_manifest_of_several_leaves(catalog: SqlCatalog) -> None:
    table = make_table(catalog, NUMBERS, spec=BY_REGION)
    append_numbers(table, files=3, region="N")
    append_numbers(table, files=1, region="N", rows=30)
    whole = {file.file_path: file.record_count for file in live_data_files(table)}
    large = next(path for path, rows in whole.items() if rows == 30)
    small = [path for path in whole if path != large]
    add_position_deletes(table, {small[0]: [0], large: [5]}, file_scoped=True)
    expected = live_rows(table)
    plan = plan_of(table, min_input_files=2, max_deleted_ratio=0.05)
    # rewrite the small ones only
    step = plan.steps[0]
    detail = {**step.detail, "files": small}
    chosen = plan.model_copy(update={"steps": [step.model_copy(update={"detail": detail})]})
    carry_out(open_plan(chosen, table))
    table.refresh()
    assert len(delete_paths(table)) == 1
    assert live_rows(table) == expected == by_scan(table)


def test_a_large_file_is_rewritten_from_the_ratio_on(catalog: SqlCatalog) -> None:
    table = make_table(catalog, NUMBERS)
    append_numbers(table, files=1, rows=100, region="N")
    (path,) = (file.file_path for file in live_data_files(table))
    add_position_deletes(table, {path: range(9)})
    assert plan_of(table).steps == []
    add_position_deletes(table, {path: [9]})
    done = compact(table)
    assert ids(by_duckdb(table)) == list(range(10, 100))
    assert done.metrics["files_added"] == 1
    assert plan_of(table).steps == []


def test_many_delete_files_let_every_file_be_rewritten_that_they_touch(catalog: SqlCatalog) -> None:
    table = numbers(catalog, files=2, rows=100)
    touched = file_with(table, 0)
    for position in range(3):
        add_position_deletes(table, {touched: [position]})
    assert plan_of(table, min_input_files=3).steps == []
    done = compact(table, min_input_files=3, max_delete_files=3)
    assert done.plan.steps[0].detail["files"] == [touched]
    assert delete_paths(table) == set()
    assert ids(by_duckdb(table)) == list(range(3, 200))
    assert plan_of(table, min_input_files=3, max_delete_files=1).steps == []


def test_delete_files_that_touch_nothing_are_dropped_by_themselves(catalog: SqlCatalog) -> None:
    table = numbers(catalog, files=1, rows=50)
    (path,) = (file.file_path for file in live_data_files(table))
    idle = add_position_deletes(table, {path: [1]})
    with table.transaction() as transaction, transaction.update_snapshot().overwrite() as overwrite:
        overwrite.delete_data_file(live_data_files(table)[0])
    append_numbers(table, files=1, rows=5, region="N")
    done = compact(table)
    assert (done.plan.steps[0].action, done.metrics["delete_files_removed"]) == ("drop_deletes", 1)
    assert delete_paths(table) == set()
    assert (summary(table)["total-delete-files"], len(idle)) == ("0", 1)
    assert ids(by_duckdb(table)) == list(range(5))
    assert plan_of(table).steps == []


# --- at the commit


Meanwhile = Callable[[Table], None]


def raced(table: Table, meanwhile: Meanwhile) -> None:
    carry_out(Interfering(open_plan(plan_of(table), table), lambda _: meanwhile(table)))


def test_a_concurrent_delete_in_a_rewritten_file_is_a_conflict(catalog: SqlCatalog) -> None:
    table = numbers(catalog)
    add_position_deletes(table, {file_with(table, 0): [0]})
    files = None

    def meanwhile(table: Table) -> None:
        nonlocal files
        add_position_deletes(table, {file_with(table, 10): [5]})
        append_numbers(table, files=1, rows=1, region="N")  # the head is past the delete
        files = stored_files(table)

    written = stored_files(table)
    with pytest.raises(CommitConflictError, match="deleted rows"):
        raced(table, meanwhile)
    table.refresh()
    assert ids(live_rows(table)) == sorted([0, *set(range(40)) - {0, 15}])
    # nothing of the attempt is left
    assert files is not None
    assert {path for path in stored_files(table) - written if path.startswith("data/")} < files


def test_a_concurrent_delete_elsewhere_is_none_and_stays(catalog: SqlCatalog) -> None:
    table = make_table(catalog, NUMBERS)
    append_numbers(table, files=4, region="N")
    add_position_deletes(table, {file_with(table, 0): [0]})

    def meanwhile(table: Table) -> None:
        append_numbers(table, files=1, rows=3, region="late")
        late = next(file.file_path for file in live_data_files(table) if file.record_count == 3)
        add_position_deletes(table, {late: [1]})  # in the same partition, in a file that is not rewritten

    raced(table, meanwhile)
    table.refresh()
    assert len(delete_paths(table)) == 1
    assert live_rows(table) == by_scan(table)
    assert ids(live_rows(table)) == sorted([*range(1, 40), 0, 2])


def test_deletes_between_plan_and_start_are_folded_in(catalog: SqlCatalog) -> None:
    table = numbers(catalog)
    plan = plan_of(table)
    add_position_deletes(table, {file_with(table, 10): [5]})
    carry_out(open_plan(plan, table))
    table.refresh()
    assert ids(by_duckdb(table)) == sorted(set(range(40)) - {15})


# --- refused


def test_a_delete_file_that_is_missing_or_broken_stops_everything(catalog: SqlCatalog) -> None:
    table = numbers(catalog)
    (path,) = add_position_deletes(table, {file_with(table, 0): [0]})
    before = stored_files(table)
    content = local(path).read_bytes()
    local(path).unlink()
    with pytest.raises(CorruptTableError, match="missing"):
        compact(table)
    local(path).write_bytes(content[:-20])
    with pytest.raises(CorruptTableError, match="cannot be read"):
        compact(table)
    assert stored_files(table) == before


def test_deletes_in_another_format_are_refused_with_their_reason(catalog: SqlCatalog) -> None:
    table = numbers(catalog)
    add_position_deletes(table, {file_with(table, 0): [0]}, file_format=FileFormat.AVRO)
    before = stored_files(table)
    with pytest.raises(UnsupportedError, match="Spark and Trino"):
        compact(table)
    assert stored_files(table) == before
