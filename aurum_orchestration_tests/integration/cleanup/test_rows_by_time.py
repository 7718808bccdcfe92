"""Rows past their time leave, and no other: whole files by metadata, the rest by rewriting. Judged by DuckDB."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform, IdentityTransform, MonthTransform, YearTransform
from pyiceberg.typedef import Record
from pyiceberg.types import (
    DateType,
    IcebergType,
    LongType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
)

from aurum_orchestration.errors import CommitConflictError, StateDriftedError
from aurum_orchestration.maintenance.backends.iceberg.retention import handler
from aurum_orchestration.maintenance.interfaces import MaintenanceResult
from aurum_orchestration.maintenance.operations.retention import RetentionParameters
from aurum_orchestration_tests.iceberg_deletes import add_equality_deletes, add_position_deletes, live_data_files
from aurum_orchestration_tests.integration.cleanup.judges import on_disk
from aurum_orchestration_tests.integration.iceberg.support import (
    Interfering,
    add_data_files,
    append,
    append_stored,
    carry_out,
    data_paths,
    described,
    fields,
    spec_of,
    table_id,
    typed,
    write_file,
)
from aurum_orchestration_tests.integration.upkeep.lakeside import Lakeside
from aurum_orchestration_tests.integration.upkeep.test_killed import kill_at

NOW = datetime.now(UTC)
SCHEMA = fields(id=LongType(), ts=TimestamptzType())
BY_TIME: dict[str, Any] = {"time_column": "ts", "row_days": 30}


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def rows(first: int, *days: float | None) -> dict[str, list[Any]]:
    """Rows with consecutive ids, so many days old; None: without a time."""
    return {
        "id": list(range(first, first + len(days))),
        "ts": [None if age is None else ago(age) for age in days],
    }


def filled(lake: Lakeside, **given: Any) -> Table:
    """Ids 1-2 in a file of old rows, 3-4 with a younger one, 5-6 young or timeless, 7-8 old or timeless."""
    table = lake.table(schema=SCHEMA, **given)
    append(table, rows(1, 50, 40), rows(3, 35, 2), rows(5, 1, None), rows(7, 60, None))
    return table


def ids(table: Table) -> list[int]:
    """Ids in the live data files, read by DuckDB; delete files have no part in it."""
    paths = data_paths(table.refresh())
    if not paths:
        return []
    with duckdb.connect() as judge:
        found = judge.execute("select id from read_parquet(?, union_by_name = true) order by 1", [paths]).fetchall()
    return [identity for (identity,) in found]


def scanned(table: Table) -> list[int]:
    """Ids that PyIceberg's scan gives, deletes applied."""
    return sorted(table.refresh().scan().to_arrow()["id"].to_pylist())


def done(result: MaintenanceResult) -> MaintenanceResult:
    assert (str(result.status), result.problem) == ("completed", None), result.reason
    assert result.verification is not None
    assert result.verification.ok
    return result


def summary(table: Table) -> dict[str, str]:
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    return {"operation": snapshot.summary.operation.value, **snapshot.summary.additional_properties}


def test_files_of_old_rows_leave_and_the_others_are_told(lake: Lakeside) -> None:
    table = filled(lake)
    stored = on_disk(table)
    dry = lake.run("retention", dry_run=True, **BY_TIME)
    assert (str(dry.status), on_disk(table), ids(table)) == ("planned", stored, [1, 2, 3, 4, 5, 6, 7, 8])
    assert dry.steps is not None
    assert "1 data file with only rows before" in dry.steps[0].summary
    assert "2 rows in 1 file without others; at most 4 rows stay in 2 files with others" in dry.reason
    result = done(lake.run("retention", **BY_TIME))
    assert ids(table) == scanned(table) == [3, 4, 5, 6, 7, 8]
    assert result.metrics.items() >= {"rows_deleted": 2, "files_removed": 1, "old_rows_left_at_most": 4}.items()
    assert stored <= on_disk(table)  # until their snapshot expires
    told = summary(table)
    assert (told["operation"], told["deleted-records"], told["total-records"]) == ("delete", "2", "6")
    again = lake.run("retention", **BY_TIME)
    assert (str(again.status), ids(table)) == ("skipped", [3, 4, 5, 6, 7, 8])
    assert "at most 4 rows stay" in again.reason


def test_files_with_younger_rows_are_rewritten_when_asked(lake: Lakeside) -> None:
    table = filled(lake)
    before = table.scan().to_arrow()
    result = done(lake.run("retention", rewrite_files=True, **BY_TIME))
    assert ids(table) == scanned(table) == [4, 5, 6, 8]
    assert [str(step.action) for step in result.steps or []] == ["remove_rows", "rewrite_rows"]
    assert result.metrics.items() >= {"rows_deleted": 4, "files_rewritten": 2, "old_rows_left_at_most": 0}.items()
    told = summary(table)
    assert (told["operation"], told["total-records"], told["total-data-files"]) == ("overwrite", "4", "2")
    with duckdb.connect() as judge:
        judge.register("before", before)
        second = judge.execute("select id from before where ts >= ? or ts is null order by 1", [ago(30)]).fetchall()
    assert [identity for (identity,) in second] == [4, 5, 6, 8]
    assert str(lake.run("retention", rewrite_files=True, **BY_TIME).status) == "skipped"


def test_an_undo_brings_the_rows_back(lake: Lakeside) -> None:
    table = filled(lake)
    before = table.current_snapshot()
    assert before is not None
    result = done(lake.run("retention", rewrite_files=True, **BY_TIME))
    assert ids(table) == [4, 5, 6, 8]
    assert str(lake.undo(result.operation_id).status) == "completed"
    assert ids(table) == scanned(table) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert table.metadata.current_snapshot_id == before.snapshot_id


def test_rows_leave_before_snapshots_expire_so_that_the_undo_still_works(lake: Lakeside) -> None:
    table = filled(lake)
    append(table, rows(9, 1))
    append(table, rows(10, 1))
    given: dict[str, Any] = {"retention_days": 0, "retain_last": 1, "override_floor": True, "override_reason": "a test"}
    result = done(lake.run("retention", **BY_TIME, **given))
    assert [step.action for step in result.steps or []] == ["remove_rows", "expire"]
    assert result.metrics["snapshots_expired"] == 2
    assert len(table.refresh().metadata.snapshots) == 2
    assert str(lake.undo(result.operation_id).status) == "completed"
    assert ids(table) == list(range(1, 11))


@pytest.mark.parametrize("kind", [TimestampType(), DateType()], ids=str)
def test_times_without_zone_and_dates(lake: Lakeside, kind: IcebergType) -> None:
    table = lake.table(schema=fields(id=LongType(), ts=kind))

    def cast(part: dict[str, list[Any]]) -> dict[str, list[Any]]:
        moments = [None if one is None else one.replace(tzinfo=None) for one in part["ts"]]
        days = [None if one is None else one.date() for one in moments]
        return {"id": part["id"], "ts": moments if isinstance(kind, TimestampType) else days}

    append(table, cast(rows(1, 50, 40)), cast(rows(3, 32, 2, None)))
    done(lake.run("retention", rewrite_files=True, **BY_TIME))
    assert ids(table) == [4, 5]


def test_a_wall_time_of_california_is_not_taken_for_utc(lake: Lakeside) -> None:
    """Seven or eight hours lie between: a row an hour too young by its own clock stays."""
    table = lake.table(schema=fields(id=LongType(), ts=TimestampType()))
    young = (ago(30) + timedelta(hours=1)).astimezone(tz=None)
    from zoneinfo import ZoneInfo

    wall = young.astimezone(ZoneInfo("America/Los_Angeles")).replace(tzinfo=None)
    append(table, {"id": [1], "ts": [wall]}, {"id": [2], "ts": [wall - timedelta(hours=3)]})
    done(lake.run("retention", time_zone="America/Los_Angeles", **BY_TIME))
    assert ids(table) == [1]


def test_files_without_bounds_are_decided_by_reading_them(lake: Lakeside) -> None:
    table = lake.table(schema=SCHEMA)
    append_stored(table, [typed(table, rows(1, 50, 40)), typed(table, rows(3, 35, 2)), typed(table, rows(5, 1))])
    assert str(lake.run("retention", **BY_TIME).status) == "skipped"
    result = done(lake.run("retention", rewrite_files=True, **BY_TIME))
    assert ids(table) == [4, 5]
    assert (result.metrics["files_removed"], result.metrics["files_rewritten"]) == (1, 1)


def test_bounds_that_lie_do_not_cost_a_row(lake: Lakeside) -> None:
    table = lake.table(schema=SCHEMA)
    path = write_file(table, typed(table, rows(1, 50, 2)))
    old = struct.pack("<q", int(ago(50).timestamp() * 1e6))
    add_data_files(
        table,
        [described(table, path, lower_bounds={2: old}, upper_bounds={2: old}, null_value_counts={2: 0})],
    )
    result = lake.run("retention", **BY_TIME)
    assert str(result.status) == "failed"
    assert result.problem is not None
    assert result.problem.type == "verification-failed"
    assert path in (result.problem.detail or "")
    assert ids(table) == [1, 2]
    # who asks for it gets what the metadata says
    assert str(lake.run("retention", verify=False, **BY_TIME).status) == "completed"
    assert ids(table) == []


def test_a_renamed_column_is_followed_and_a_new_one_of_the_old_name_is_another(lake: Lakeside) -> None:
    table = filled(lake)
    with table.update_schema() as update:
        update.rename_column("ts", "happened")
    with table.update_schema() as update:
        update.add_column("ts", TimestamptzType())
    # no file has the new column, though all have one of that name
    assert str(lake.run("retention", rewrite_files=True, **BY_TIME).status) == "skipped"
    done(lake.run("retention", rewrite_files=True, time_column="happened", row_days=30))
    assert ids(table) == [4, 5, 6, 8]


def test_a_column_dropped_and_made_anew_has_no_times_in_older_files(lake: Lakeside) -> None:
    table = filled(lake)
    with table.update_schema() as update:
        update.delete_column("ts")
    with table.update_schema() as update:
        update.add_column("ts", TimestamptzType())
    append(table.refresh(), rows(9, 45), rows(10, 3))
    done(lake.run("retention", rewrite_files=True, **BY_TIME))
    assert ids(table) == [1, 2, 3, 4, 5, 6, 7, 8, 10]


def test_a_plan_for_a_column_that_was_replaced_is_refused(lake: Lakeside) -> None:
    table = filled(lake)
    plan = handler.plan(table, table_id(table), RetentionParameters(**BY_TIME))
    with table.update_schema() as update:
        update.delete_column("ts")
    with table.update_schema() as update:
        update.add_column("ts", TimestamptzType())
    with pytest.raises(StateDriftedError, match="another column"):
        carry_out(handler.execution(plan, table.refresh()))
    assert ids(table) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_column_inside_a_struct(lake: Lakeside) -> None:
    inner = StructType(NestedField(3, "at", TimestamptzType(), required=False))
    schema = Schema(NestedField(1, "id", LongType(), required=False), NestedField(2, "event", inner, required=False))
    table = lake.table(schema=schema)

    def part(first: int, *days: float | None) -> list[dict[str, Any]]:
        times = rows(first, *days)
        return [{"id": id_, "event": {"at": at}} for id_, at in zip(times["id"], times["ts"], strict=True)]

    append(table, part(1, 50, 40), [*part(3, 50, 1, None), {"id": 6, "event": None}])
    done(lake.run("retention", rewrite_files=True, time_column="event.at", row_days=30))
    assert ids(table) == [4, 5, 6]


def test_partitions_of_every_spec_the_table_ever_had(lake: Lakeside) -> None:
    table = lake.table(schema=SCHEMA, spec=spec_of((2, MonthTransform(), "month")))
    for part in (rows(1, 100, 101), rows(3, 2), rows(4, None)):
        table.append(typed(table, part))
    with table.update_spec() as update:
        update.remove_field("month")
        update.add_field("ts", DayTransform(), "day")
    for part in (rows(5, 50), rows(6, 40), rows(7, 1)):
        table.append(typed(table, part))
    with table.update_spec() as update:
        update.remove_field("day")
    append(table, rows(8, 35, 3), rows(10, 90))
    result = done(lake.run("retention", rewrite_files=True, **BY_TIME))
    assert ids(table) == scanned(table) == [3, 4, 7, 9]
    assert [step.action for step in result.steps or []] == ["remove_rows"] * 3 + ["rewrite_rows"]


def test_a_partition_value_stands_for_a_column_that_files_do_not_have(lake: Lakeside) -> None:
    """As files are that came from Hive: the partition column is in the folder's name only."""
    schema = fields(id=LongType(), ts=DateType(), hub=StringType())
    table = lake.table(schema=schema, spec=spec_of((2, IdentityTransform(), "ts")))
    only = pa.schema([schema_to_pyarrow(schema).field("id")])
    for first, age in ((1, 90), (3, 2)):
        day = (ago(age).date() - datetime(1970, 1, 1, tzinfo=UTC).date()).days
        append_stored(table, [pa.table({"id": [first, first + 1]}, schema=only)], Record(day))
    done(lake.run("retention", **BY_TIME))
    assert ids(table) == [3, 4]


def test_files_of_an_older_spec_are_rewritten_in_their_own_partition(lake: Lakeside) -> None:
    table = lake.table(schema=SCHEMA, spec=spec_of((2, YearTransform(), "year")))
    kept = [ago(1), ago(2)]
    old = [min(kept).replace(month=1, day=1, hour=3), min(kept).replace(month=1, day=2)]
    if old[0] > ago(31):
        pytest.skip("in January no row of this year is old enough")
    table.append(typed(table, {"id": [1, 2, 3, 4], "ts": [*old, *kept]}))
    with table.update_spec() as update:
        update.remove_field("year")
    done(lake.run("retention", rewrite_files=True, **BY_TIME))
    assert ids(table) == scanned(table) == [3, 4]
    assert [(file.spec_id, file.partition[0]) for file in live_data_files(table)] == [(0, kept[0].year - 1970)]


def test_a_partition_value_that_files_do_not_have_survives_a_rewrite(lake: Lakeside) -> None:
    schema = fields(id=LongType(), ts=TimestamptzType(), hub=StringType())
    table = lake.table(schema=schema, spec=spec_of((3, IdentityTransform(), "hub")))
    stored = pa.schema([field for field in schema_to_pyarrow(schema) if field.name != "hub"])
    append_stored(table, [pa.table(rows(1, 50, 2), schema=stored)], Record("north"))
    assert table.refresh().scan().to_arrow()["hub"].to_pylist() == ["north", "north"]
    result = lake.run("retention", rewrite_files=True, **BY_TIME)
    assert table.refresh().scan().to_arrow()["hub"].to_pylist() == ["north", "north"]
    assert any("lacks a column that readers take from its partition" in text for text in result.warnings)


def test_files_without_field_ids_are_read_by_the_name_mapping(lake: Lakeside) -> None:
    table = lake.table(schema=SCHEMA)
    folder = Path(table.location().removeprefix("file://"))
    paths = []
    for number, part in enumerate((rows(1, 50, 40), rows(3, 35, 2))):
        paths.append(f"{folder}/{number}.parquet")
        pq.write_table(pa.table({"id": part["id"], "ts": pa.array(part["ts"], pa.timestamp("us", "UTC"))}), paths[-1])
    table.add_files([f"file://{path}" for path in paths])
    result = done(lake.run("retention", rewrite_files=True, **BY_TIME))
    assert ids(table) == scanned(table) == [4]
    assert (result.metrics["files_removed"], result.metrics["files_rewritten"]) == (1, 1)


def test_only_main_is_touched_and_that_is_said(lake: Lakeside) -> None:
    table = filled(lake)
    head = table.metadata.current_snapshot_id
    assert head is not None
    table.manage_snapshots().create_branch(head, "audit").create_tag(head, "closing").commit()
    result = done(lake.run("retention", rewrite_files=True, **BY_TIME))
    assert ids(table) == [4, 5, 6, 8]
    assert len(table.scan(snapshot_id=table.metadata.refs["audit"].snapshot_id).to_arrow()) == 8
    assert table.metadata.refs["closing"].snapshot_id == head
    assert any("2 other refs keep theirs: audit, closing" in text for text in result.warnings)


@pytest.mark.parametrize("file_scoped", [True, False])
def test_rows_that_position_deletes_took_out_do_not_come_back(lake: Lakeside, file_scoped: bool) -> None:
    table = filled(lake)
    found = {pq.read_table(path)["id"][0].as_py(): f"file://{path}" for path in data_paths(table)}
    add_position_deletes(table, {found[1]: [0], found[3]: [1], found[5]: [1]}, file_scoped=file_scoped)
    assert scanned(table) == [2, 3, 5, 7, 8]
    result = done(lake.run("retention", rewrite_files=True, **BY_TIME))
    assert scanned(table) == [5, 8]
    assert ids(table) == [5, 6, 8]  # 6 is in a file that nobody had to touch
    assert result.metrics.get("delete_files_removed", 0) == (2 if file_scoped else 0)


def test_rows_that_equality_deletes_took_out_do_not_come_back(lake: Lakeside) -> None:
    table = filled(lake)
    add_equality_deletes(table, pa.table({"id": pa.array([2, 4, 8], pa.int64())}), ["id"])
    append(table, rows(4, 3))  # came back, after the delete
    done(lake.run("retention", rewrite_files=True, **BY_TIME))
    # 8 was deleted and 7 old, so that their file left without a replacement; 3 was old and 4 deleted
    assert ids(table) == [4, 5, 6]


def started(table: Table, **given: Any) -> Any:
    table.refresh()
    plan = handler.plan(table, table_id(table), RetentionParameters(**BY_TIME, **given))
    return handler.execution(plan, table)


@pytest.mark.parametrize("rewrite_files", [False, True])
def test_a_concurrent_append_is_not_lost(lake: Lakeside, rewrite_files: bool) -> None:
    table = filled(lake)
    other = lake.catalog.load_table("ns.t")
    more = iter((rows(20, 70), rows(21, 1)))
    carry_out(Interfering(started(table, rewrite_files=rewrite_files), lambda _: append(other, next(more))))
    assert ids(table) == ([4, 5, 6, 8, 20, 21] if rewrite_files else [3, 4, 5, 6, 7, 8, 20])


def test_a_concurrent_delete_of_a_row_that_is_being_kept_is_a_conflict(lake: Lakeside) -> None:
    table = filled(lake)
    other = lake.catalog.load_table("ns.t")
    mixed = next(f"file://{path}" for path in data_paths(table) if pq.read_table(path)["id"][0].as_py() == 3)

    def delete(unit: Any) -> None:
        if unit.step.action == "rewrite_rows":
            other.refresh()
            add_position_deletes(other, {mixed: [1]})

    stored = on_disk(table)
    with pytest.raises(CommitConflictError, match="deleted rows from files"):
        carry_out(Interfering(started(table, rewrite_files=True), delete))
    assert scanned(table) == [3, 5, 6, 7, 8]
    assert {path for path in on_disk(table) - stored if path.endswith(".parquet") and "deletes" not in path} == set()
    # planned anew by the service
    done(lake.run("retention", rewrite_files=True, **BY_TIME))
    assert scanned(table) == [5, 6, 8]


def test_a_concurrent_upsert_of_a_row_that_is_being_kept_holds(lake: Lakeside) -> None:
    """Flink's: an equality delete and the new row in one commit. It applies to the rewritten file too."""
    table = filled(lake)
    other = lake.catalog.load_table("ns.t")

    def upsert(unit: Any) -> None:
        if unit.step.action == "rewrite_rows":
            other.refresh()
            path = write_file(other, typed(other, rows(4, 1)))
            new = described(other, path)
            add_equality_deletes(other, pa.table({"id": pa.array([4], pa.int64())}), ["id"], with_data=[new])

    carry_out(Interfering(started(table, rewrite_files=True), upsert))
    table.refresh()
    assert ids(table) == [4, 4, 5, 6, 8]
    newer = {
        entry.data_file.file_path: entry.sequence_number
        for manifest in table.current_snapshot().manifests(table.io)  # type: ignore[union-attr]
        for entry in manifest.fetch_manifest_entry(table.io)
    }
    delete = max(number or 0 for path, number in newer.items() if "deletes" in path)
    rewritten = next(f"file://{path}" for path in data_paths(table) if pq.read_table(path)["id"].to_pylist() == [4, 8])
    assert (newer[rewritten] or 0) < delete


def test_a_file_that_somebody_else_replaced_meanwhile_is_a_conflict(lake: Lakeside) -> None:
    table = filled(lake)
    other = lake.catalog.load_table("ns.t")
    with pytest.raises(CommitConflictError, match="removed by another commit"):
        carry_out(Interfering(started(table), lambda _: other.overwrite(typed(other, rows(30, 90, 1)))))
    assert ids(table) == [30, 31]


def test_a_compaction_meanwhile_only_makes_it_plan_again(lake: Lakeside) -> None:
    table = filled(lake)
    plan = handler.plan(table, table_id(table), RetentionParameters(**BY_TIME))
    assert str(lake.run("compaction", min_input_files=2).status) == "completed"
    with pytest.raises(StateDriftedError, match="planned files are gone"):
        carry_out(handler.execution(plan, table.refresh()))
    done(lake.run("retention", rewrite_files=True, **BY_TIME))
    assert ids(table) == [4, 5, 6, 8]


@pytest.mark.parametrize(
    ("point", "left"),
    [
        ("half:1", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("commit", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("committed", [3, 4, 5, 6, 7, 8]),
        ("record", [4, 5, 6, 8]),
    ],
)
def test_kill_9(lake: Lakeside, point: str, left: list[int]) -> None:
    lake.policy(retention={**BY_TIME, "rewrite_files": True})
    table = filled(lake)
    kill_at(lake, "retention", point)
    assert ids(table) == scanned(table) == left
    lake.run("retention")
    assert ids(table) == scanned(table) == [4, 5, 6, 8]


def test_version_1_and_a_table_without_rows(lake: Lakeside) -> None:
    table = filled(lake, properties={"format-version": "1"})
    done(lake.run("retention", rewrite_files=True, **BY_TIME))
    assert ids(table) == scanned(table) == [4, 5, 6, 8]
    lake.table("ns.empty", schema=SCHEMA)
    empty = lake.run("retention", "lake.ns.empty", **BY_TIME)
    assert (str(empty.status), "no file holds one" in empty.reason) == ("skipped", True)


@pytest.mark.parametrize(
    ("given", "status", "why"),
    [
        ({"time_column": "id"}, "skipped", "does not say which unit"),
        ({"time_column": "tss"}, "failed", "no column 'tss'"),
    ],
)
def test_a_column_by_which_nothing_can_be_told_is_refused(
    lake: Lakeside, given: dict[str, Any], status: str, why: str
) -> None:
    table = filled(lake)
    result = lake.run("retention", **given)
    assert str(result.status) == status
    assert why in (result.reason or "") + str(result.problem)
    assert ids(table) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_files_that_cannot_be_read_stay_and_are_named(lake: Lakeside) -> None:
    table = lake.table(schema=SCHEMA)
    old = struct.pack("<q", int(ago(50).timestamp() * 1e6))
    bounds: Callable[[], dict[str, Any]] = lambda: {  # noqa: E731
        "lower_bounds": {2: old},
        "upper_bounds": {2: old},
        "null_value_counts": {2: 0},
    }
    from pyiceberg.manifest import FileFormat

    path = write_file(table, typed(table, rows(1, 50)))
    add_data_files(table, [described(table, path, file_format=FileFormat.ORC, **bounds())])
    result = lake.run("retention", **BY_TIME)
    assert str(result.status) == "skipped"
    assert any("ORC" in text and Path(path).name in text for text in result.warnings)
    assert str(lake.run("retention", verify=False, **BY_TIME).status) == "completed"
    assert data_paths(table.refresh()) == []
    assert live_data_files(table) == []
