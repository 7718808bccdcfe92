"""Compaction that sorts: the order of every file against Python's own, what the metadata says, what is refused."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.conversions import from_bytes
from pyiceberg.table import Table
from pyiceberg.table.sorting import NullOrder, SortDirection, SortField, SortOrder
from pyiceberg.transforms import BucketTransform, DayTransform, IdentityTransform, TruncateTransform
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

from aurum_orchestration.errors import RequestError
from aurum_orchestration.maintenance.backends.iceberg.compact import sort
from aurum_orchestration_tests.iceberg_deletes import add_position_deletes, live_data_files
from aurum_orchestration_tests.integration.iceberg.merged import delete_paths
from aurum_orchestration_tests.integration.iceberg.support import (
    append,
    by_duckdb,
    compact,
    fields,
    local,
    make_table,
    plan_of,
    sql_catalog,
    stored_files,
)

Row = Mapping[str, Any]
PAIRS = fields(name=StringType(), id=LongType(), seen=LongType())
OWN = SortOrder(
    SortField(1, IdentityTransform(), SortDirection.ASC, NullOrder.NULLS_LAST),
    SortField(2, IdentityTransform(), SortDirection.DESC, NullOrder.NULLS_FIRST),
    order_id=1,
)


def file_rows(table: Table) -> list[list[Row]]:
    """The rows of each live data file, in file order."""
    return [pq.ParquetFile(local(file.file_path)).read().to_pylist() for file in live_data_files(table)]


def pairs(files: int = 5, rows: int = 60) -> list[list[Row]]:
    rng = np.random.default_rng(7)
    names = [None, "b", "a", "", "ä", "zz", "Z"]
    return [
        [
            {
                "name": names[rng.integers(len(names))],
                "id": None if rng.integers(6) == 0 else int(rng.integers(-5, 5)),
                "seen": number * rows + row,
            }
            for row in range(rows)
        ]
        for number in range(files)
    ]


def with_order(catalog: SqlCatalog, order: SortOrder = OWN) -> Table:
    return catalog.create_table("ns.t", PAIRS, sort_order=order)


def own_key(row: Row) -> tuple[Any, ...]:
    name, identity = row["name"], row["id"]
    return (name is None, (name or "").encode(), identity is not None, -(identity or 0))


def test_rows_come_in_the_tables_own_order_and_the_files_say_so(catalog: SqlCatalog) -> None:
    table = with_order(catalog)
    given_rows = pairs()
    append(table, *given_rows)
    compact(table, strategy="sort")
    (rows,) = file_rows(table)
    # sorted() is stable: rows that compare equal stay as they were committed
    assert rows == sorted((row for part in given_rows for row in part), key=own_key)
    (file,) = live_data_files(table)
    assert file.sort_order_id == 1
    assert plan_of(table, strategy="sort").steps == []


def test_files_that_are_not_in_the_order_are_sorted_whatever_their_size(catalog: SqlCatalog) -> None:
    table = with_order(catalog)
    append(table, *pairs(5))
    compact(table, target_file_size_mb=1)
    assert [file.sort_order_id for file in live_data_files(table)] == [None]
    assert plan_of(table, strategy="sort", min_input_files=2).steps == []
    append(table, pairs(1)[0])
    done = compact(table, strategy="sort", min_input_files=2)
    assert done.metrics["files_rewritten"] == 2
    (rows,) = file_rows(table)
    assert rows == sorted(rows, key=own_key)


def test_columns_given_with_direction_and_nulls(catalog: SqlCatalog) -> None:
    table = make_table(catalog, PAIRS)
    given_rows = pairs()
    append(table, *given_rows)
    compact(table, strategy="sort", sort_columns="id DESC nulls last, name")
    (rows,) = file_rows(table)

    def key(row: Row) -> tuple[Any, ...]:
        return (row["id"] is None, -(row["id"] or 0), row["name"] is not None, (row["name"] or "").encode())

    assert rows == sorted((row for part in given_rows for row in part), key=key)
    assert [file.sort_order_id for file in live_data_files(table)] == [None]
    # nothing is small any more: what is large already takes rewrite_all
    assert plan_of(table, strategy="sort", sort_columns="seen").steps == []
    compact(table, strategy="sort", sort_columns="seen desc", rewrite_all=True)
    assert [row["seen"] for row in file_rows(table)[0]] == list(range(299, -1, -1))


def test_the_tables_own_order_given_by_its_columns_is_recorded(catalog: SqlCatalog) -> None:
    table = with_order(catalog)
    append(table, *pairs())
    compact(table, strategy="sort", sort_columns='"name" asc nulls last, id desc nulls first')
    assert [file.sort_order_id for file in live_data_files(table)] == [1]


def test_a_group_larger_than_memory_comes_out_in_files_that_are_each_in_order(
    catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(catalog, PAIRS, properties={"write.parquet.row-group-size-bytes": "4000"})
    given_rows = pairs(8, 200)
    append(table, *given_rows)
    before = by_duckdb(table)
    monkeypatch.setattr(sort, "SORT_BYTES", 8_000)
    compact(table, strategy="sort", sort_columns="name nulls last, id desc nulls first")
    files = file_rows(table)
    assert len(files) > 2
    assert all(rows == sorted(rows, key=own_key) for rows in files)
    assert by_duckdb(table) == before


def test_files_and_row_groups_have_tight_bounds(catalog: SqlCatalog) -> None:
    table = make_table(catalog, PAIRS, properties={"write.parquet.row-group-limit": "100"})
    texts = [f"{number:05}" for number in np.random.default_rng(3).permutation(1000)]
    append(table, *({"name": texts[at : at + 200], "id": [1] * 200, "seen": range(200)} for at in range(0, 1000, 200)))
    compact(table, strategy="sort", sort_columns="name")
    (file,) = live_data_files(table)
    assert (from_bytes(StringType(), file.lower_bounds[1]), from_bytes(StringType(), file.upper_bounds[1])) == (
        "00000",
        "00999",
    )
    footer = pq.ParquetFile(local(file.file_path)).metadata
    bounds = [footer.row_group(number).column(0).statistics for number in range(footer.num_row_groups)]
    assert len(bounds) == 10
    assert [(one.min, one.max) for one in bounds] == [
        (f"{number:05}", f"{number + 99:05}") for number in range(0, 1000, 100)
    ]


def test_deleted_rows_are_left_out_of_the_order(catalog: SqlCatalog) -> None:
    table = make_table(catalog, PAIRS)
    given_rows = pairs()
    append(table, *given_rows)
    add_position_deletes(table, {file.file_path: [0, 59] for file in live_data_files(table)})
    done = compact(table, strategy="sort", sort_columns="name nulls last, id desc nulls first")
    (rows,) = file_rows(table)
    assert rows == sorted((row for part in given_rows for row in part[1:-1]), key=own_key)
    assert (delete_paths(table), done.tally.verifications[0].rows_before) == (set(), 290)


# --- every type


def ieee(value: float) -> tuple[bool, float, bool]:
    """As the format orders floats: -0.0 before 0.0, NaN last."""
    return (math.isnan(value), 0.0 if math.isnan(value) else value, math.copysign(1, value) > 0)


MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))  # noqa: DTZ001
KINDS: list[tuple[IcebergType, st.SearchStrategy[Any], Callable[[Any], Any]]] = [
    (BooleanType(), st.booleans(), bool),
    (IntegerType(), st.integers(-(2**31), 2**31 - 1), int),
    (LongType(), st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3), int),
    (FloatType(), st.floats(width=32).map(lambda v: math.nan if math.isnan(v) else v), ieee),
    (DoubleType(), st.floats().map(lambda v: math.nan if math.isnan(v) else v), ieee),
    (DecimalType(20, 3), st.decimals(-(10**16), 10**16, places=3), Decimal),
    (DateType(), st.dates(), date.toordinal),
    (TimeType(), st.times(), time.isoformat),
    (TimestampType(), MOMENTS, lambda v: v),
    (TimestamptzType(), MOMENTS.map(lambda v: v.replace(tzinfo=UTC)), lambda v: v),
    (StringType(), st.text(max_size=5), str.encode),
    (BinaryType(), st.binary(max_size=5), bytes),
    (FixedType(3), st.binary(min_size=3, max_size=3), bytes),
    (UUIDType(), st.uuids(), lambda v: v.bytes if isinstance(v, uuid.UUID) else v),
]


@pytest.mark.parametrize(("kind", "values", "key"), KINDS, ids=[str(kind) for kind, _, _ in KINDS])
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_type_in_both_directions(
    tmp_path_factory: pytest.TempPathFactory,
    kind: IcebergType,
    values: st.SearchStrategy[Any],
    key: Callable[[Any], Any],
    data: st.DataObject,
) -> None:
    drawn = data.draw(st.lists(st.none() | values, min_size=4, max_size=30))
    descending, nulls_last = data.draw(st.booleans()), data.draw(st.booleans())
    with sql_catalog(tmp_path_factory.mktemp("lake")) as catalog:
        table = make_table(catalog, fields(v=kind, at=LongType()))
        half = len(drawn) // 2
        given_values = [v.bytes if isinstance(v, uuid.UUID) else v for v in drawn]
        append(
            table,
            {"v": given_values[:half], "at": range(half)},
            {"v": given_values[half:], "at": range(half, len(drawn))},
        )
        words = f"v {'desc' if descending else 'asc'} nulls {'last' if nulls_last else 'first'}"
        compact(table, strategy="sort", sort_columns=words)
        (rows,) = file_rows(table)
    present = [at for at, value in enumerate(drawn) if value is not None]
    absent = [at for at, value in enumerate(drawn) if value is None]
    ordered = sorted(present, key=lambda at: key(drawn[at]), reverse=descending)
    if descending:  # sorted() keeps equal ones as they were in reverse, too
        assert [key(drawn[at]) for at in ordered] == sorted((key(drawn[at]) for at in present), reverse=True)
    assert [row["at"] for row in rows] == (ordered + absent if nulls_last else absent + ordered)


def test_transforms_of_the_sort_order(catalog: SqlCatalog) -> None:
    schema = fields(ts=TimestampType(), name=StringType(), id=LongType())
    order = SortOrder(
        SortField(1, DayTransform(), SortDirection.DESC),
        SortField(2, TruncateTransform(1)),
        SortField(3, BucketTransform(4)),
        order_id=1,
    )
    table = catalog.create_table("ns.t", schema, sort_order=order)
    start = datetime(2026, 1, 1)  # noqa: DTZ001
    rows = [
        {"ts": start + timedelta(hours=7 * number % 80), "name": f"{'cab'[number % 3]}{number}", "id": number}
        for number in range(90)
    ]
    append(table, rows[:45], rows[45:])
    compact(table, strategy="sort")
    (found,) = file_rows(table)
    bucket = BucketTransform(4).transform(LongType())

    def key(row: Row) -> tuple[Any, ...]:
        return (-row["ts"].date().toordinal(), row["name"][0], bucket(row["id"]))

    assert found == sorted(rows, key=key)
    assert [file.sort_order_id for file in live_data_files(table)] == [1]


# --- z-order


def test_zorder_clusters_by_both_columns(catalog: SqlCatalog) -> None:
    table = make_table(
        catalog, fields(x=LongType(), y=DoubleType(), at=LongType()), properties={"write.parquet.row-group-limit": "64"}
    )
    rng = np.random.default_rng(11)
    x, y = rng.integers(0, 1000, 4096), rng.normal(0, 1e9, 4096)
    append(
        table,
        *(
            {"x": x[at : at + 512], "y": pa.array(y[at : at + 512], mask=y[at : at + 512] < -2e9), "at": range(512)}
            for at in range(0, 4096, 512)
        ),
    )
    before = by_duckdb(table)
    compact(table, strategy="zorder", zorder_columns="x, y")
    assert by_duckdb(table) == before
    (file,) = live_data_files(table)
    footer = pq.ParquetFile(local(file.file_path)).metadata
    assert footer.num_row_groups == 64

    def mean_share(column: int, whole: float) -> float:
        ranges = [footer.row_group(number).column(column).statistics for number in range(64)]
        return float(np.mean([(one.max - one.min) / whole for one in ranges]))

    # 64 row groups of a plane: an eighth of each column's range, where a sort would give all of the second one's
    assert mean_share(0, 1000) < 0.25
    assert mean_share(1, float(np.ptp(y))) < 0.25


# --- refused


@pytest.mark.parametrize(
    ("given_parameters", "words"),
    [
        ({"strategy": "sort"}, "no sort order"),
        ({"strategy": "sort", "sort_columns": "nme"}, "no column 'nme'"),
        ({"strategy": "sort", "sort_columns": "name upwards"}, "cannot sort by 'name upwards'"),
        ({"strategy": "sort", "sort_columns": "s"}, "struct"),
        ({"strategy": "zorder"}, "zorder_columns"),
        ({"strategy": "zorder", "zorder_columns": "name, nix"}, "no column 'nix'"),
    ],
)
def test_what_cannot_be_sorted_by(catalog: SqlCatalog, given_parameters: Mapping[str, Any], words: str) -> None:
    schema = fields(name=StringType(), s=StructType(NestedField(3, "a", LongType(), required=False)))
    table = make_table(catalog, schema)
    append(table, [{"name": "a", "s": None}], [{"name": "b", "s": {"a": 1}}])
    before = stored_files(table)
    with pytest.raises(RequestError, match=words):
        compact(table, **given_parameters)
    assert stored_files(table) == before
