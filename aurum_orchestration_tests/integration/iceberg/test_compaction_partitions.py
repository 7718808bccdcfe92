"""Compaction of partitioned tables: files stay in their partition, whatever its values and names; filters."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
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
from aurum_orchestration_tests.iceberg_deletes import live_data_files
from aurum_orchestration_tests.integration.iceberg.support import (
    append_stored,
    compact,
    data_paths,
    fields,
    judge,
    local,
    make_table,
    plan_of,
    spec_of,
    typed,
)

_MOMENT = datetime(2026, 1, 31, 23, 59, 59, 999999, tzinfo=UTC)
_NAIVE = _MOMENT.replace(tzinfo=None)
_OLD = datetime(1900, 1, 1, tzinfo=UTC)
ODD_TEXTS = [
    "",
    " ",
    "a/b",
    "a=b",
    "a,b",
    "..",
    "ü",
    "%41",
    "None",
    "null",
    "\n",
    '"',
    "'",
    "+",
    "#",
    "?",
    "*[0]",
    None,
]

# type, transform, a value per partition (None is one too)
_TRANSFORMS: dict[str, tuple[IcebergType, Transform[Any, Any], list[Any]]] = {
    "text": (StringType(), IdentityTransform(), ODD_TEXTS),
    "long": (LongType(), IdentityTransform(), [0, -1, 2**62, None]),
    "int": (IntegerType(), IdentityTransform(), [0, -1, None]),
    "date": (DateType(), IdentityTransform(), [date(2026, 1, 31), date(1900, 1, 1), None]),
    "timestamp": (TimestampType(), IdentityTransform(), [_NAIVE, _OLD.replace(tzinfo=None), None]),
    "timestamptz": (TimestamptzType(), IdentityTransform(), [_MOMENT, _OLD, None]),
    "time": (TimeType(), IdentityTransform(), [time(1, 2, 3, 4), None]),
    "decimal": (DecimalType(9, 2), IdentityTransform(), [Decimal("1.00"), Decimal("-123.45"), None]),
    "wide decimal": (DecimalType(38, 10), IdentityTransform(), [Decimal("1.5"), Decimal("-123.45"), None]),
    "boolean": (BooleanType(), IdentityTransform(), [True, False, None]),
    "fixed": (FixedType(3), IdentityTransform(), [b"abc", b"\0\xff ", None]),
    "binary": (BinaryType(), IdentityTransform(), [b"abc", b"\0\xff", b"", None]),
    "double": (DoubleType(), IdentityTransform(), [1.5, -2.0, float("inf"), None]),
    "year": (DateType(), YearTransform(), [date(2026, 1, 31), date(1900, 1, 1), None]),
    "month": (TimestampType(), MonthTransform(), [_NAIVE, _OLD.replace(tzinfo=None), None]),
    "day": (TimestamptzType(), DayTransform(), [_MOMENT, _OLD, None]),
    "hour": (TimestampType(), HourTransform(), [_NAIVE, _OLD.replace(tzinfo=None), None]),
    "bucket of texts": (StringType(), BucketTransform(4), ["a", "b", "c", None]),
    "bucket of uuids": (UUIDType(), BucketTransform(4), [UUID(int=0).bytes, UUID(int=2**127).bytes, None]),
    "truncated text": (StringType(), TruncateTransform(2), ["abc", "xyz", "ü", None]),
    "truncated long": (LongType(), TruncateTransform(10), [1, -1, 15, None]),
    "truncated decimal": (DecimalType(9, 2), TruncateTransform(10), [Decimal("1.00"), Decimal("-123.45"), None]),
    "void": (StringType(), VoidTransform(), ["abc", None]),
}


def partitions(table: Table) -> Counter[str]:
    """Files per partition, values as Python writes them."""
    return Counter(repr([file.partition[index] for index in range(len(file.partition))]) for file in live(table))


def live(table: Table) -> list[DataFile]:
    return live_data_files(table)


def assert_manifests_readable(table: Table) -> None:
    """By an Avro reader that holds to the specification."""
    snapshot = table.current_snapshot()
    assert snapshot is not None
    for manifest in snapshot.manifests(table.io):
        with local(manifest.manifest_path).open("rb") as stream:
            assert list(fastavro.reader(stream))


@pytest.mark.parametrize(
    ("kind", "transform", "values"), [pytest.param(*case, id=name) for name, case in _TRANSFORMS.items()]
)
def test_files_stay_in_their_partition(
    catalog: SqlCatalog, kind: IcebergType, transform: Transform[Any, Any], values: list[Any]
) -> None:
    version = str(1 + sum(map(ord, str(transform))) % 2)  # both format versions get their share
    schema = fields(id=LongType(), v=kind)
    table = make_table(catalog, schema, {"format-version": version}, spec=spec_of((2, transform, "part")))
    rows = typed(table, [{"id": number, "v": value} for number, value in enumerate(values)])
    table.append(rows)
    table.append(rows)
    before, in_partitions = judge(table), partitions(table)
    where = {str(local(path).parent) for path in data_paths(table)}
    result = compact(table)
    assert result.metrics["groups"] == len(in_partitions)
    assert partitions(table) == Counter(dict.fromkeys(in_partitions, 1))
    assert judge(table) == before
    assert {str(local(path).parent) for path in data_paths(table)} == where
    assert_manifests_readable(table)
    assert plan_of(table).steps == []


_DECIMAL, _UUID, _FIXED = Decimal("1.00"), UUID(int=7), b"abc"
_ODD = 'a.b c-ü/"x'
# schema, spec, a row, its partition
_SPECS: dict[str, tuple[Schema, PartitionSpec, dict[str, Any], Record]] = {
    "two decimals": (
        fields(a=DecimalType(9, 2), b=DecimalType(9, 2)),
        spec_of((1, IdentityTransform(), "a"), (2, IdentityTransform(), "b")),
        {"a": _DECIMAL, "b": Decimal("2.00")},
        Record(_DECIMAL, Decimal("2.00")),
    ),
    "two uuids": (
        fields(a=UUIDType(), b=UUIDType()),
        spec_of((1, IdentityTransform(), "a"), (2, IdentityTransform(), "b")),
        {"a": _UUID.bytes, "b": UUID(int=8).bytes},
        Record(_UUID, UUID(int=8)),
    ),
    "two fixed": (
        fields(a=FixedType(3), b=FixedType(3)),
        spec_of((1, IdentityTransform(), "a"), (2, IdentityTransform(), "b")),
        {"a": b"abc", "b": b"abd"},
        Record(b"abc", b"abd"),
    ),
    "odd names": (
        fields(**{_ODD: StringType(), "select": LongType(), "1st": LongType()}),
        spec_of(
            (1, IdentityTransform(), _ODD), (2, BucketTransform(4), "9 in % of=x"), (3, IdentityTransform(), "1st")
        ),
        {_ODD: "v", "select": 2, "1st": 3},
        Record("v", 1, 3),
    ),
    "field of a struct": (
        Schema(NestedField(1, "s", StructType(NestedField(2, "day", DateType()), NestedField(3, "x", StringType())))),
        spec_of((2, IdentityTransform(), "s.day")),
        {"s": {"day": date(2026, 1, 1), "x": "a"}},
        Record(20454),
    ),
    "one column twice": (
        fields(at=TimestampType()),
        spec_of((1, DayTransform(), "day"), (1, HourTransform(), "hour")),
        {"at": _NAIVE},
        Record(20484, 20484 * 24 + 23),
    ),
    "a void among others": (
        fields(a=LongType(), b=StringType()),
        spec_of((1, VoidTransform(), "gone"), (2, IdentityTransform(), "b")),
        {"a": 1, "b": "x"},
        Record(None, "x"),
    ),
}


@pytest.mark.parametrize(
    ("version", "schema", "spec", "row", "partition"),
    [pytest.param(str(1 + number % 2), *case, id=name) for number, (name, case) in enumerate(_SPECS.items())],
)
def test_odd_specs(
    catalog: SqlCatalog, version: str, schema: Schema, spec: PartitionSpec, row: dict[str, Any], partition: Record
) -> None:
    table = make_table(catalog, schema, {"format-version": version}, spec=spec)
    append_stored(table, [typed(table, [row])] * 3, partition)
    before = judge(table)
    compact(table)
    assert [file.partition for file in live(table)] == [partition]
    assert judge(table) == before
    assert_manifests_readable(table)


def test_two_texts_are_no_other_two_that_print_alike(catalog: SqlCatalog) -> None:
    spec = spec_of((1, IdentityTransform(), "a"), (2, IdentityTransform(), "b"))
    table = make_table(catalog, fields(a=StringType(), b=StringType()), spec=spec)
    for a, b in (("x, y", "z"), ("x", "y, z")):
        append_stored(table, [typed(table, [{"a": a, "b": b}])] * 2, Record(a, b))
    before = partitions(table)
    assert compact(table).metrics["groups"] == 2
    assert partitions(table) == Counter(dict.fromkeys(before, 1))


@pytest.fixture
def by_day_and_region(catalog: SqlCatalog) -> Table:
    """Two files in each of three days and two regions."""
    schema = fields(at=TimestampType(), region=StringType(), n=LongType())
    table = make_table(catalog, schema, spec=spec_of((1, DayTransform(), "at_day"), (2, IdentityTransform(), "region")))
    for number in range(2):
        table.append(
            typed(
                table,
                [
                    {"at": datetime(2026, 1, day, 12), "region": region, "n": number}  # noqa: DTZ001
                    for day in (1, 2, 3)
                    for region in ("N", "S")
                ],
            )
        )
    return table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("region = 'N'", {(1, "N"), (2, "N"), (3, "N")}),
        ("region in ('N', 'X') and at >= '2026-01-02T00:00:00'", {(2, "N"), (3, "N")}),
        ("at < '2026-01-02T00:00:00'", {(1, "N"), (1, "S")}),
        ("at = '2026-01-02T12:00:00'", {(2, "N"), (2, "S")}),
        ("at >= '2026-01-02T15:00:00'", {(2, "N"), (2, "S"), (3, "N"), (3, "S")}),  # partitions may hold such rows
        ("not (region = 'N') and at > '2026-01-03T00:00:00'", {(3, "S")}),
        ("region is null", set()),
        ("region = 'N' or at < '2026-01-02T00:00:00'", {(1, "N"), (2, "N"), (3, "N"), (1, "S")}),
        ("region like 'N%'", {(1, "N"), (2, "N"), (3, "N")}),
    ],
)
def test_only_the_partitions_of_the_filter(by_day_and_region: Table, text: str, expected: set[tuple[int, str]]) -> None:
    table = by_day_and_region
    plan = plan_of(table, partition_filter=text)
    found = {step.detail["partition"] for step in plan.steps}
    assert found == {f"at_day=2026-01-{day:02d}/region={region}" for day, region in expected}


def test_a_filtered_compaction_leaves_the_others_alone(by_day_and_region: Table) -> None:
    table = by_day_and_region
    before = judge(table)
    untouched = {path for path in data_paths(table) if "region=S" in path}
    compact(table, partition_filter="region = 'N'")
    assert judge(table) == before
    after = set(data_paths(table))
    assert {path for path in after if "region=S" in path} == untouched
    assert sum("region=N" in path for path in after) == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("n = 1", "names n, but the table is partitioned by at, region"),
        ("nowhere = 1", "nowhere"),
        ("at_day = '2026-01-01'", "at_day"),
        ("region = ", "region ="),
        ("at = 'yesterday'", "yesterday"),
        ("", "partition_filter ''"),
        ("region = 'N' and n > 1", "names n"),
    ],
)
def test_a_wrong_filter_is_the_requests_fault(by_day_and_region: Table, text: str, reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        plan_of(by_day_and_region, partition_filter=text)


def test_a_filter_on_a_table_without_partitions(catalog: SqlCatalog) -> None:
    table = make_table(catalog, fields(id=LongType()))
    with pytest.raises(RequestError, match="partitioned by nothing"):
        plan_of(table, partition_filter="id = 1")


@pytest.mark.parametrize(
    "name", ["date", "long", "decimal", "boolean", "fixed", "bucket of uuids", "truncated long", "year"]
)
def test_filters_on_values_of_every_kind(catalog: SqlCatalog, name: str) -> None:
    kind, transform, values = _TRANSFORMS[name]
    table = make_table(catalog, fields(id=LongType(), v=kind), spec=spec_of((2, transform, "part")))
    rows = typed(table, [{"id": number, "v": value} for number, value in enumerate(values)])
    table.append(rows)
    table.append(rows)
    groups = len(plan_of(table).steps)
    assert len(plan_of(table, partition_filter="v is null").steps) == 1
    assert len(plan_of(table, partition_filter="v is not null").steps) == groups - 1
