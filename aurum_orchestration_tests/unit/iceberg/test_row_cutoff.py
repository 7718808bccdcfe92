"""Which rows are old, and what the metadata proves of a file: zones, clocks that go back, bounds that prove nothing."""

from __future__ import annotations

import struct
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from pydantic import ValidationError
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import (
    BucketTransform,
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    VoidTransform,
    YearTransform,
)
from pyiceberg.typedef import Record
from pyiceberg.types import (
    DateType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    NestedField,
    StringType,
    StructType,
    TimestampNanoType,
    TimestampType,
    TimestamptzType,
)

from aurum_orchestration.errors import RequestError, UnsupportedError
from aurum_orchestration.maintenance.backends.iceberg.retention.cutoff import (
    Cutoff,
    TimeColumn,
    cutoff_at,
    cutoff_of,
    earliest_wall,
    time_column,
)
from aurum_orchestration.maintenance.backends.iceberg.retention.verdict import Verdict, verdict
from aurum_orchestration.maintenance.operations.retention import RetentionParameters
from aurum_orchestration_tests.integration.iceberg.support import spec_of

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR, DAY = 3_600_000_000, 86_400_000_000
UNPARTITIONED = PartitionSpec()


def column(kind: IcebergType) -> TimeColumn:
    return TimeColumn("at", (7,), kind)


def at(moment: datetime, kind: IcebergType | None = None, zone: str = "UTC") -> Cutoff:
    return cutoff_of(column(kind or TimestamptzType()), moment, zone)


def micros(wall: datetime) -> int:
    return int((wall - datetime(1970, 1, 1)).total_seconds()) * 1_000_000  # noqa: DTZ001 - wall time


class TestCutoff:
    def test_it_is_a_full_hour_so_that_plans_of_one_hour_are_equal(self) -> None:
        early = cutoff_at(column(TimestamptzType()), NOON, 30, "UTC")
        late = cutoff_at(column(TimestamptzType()), NOON + timedelta(minutes=59, seconds=59.9), 30, "UTC")
        assert early == late
        assert early.moment == datetime(2026, 10, 22, 12, tzinfo=UTC)
        assert early.limit == micros(datetime(2026, 10, 22, 12))  # noqa: DTZ001

    def test_an_instant_does_not_care_for_the_zone(self) -> None:
        assert at(NOON, zone="Asia/Kolkata").limit == at(NOON).limit

    @pytest.mark.parametrize(
        ("zone", "wall"),
        [
            ("UTC", datetime(2026, 11, 21, 12)),  # noqa: DTZ001
            ("America/Los_Angeles", datetime(2026, 11, 21, 4)),  # noqa: DTZ001
            ("Asia/Kolkata", datetime(2026, 11, 21, 17, 30)),  # noqa: DTZ001
        ],
    )
    def test_a_time_without_zone_is_compared_with_the_wall_time_of_its_place(self, zone: str, wall: datetime) -> None:
        assert at(NOON, TimestampType(), zone).limit == micros(wall)

    def test_no_row_that_clocks_show_twice_goes_too_early(self) -> None:
        """Every row of a night in which clocks go back, at every cutoff of it: what is younger is kept."""
        berlin = ZoneInfo("Europe/Berlin")
        start = datetime(2026, 10, 24, 22, tzinfo=UTC)
        steps = [start + timedelta(minutes=15 * number) for number in range(20)]
        for cutoff in (step for step in steps if step.minute == 0):
            limit = at(cutoff, TimestampType(), "Europe/Berlin").limit
            for row in steps:
                if row >= cutoff:
                    assert micros(row.astimezone(berlin).replace(tzinfo=None)) >= limit
        # while nothing is kept much longer than it has to be
        assert at(start + timedelta(hours=4), TimestampType(), "Europe/Berlin").limit == micros(
            datetime(2026, 10, 25, 3)  # noqa: DTZ001
        )

    def test_the_wall_time_before_clocks_go_back_is_the_earlier_of_two(self) -> None:
        moment = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)  # 02:30 in Berlin, for the first time
        assert earliest_wall(moment, ZoneInfo("Europe/Berlin")) == datetime(2026, 10, 25, 2)  # noqa: DTZ001

    def test_a_date_is_old_when_the_whole_day_is(self) -> None:
        assert at(NOON, DateType()).limit == (date(2026, 11, 21) - date(1970, 1, 1)).days
        late = datetime(2026, 11, 21, 23, tzinfo=UTC)
        assert at(late, DateType(), "Asia/Tokyo").limit == (date(2026, 11, 22) - date(1970, 1, 1)).days

    @pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
    def test_files_may_store_another_unit(self, unit: str) -> None:
        stored = pa.scalar(NOON, pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, "UTC"))
        assert at(NOON).in_unit_of(stored.type) == stored.value

    def test_nanoseconds_are_counted_as_such(self) -> None:
        assert at(NOON, TimestampNanoType()).limit == at(NOON, TimestampType()).limit * 1000

    def test_something_else_than_a_time_is_refused(self) -> None:
        with pytest.raises(UnsupportedError, match="stores int64 in at"):
            at(NOON).in_unit_of(pa.int64())
        with pytest.raises(UnsupportedError, match="stores timestamp"):
            at(NOON, DateType()).in_unit_of(pa.timestamp("us"))


class TestTimeColumn:
    SCHEMA = Schema(
        NestedField(1, "at", TimestampType(), required=False),
        NestedField(2, "event", StructType(NestedField(3, "at", TimestamptzType(), required=False)), required=False),
        NestedField(4, "many", ListType(5, TimestampType(), element_required=False), required=False),
        NestedField(6, "epoch", LongType(), required=False),
        NestedField(7, "small", IntegerType(), required=False),
        NestedField(8, "text", StringType(), required=False),
    )

    def test_a_field_of_a_struct_has_the_path_that_leads_to_it(self) -> None:
        assert time_column(self.SCHEMA, "event.at").path == (2, 3)
        assert time_column(self.SCHEMA, "at").path == (1,)

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("epoch", "epoch is long: a number does not say which unit"),
            ("small", "small is int: a number does not say"),
            ("text", "no timestamp and no date"),
            ("event", "no timestamp and no date"),
            ("many.element", "a row has many of its values"),
        ],
    )
    def test_a_column_that_holds_no_time_is_refused_with_the_reason(self, name: str, why: str) -> None:
        with pytest.raises(UnsupportedError, match=why):
            time_column(self.SCHEMA, name)

    def test_a_column_that_is_not_there_is_a_wrong_request(self) -> None:
        with pytest.raises(RequestError, match="no column 'att'") as caught:
            time_column(self.SCHEMA, "att")
        assert "'at'" in (caught.value.hint or "")


def file(
    low: int | None = None,
    high: int | None = None,
    nulls: int | None = 0,
    *,
    form: str = "<q",
    partition: tuple[Any, ...] = (),
) -> DataFile:
    bounds = [None if value is None else {7: struct.pack(form, value)} for value in (low, high)]
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path="f",
        file_format=FileFormat.PARQUET,
        partition=Record(*partition),
        record_count=10,
        file_size_in_bytes=1,
        column_sizes=None,
        value_counts=None,
        null_value_counts=None if nulls is None else {7: nulls},
        nan_value_counts=None,
        lower_bounds=bounds[0],
        upper_bounds=bounds[1],
        key_metadata=None,
        split_offsets=None,
        equality_ids=None,
        sort_order_id=None,
    )


class TestBounds:
    LIMIT = at(NOON).limit

    @pytest.mark.parametrize(
        ("described", "expected"),
        [
            ({"low": -5, "high": -1}, Verdict.OLD),
            ({"low": -5, "high": 0}, Verdict.UNKNOWN),
            ({"low": 0, "high": 5}, Verdict.KEPT),
            ({"high": -1}, Verdict.OLD),
            ({"low": 0}, Verdict.KEPT),
            ({"low": -5}, Verdict.UNKNOWN),
            ({}, Verdict.UNKNOWN),
            ({"low": -5, "high": -1, "nulls": 1}, Verdict.UNKNOWN),
            ({"low": -5, "high": -1, "nulls": None}, Verdict.UNKNOWN),
            ({"nulls": 10}, Verdict.KEPT),
            ({"low": -1, "high": -5}, Verdict.UNKNOWN),
        ],
    )
    def test_only_what_bounds_and_null_counts_prove_counts(self, described: dict[str, Any], expected: Verdict) -> None:
        told = {
            key: value if key == "nulls" or value is None else self.LIMIT + value for key, value in described.items()
        }
        assert verdict(file(**told), UNPARTITIONED, at(NOON)) == expected

    def test_bounds_of_another_width_prove_nothing(self) -> None:
        """A date's bounds on a timestamp, or what a writer cut off."""
        assert verdict(file(0, 1, form="<i"), UNPARTITIONED, at(NOON)) == Verdict.UNKNOWN
        assert verdict(file(0, 1), UNPARTITIONED, at(NOON, DateType())) == Verdict.UNKNOWN
        assert verdict(file(0, 1, form="<i"), UNPARTITIONED, at(NOON, DateType())) == Verdict.OLD


class TestPartitions:
    @pytest.mark.parametrize(
        ("transform", "value", "expected"),
        [
            (YearTransform(), 55, Verdict.OLD),
            (YearTransform(), 56, Verdict.UNKNOWN),
            (YearTransform(), 57, Verdict.KEPT),
            (MonthTransform(), 56 * 12 + 9, Verdict.OLD),
            (MonthTransform(), 56 * 12 + 10, Verdict.UNKNOWN),
            (MonthTransform(), 56 * 12 + 11, Verdict.KEPT),
            (MonthTransform(), -1, Verdict.OLD),
            (DayTransform(), (date(2026, 11, 20) - date(1970, 1, 1)).days, Verdict.OLD),
            (DayTransform(), (date(2026, 11, 21) - date(1970, 1, 1)).days, Verdict.UNKNOWN),
            (DayTransform(), (date(2026, 11, 22) - date(1970, 1, 1)).days, Verdict.KEPT),
            (HourTransform(), at(NOON).limit // HOUR - 1, Verdict.OLD),
            (HourTransform(), at(NOON).limit // HOUR, Verdict.KEPT),
            (IdentityTransform(), at(NOON).limit - 1, Verdict.OLD),
            (IdentityTransform(), at(NOON).limit, Verdict.KEPT),
            (DayTransform(), None, Verdict.KEPT),
            (VoidTransform(), None, Verdict.UNKNOWN),
            (BucketTransform(4), 1, Verdict.UNKNOWN),
            (YearTransform(), 1_000_000, Verdict.UNKNOWN),
        ],
    )
    def test_a_partition_is_old_when_its_whole_range_is(self, transform: Any, value: Any, expected: Verdict) -> None:
        spec = spec_of((7, transform, "p"))
        assert verdict(file(nulls=None, partition=(value,)), spec, at(NOON)) == expected

    def test_a_date_column_has_ranges_in_days(self) -> None:
        spec = spec_of((7, MonthTransform(), "p"))
        cutoff = at(datetime(2026, 11, 1, tzinfo=UTC), DateType())
        assert verdict(file(nulls=None, partition=(56 * 12 + 9,)), spec, cutoff) == Verdict.OLD
        assert verdict(file(nulls=None, partition=(56 * 12 + 10,)), spec, cutoff) == Verdict.KEPT

    def test_a_partition_of_another_column_says_nothing(self) -> None:
        spec = spec_of((8, DayTransform(), "p"))
        assert verdict(file(nulls=None, partition=(0,)), spec, at(NOON)) == Verdict.UNKNOWN

    def test_bounds_that_contradict_the_partition_prove_nothing(self) -> None:
        spec = spec_of((7, DayTransform(), "p"))
        young = at(NOON).limit + DAY
        assert verdict(file(young, young, partition=(0,)), spec, at(NOON)) == Verdict.UNKNOWN


class TestParameters:
    def test_row_days_has_a_floor(self) -> None:
        with pytest.raises(ValidationError, match=r"row_days is 0\.5, below the floor of 1 day"):
            RetentionParameters(time_column="at", row_days=0.5)
        told = RetentionParameters(row_days=0.5, override_floor=True, override_reason="a test")
        assert (told.row_days, told.override_reason) == (0.5, "a test")

    @pytest.mark.parametrize("zone", ["Europe/Nowhere", "", "../etc/passwd", "/etc/localtime"])
    def test_a_zone_that_nobody_knows_is_refused(self, zone: str) -> None:
        with pytest.raises(ValidationError, match="no time zone"):
            RetentionParameters(time_zone=zone)
