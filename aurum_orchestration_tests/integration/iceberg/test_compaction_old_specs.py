"""Files of older partition specs come into the current one: every row in its right partition, found by filters."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import _to_partition_representation
from pyiceberg.table import Table
from pyiceberg.table.update.spec import UpdateSpec
from pyiceberg.transforms import (
    BucketTransform,
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    Transform,
    TruncateTransform,
    VoidTransform,
    YearTransform,
)
from pyiceberg.typedef import Record
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IcebergType,
    IntegerType,
    LongType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from aurum_orchestration.errors import CommitConflictError, UnsupportedError
from aurum_orchestration.maintenance.backends.iceberg.compact import repartition, sort
from aurum_orchestration.maintenance.backends.iceberg.entries import values_key
from aurum_orchestration_tests.iceberg_deletes import add_equality_deletes, add_position_deletes, live_data_files
from aurum_orchestration_tests.integration.iceberg.support import (
    Interfering,
    append,
    bag,
    by_duckdb,
    by_pyarrow,
    by_scan,
    carry_out,
    compact,
    digest,
    fields,
    local,
    make_table,
    open_plan,
    plan_of,
    typed,
)

NAMELESS = uuid.UUID(int=7)
MOMENTS: list[datetime | None] = [
    None,
    *(
        datetime.fromisoformat(text)
        for text in (
            "0001-01-01T23:59:59.999999",
            "1600-02-29T23:59:59.999999",
            "1969-12-31T23:59:59.999999",
            "1969-12-31T23:00:00",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:00.000001",
            "9999-12-31T00:00:00",
        )
    ),
]
ZONED = [None if moment is None else moment.replace(tzinfo=UTC) for moment in MOMENTS]
DAYS = [None if moment is None else moment.date() for moment in MOMENTS]
INTS = [None, 0, -1, 1, -10, -11, 9, 10, 2**31 - 1, 1 - 2**31]
LONGS = [None, 0, -1, 5, 2**62, -(2**62)]
TEXTS = [None, "", "a", "äöü€𝄞x", "None", "a/b%20", "x" * 40, "x" * 39 + "y"]
BYTES = [None, b"", b"\x00\xff", b"abc", b"abd"]
DECIMALS = [None, *map(Decimal, ("0.00", "-0.01", "12.34", "-12.34", "9999999.99"))]
FLOATS = [None, 0.0, -0.0, float("nan"), 1.5, float("-inf")]

CASES: list[tuple[Transform[Any, Any], IcebergType, list[Any]]] = [
    (YearTransform(), TimestampType(), MOMENTS),
    (MonthTransform(), TimestampType(), MOMENTS),
    (DayTransform(), TimestampType(), MOMENTS),
    (HourTransform(), TimestampType(), MOMENTS),
    (HourTransform(), TimestamptzType(), ZONED),
    (DayTransform(), TimestamptzType(), ZONED),
    (YearTransform(), DateType(), DAYS),
    (MonthTransform(), DateType(), DAYS),
    (DayTransform(), DateType(), DAYS),
    *(
        (IdentityTransform(), kind, values)
        for kind, values in (
            (BooleanType(), [None, True, False]),
            (IntegerType(), INTS),
            (LongType(), LONGS),
            (FloatType(), FLOATS),
            (DoubleType(), FLOATS),
            (StringType(), TEXTS),
            (BinaryType(), BYTES),
            (FixedType(2), [None, b"ab", b"\x00\xff"]),
            (UUIDType(), [None, NAMELESS, uuid.UUID(int=2**127 + 5)]),
            (DecimalType(9, 2), DECIMALS),
            (DateType(), DAYS),
            (TimestampType(), MOMENTS),
            (TimeType(), [None, time(0), time(23, 59, 59, 999_999)]),
        )
    ),
    *(
        (BucketTransform(4), kind, values)
        for kind, values in (
            (IntegerType(), INTS),
            (LongType(), LONGS),
            (StringType(), TEXTS),
            (BinaryType(), BYTES),
            (UUIDType(), [None, NAMELESS]),
            (DecimalType(9, 2), DECIMALS),
            (DateType(), DAYS),
            (TimestamptzType(), ZONED),
        )
    ),
    *(
        (TruncateTransform(3), kind, values)
        for kind, values in (
            (IntegerType(), [value for value in INTS if value is None or abs(value) < 2**30]),
            (LongType(), LONGS),
            (StringType(), TEXTS),
            (BinaryType(), BYTES),
            (DecimalType(9, 2), DECIMALS),
        )
    ),
    (VoidTransform(), LongType(), LONGS),
]


def values_as_stored(kind: IcebergType, transform: Transform[Any, Any], value: Any) -> Any:
    """A partition value by PyIceberg's scalar transforms, which this engine does not use."""
    if value is None:
        return None
    if isinstance(kind, TimeType):
        return _to_partition_representation(kind, value)
    plain = value if isinstance(kind, (UUIDType, StringType, BinaryType, FixedType)) else _plain(kind, value)
    made = transform.transform(kind)(plain)
    return made.bytes if isinstance(made, uuid.UUID) else made


def _plain(kind: IcebergType, value: Any) -> Any:
    return _to_partition_representation(kind, value)


def require_right_partitions(table: Table) -> None:
    """Every row of every file is in the partition that the manifest says, and every file has the current spec."""
    schema, spec = table.schema(), table.spec()
    for file in live_data_files(table):
        assert file.spec_id == spec.spec_id
        rows = pq.ParquetFile(local(file.file_path)).read()
        for position, field in enumerate(spec.fields):
            kind = schema.find_type(field.source_id)
            expected = {
                repr(values_as_stored(kind, field.transform, value))
                for value in rows.column(schema.find_field(field.source_id).name).to_pylist()
            }
            stored = file.partition[position]
            assert expected == {repr(stored.bytes if isinstance(stored, uuid.UUID) else stored)}


def evolve(table: Table, change: Callable[[UpdateSpec], Any]) -> Table:
    with table.update_spec() as update:
        change(update)
    return table.refresh()


@pytest.mark.parametrize(("transform", "kind", "values"), CASES, ids=lambda value: str(value)[:24])
def test_every_transform_of_every_type(
    catalog: SqlCatalog, transform: Transform[Any, Any], kind: IcebergType, values: list[Any]
) -> None:
    table = make_table(catalog, fields(id=LongType(), x=kind), {"write.metadata.metrics.default": "full"})
    rows = [{"id": number, "x": value} for number, value in enumerate(values * 3)]
    for part in (rows[: len(values)], rows[len(values) :], rows[:1], rows[:1], rows[:1]):
        append(table, part)
    before = by_pyarrow(table)
    evolve(table, lambda update: update.add_field("x", transform, "part"))
    compact(table, old_specs="all")
    assert by_pyarrow(table) == before
    require_right_partitions(table)
    assert plan_of(table, old_specs="all").steps == []
    # the filter of a partition column prunes files, and must find what a filter of all rows finds
    if isinstance(kind, (FloatType, DoubleType, UUIDType, FixedType, BinaryType)):
        return
    scanned = table.scan().to_arrow().to_pylist()
    for value in values:
        text = "x is null" if value is None else f"x = '{value.isoformat()}'" if hasattr(value, "isoformat") else None
        if text is None and isinstance(value, (int, Decimal)):
            text = f"x = {value}"
        if text is None:
            text = f"x = '{value}'"
        found = table.scan(row_filter=text).to_arrow()
        assert Counter(found.column("id").to_pylist()) == Counter(row["id"] for row in scanned if row["x"] == value), (
            text
        )


def spread(catalog: SqlCatalog, files: int = 6) -> Table:
    """Files of one old partition each, by region; their days are mixed."""
    table = make_table(catalog, fields(id=LongType(), region=StringType(), day=DateType()))
    evolve(table, lambda update: update.add_identity("region"))
    for number in range(files):
        append(
            table,
            [
                {"id": number * 10 + row, "region": "NS"[number % 2], "day": date(2026, 1, 1 + row % 3)}
                for row in range(10)
            ],
        )
    return table


def by_day(table: Table) -> Table:
    return evolve(table, lambda update: (update.remove_field("region"), update.add_field("day", DayTransform(), "d")))


def test_rows_of_old_partitions_meet_in_the_new_ones(catalog: SqlCatalog) -> None:
    table = by_day(spread(catalog))
    before, scanned = by_pyarrow(table), by_scan(table)
    plan = plan_of(table, min_input_files=3)
    assert [(len(step.detail["files"]), step.detail["files_out"]) for step in plan.steps] == [(6, 3)]
    assert plan.steps[0].detail["old_spec_ids"] == [1]
    assert "older partition specs, to 3 partitions at most" in plan.steps[0].summary
    done = compact(table, min_input_files=3)
    assert (done.metrics["files_rewritten"], done.metrics["files_added"]) == (6, 3)
    assert (by_pyarrow(table), by_duckdb(table), by_scan(table)) == (before, before, scanned)
    require_right_partitions(table)
    assert all("/d=2026-01-0" in file.file_path for file in live_data_files(table))
    found = table.scan(row_filter="day = '2026-01-02'").to_arrow()
    assert found.num_rows == 18
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert {manifest.partition_spec_id for manifest in snapshot.manifests(table.io) if manifest.has_added_files()} == {
        2
    }


def test_old_files_are_left_alone_when_asked_or_when_there_would_only_be_more_files(catalog: SqlCatalog) -> None:
    table = by_day(spread(catalog, files=2))
    assert plan_of(table).steps == []  # a file of each region
    append(table, [{"id": 1, "region": "N", "day": date(2026, 1, 1)}])
    assert plan_of(table, old_specs="leave").steps == []
    table = by_day(spread_more(catalog))
    assert plan_of(table).steps == []  # two files would become three
    assert len(plan_of(table, old_specs="all").steps) == 1


def spread_more(catalog: SqlCatalog) -> Table:
    catalog.drop_table("ns.t")
    table = spread(catalog, files=1)
    append(table, [{"id": row, "region": "N", "day": date(2026, 1, 1 + row)} for row in range(3)])
    return table


def test_deletes_of_old_partitions_take_out_only_their_rows(catalog: SqlCatalog) -> None:
    table = spread(catalog)
    # key 11 is in region S; the delete is scoped to N and must not touch it, key 20 is in N
    add_equality_deletes(table, pa.table({"id": pa.array([11, 20], pa.int64())}), ["id"], partition=Record("N"))
    first = next(file for file in live_data_files(table) if file.partition[0] == "S")
    add_position_deletes(table, {first.file_path: [0, 9]})
    gone = pq.ParquetFile(local(first.file_path)).read().column("id").to_pylist()
    by_day(table)
    # newer rows of the new spec, equal to deleted ones
    append(table, [{"id": 20, "region": "N", "day": date(2026, 1, 1)}])
    done = compact(table, old_specs="all")
    found = sorted(row["id"] for row in table.scan().to_arrow().to_pylist())
    expected = sorted([*(set(range(60)) - {20, gone[0], gone[9]}), 20])
    assert found == expected
    assert done.metrics["delete_files_removed"] == 2
    assert done.metrics["deleted_rows_folded"] == 3
    require_right_partitions(table)


def test_a_delete_stays_while_a_file_of_its_old_partition_does(catalog: SqlCatalog) -> None:
    table = spread(catalog)
    large = [{"id": 1000 + row, "region": "N", "day": date(2026, 1, 1)} for row in range(100_000)]
    append(table, large, compression="none", use_dictionary=False)
    add_equality_deletes(table, pa.table({"id": pa.array([20, 1005], pa.int64())}), ["id"], partition=Record("N"))
    by_day(table)
    done = compact(table, target_file_size_mb=1, min_input_files=3, max_deleted_ratio=1)
    assert [file.record_count for file in live_data_files(table) if file.spec_id == 1] == [100_000]
    assert "delete_files_removed" not in done.metrics
    done = compact(table, old_specs="all")
    assert done.metrics["delete_files_removed"] == 1
    found = Counter(row["id"] for row in table.scan().to_arrow().to_pylist())
    assert not found.keys() & {20, 1005}
    assert found.total() == 60 + 100_000 - 2


def test_a_partition_with_files_enough_of_its_own_goes_there_whole(catalog: SqlCatalog) -> None:
    """Row groups are copied where a file falls into one partition of the new spec by its bounds."""
    schema = fields(id=LongType(), day=DateType())
    table = make_table(catalog, schema, {"write.parquet.compression-codec": "none"})
    rows = 300_000
    for number in range(2):
        ids = pa.array(range(number * rows, (number + 1) * rows), pa.int64())
        append(table, {"id": ids, "day": [date(2026, 1, 1 + number)] * rows}, compression="none")
    append(table, [{"id": -1, "day": date(2026, 1, 1)}, {"id": -2, "day": None}])
    evolve(table, lambda update: update.add_field("day", DayTransform(), "d"))
    before = digest(table)
    done = compact(table, old_specs="all", target_file_size_mb=1)
    assert done.metrics["row_groups_copied"] == 2
    assert digest(table) == before
    assert Counter(values_key(file.partition) for file in live_data_files(table)) == {
        "[20454]": 2,
        "[20455]": 1,
        "[None]": 1,
    }


def test_sorted_within_each_partition(catalog: SqlCatalog) -> None:
    table = by_day(spread(catalog))
    before = by_pyarrow(table)
    compact(table, old_specs="all", strategy="sort", sort_columns="id desc")
    assert by_pyarrow(table) == before
    require_right_partitions(table)
    for file in live_data_files(table):
        ids = pq.ParquetFile(local(file.file_path)).read().column("id").to_pylist()
        assert ids == sorted(ids, reverse=True)


def test_memory_and_open_files_are_bounded(catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held is written out when there is enough, and files are finished to open others."""
    monkeypatch.setattr(repartition, "MOST_OPEN", 2)
    monkeypatch.setattr(sort, "SORT_BYTES", 1)
    properties = {"write.parquet.row-group-size-bytes": "20000"}
    table = make_table(catalog, fields(id=LongType(), region=StringType(), day=DateType()), properties)
    append(table, [{"id": row, "region": "N", "day": date(2026, 1, 1 + row % 7)} for row in range(9_000)])
    evolve(table, lambda update: update.add_field("day", DayTransform(), "d"))
    before = by_pyarrow(table)
    compact(table, old_specs="all")
    assert by_pyarrow(table) == before
    assert len(live_data_files(table)) > 7
    require_right_partitions(table)


def test_too_many_partitions_are_refused_and_leave_nothing(catalog: SqlCatalog) -> None:
    table = by_day(spread(catalog))
    execution = open_plan(plan_of(table, old_specs="all"), table)
    execution.max_partitions = 2
    before = table.metadata_location
    with pytest.raises(UnsupportedError, match="more than 2 partitions"):
        carry_out(execution)
    assert table.refresh().metadata_location == before


def test_partition_columns_inside_structs_and_schemas_that_changed(catalog: SqlCatalog) -> None:
    table = make_table(catalog, fields(id=IntegerType(), s=StructType(NestedField(10, "k", IntegerType()))))
    append(table, [{"id": 1, "s": {"k": 5}}, {"id": 2, "s": None}, {"id": 3, "s": {"k": None}}])
    evolve(table, lambda update: update.add_identity("id"))
    append(table, [{"id": 4, "s": {"k": 5}}])
    with table.update_schema() as schema:
        schema.update_column("id", LongType())
        schema.update_column(("s", "k"), LongType())
        schema.rename_column("s", "t")
    table.refresh()
    evolve(table, lambda update: (update.remove_field("id"), update.add_field("t.k", IdentityTransform(), "k")))
    compact(table, old_specs="all")
    assert {values_key(file.partition): file.record_count for file in live_data_files(table)} == {"[5]": 2, "[None]": 2}
    assert by_pyarrow(table) == bag(
        typed(table, [{"id": 1, "t": {"k": 5}}, {"id": 2}, {"id": 3, "t": {"k": None}}, {"id": 4, "t": {"k": 5}}])
    )


def test_an_old_partition_column_that_was_dropped(catalog: SqlCatalog) -> None:
    """Manifests of the old spec are written anew for the files that stay: their partition values stay too."""
    table = spread(catalog)
    append(table, [{"id": 1000, "region": "W", "day": date(2026, 1, 1)}])
    by_day(table)
    with table.update_schema() as schema:
        schema.delete_column("region")
    table.refresh()
    compact(table, min_input_files=3)
    left = [file for file in live_data_files(table) if file.spec_id == 1]
    assert [values_key(file.partition) for file in left] == ["['W']"]
    compact(table, old_specs="all")
    require_right_partitions(table)
    assert table.scan().to_arrow().num_rows == 61


def test_to_no_partitions_at_all_and_version_1(catalog: SqlCatalog) -> None:
    table = make_table(catalog, fields(id=LongType(), region=StringType()), {"format-version": "1"})
    evolve(table, lambda update: update.add_identity("region"))
    for number in range(4):
        append(table, [{"id": number, "region": "NS"[number % 2]}])
    evolve(table, lambda update: update.remove_field("region"))
    assert [str(field.transform) for field in table.spec().fields] == ["void"]
    compact(table)
    assert [(values_key(file.partition), file.record_count) for file in live_data_files(table)] == [("[None]", 4)]
    evolve(table, lambda update: update.add_field("id", BucketTransform(2), "b"))
    compact(table, old_specs="all")
    require_right_partitions(table)
    assert sorted(row["id"] for row in table.scan().to_arrow().to_pylist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("scope", ["old", "new", "elsewhere"])
def test_a_concurrent_equality_delete_is_a_conflict_when_rows_change_their_partition(
    catalog: SqlCatalog, scope: str
) -> None:
    """By the old spec it would miss the new files, by the new spec it would hide rows that it did not hide before."""
    table = spread(catalog)
    if scope == "old":
        # another table object still knows the old spec as the current one
        writer = catalog.load_table("ns.t")
        by_day(table)
        partition = Record("N")
        assert writer.spec().spec_id == 1
    else:
        by_day(table)
        writer = catalog.load_table("ns.t")
        partition = Record(20454 if scope == "new" else 3)  # 2026-01-01, and a day that has no rows

    def interfere(_: Any) -> None:
        add_equality_deletes(writer, pa.table({"id": pa.array([0, 20], pa.int64())}), ["id"], partition=partition)

    execution = Interfering(open_plan(plan_of(table, old_specs="all"), table), interfere)
    if scope == "elsewhere":
        carry_out(execution)
    else:
        with pytest.raises(CommitConflictError, match="deleted rows"):
            carry_out(execution)
        # planned anew it is right: by the old scope the row of N is gone, by the new one none is
        table.refresh()
        compact(table, old_specs="all")
    table.refresh()
    gone = {0, 20} if scope == "old" else set()
    assert {row["id"] for row in _plain_rows(table)} == set(range(60)) - gone


def _plain_rows(table: Table) -> list[dict[str, Any]]:
    return [
        row
        for file in live_data_files(table)
        for row in pq.ParquetFile(local(file.file_path)).read().to_pylist()
        if file.content == 0
    ]


def test_appends_by_the_old_and_the_new_spec_meanwhile(catalog: SqlCatalog) -> None:
    table = spread(catalog)
    old_writer = catalog.load_table("ns.t")
    by_day(table)

    def interfere(_: Any) -> None:
        append(old_writer, [{"id": 100, "region": "N", "day": date(2026, 1, 2)}])
        append(catalog.load_table("ns.t"), [{"id": 200, "region": "S", "day": date(2026, 1, 2)}])

    carry_out(Interfering(open_plan(plan_of(table, old_specs="all"), table), interfere))
    table.refresh()
    assert Counter(file.spec_id for file in live_data_files(table)) == {1: 1, 2: 4}
    compact(table, old_specs="all")
    require_right_partitions(table)
    assert {row["id"] for row in table.scan(row_filter="day = '2026-01-02'").to_arrow().to_pylist()} >= {100, 200}
    assert table.scan().to_arrow().num_rows == 62
