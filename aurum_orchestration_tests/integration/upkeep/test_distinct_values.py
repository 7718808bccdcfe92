"""Distinct values stored as Puffin: as Apache DataSketches has them, of the rows that live, kept and taken back."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasketches
import numpy as np
import pyarrow as pa
import pytest
from pyiceberg.conversions import to_bytes
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.puffin import PuffinFile
from pyiceberg.table.statistics import BlobMetadata, StatisticsFile
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IntegerType,
    LongType,
    NestedField,
    PrimitiveType,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)
from pyiceberg.utils.datetime import (
    date_to_days,
    datetime_to_micros,
    time_to_micros,
)

from aurum_orchestration.maintenance.backends.iceberg.stats.puffin import Blob, write
from aurum_orchestration.maintenance.backends.iceberg.stats.theta import ThetaSketch
from aurum_orchestration.maintenance.backends.iceberg.stats.values import Packed, packed
from aurum_orchestration_tests.iceberg_deletes import add_equality_deletes, add_position_deletes, live_data_files
from aurum_orchestration_tests.integration.cleanup.judges import NOW, age_all, local, on_disk
from aurum_orchestration_tests.integration.upkeep.lakeside import BY_REGION, Lakeside, append, contents, files_of, rows

# --- sketches


def sketch_of(column: pa.ChunkedArray, kind: PrimitiveType, lg_k: int = 12) -> ThetaSketch:
    sketch = ThetaSketch(lg_k)
    for values in packed(column, kind):
        sketch.add(values)
    return sketch


@pytest.mark.parametrize("count", [0, 1, 2, 4096])
def test_few_values_make_the_very_sketch_of_the_library(count: int) -> None:
    ours = sketch_of(pa.chunked_array([pa.array(range(count), pa.int64())]), LongType())
    theirs = datasketches.update_theta_sketch(12)
    for number in range(count):
        theirs.update(number)
    assert ours.compact() == theirs.compact().serialize()
    assert ours.estimate == count


def test_texts_of_all_lengths_are_hashed_as_the_library_hashes_them() -> None:
    texts = [("ä€x" * length)[:length] for length in range(100)]
    column = pa.chunked_array([pa.array([*texts, None, *texts])[3:], pa.array(texts).slice(2, 5)])
    theirs = datasketches.update_theta_sketch(12)
    for text in texts:
        theirs.update(text)  # which ignores the empty one, as Java does
    for form in (column, column.cast(pa.large_string()), column.dictionary_encode()):
        assert sketch_of(form, StringType()).compact() == theirs.compact().serialize()


def test_many_values_keep_the_smallest_hashes_and_are_counted_nearly() -> None:
    numbers = np.random.default_rng(1).integers(0, 2**62, 300_000)
    theirs = datasketches.update_theta_sketch(14)
    for number in numbers.tolist():
        theirs.update(number)
    ours = sketch_of(pa.chunked_array([pa.array(numbers)]), LongType(), 14)
    assert abs(ours.estimate / 300_000 - 1) < 0.03
    read = datasketches.compact_theta_sketch.deserialize(ours.compact())
    assert abs(read.get_estimate() - ours.estimate) < 1
    lowest = min(read.theta64, theirs.theta64)
    assert [one for one in read if one < lowest] == sorted(one for one in theirs if one < lowest)


ONE = datetime(1969, 12, 31, 23, 59, 59, 999999)  # noqa: DTZ001 - a timestamp without a zone
KINDS: list[tuple[PrimitiveType, pa.DataType, list[Any], Any]] = [
    (BooleanType(), pa.bool_(), [True, False], bool),
    (IntegerType(), pa.int32(), [0, 1, -1, 2**31 - 1, -(2**31)], int),
    (LongType(), pa.int64(), [0, 1, -1, 2**63 - 1, -(2**63)], int),
    (FloatType(), pa.float32(), [0.0, -0.0, 1.5, float("inf")], float),
    (DoubleType(), pa.float64(), [0.0, -0.0, 0.1, float("-inf")], float),
    (DateType(), pa.date32(), [date(1969, 1, 1), date(2026, 2, 3)], date_to_days),
    (TimeType(), pa.time64("us"), [time(0), time(23, 59, 59, 999999)], time_to_micros),
    (TimestampType(), pa.timestamp("us"), [ONE, ONE + timedelta(days=9)], datetime_to_micros),
    (
        TimestamptzType(),
        pa.timestamp("us", "UTC"),
        [ONE.replace(tzinfo=UTC)],
        lambda one: datetime_to_micros(one.replace(tzinfo=None)),
    ),
    (
        DecimalType(38, 0),
        pa.decimal128(38, 0),
        [Decimal(one) for one in (0, 1, -1, 127, 128, -128, -129, 255, 256, 32767, 32768, -32769, 10**37, -(10**37))],
        Decimal,
    ),
    (DecimalType(5, 2), pa.decimal128(5, 2), [Decimal("1.20"), Decimal("-999.99")], Decimal),
    (StringType(), pa.string(), ["a", "ä" * 8, "x" * 33], str),
    (BinaryType(), pa.binary(), [b"\0", b"\xff" * 16], bytes),
    (FixedType(5), pa.binary(5), [b"abcde", b"\0\0\0\0\1"], bytes),
    (UUIDType(), pa.binary(16), [uuid.UUID(int=7).bytes, uuid.UUID(int=2**100).bytes], bytes),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind[0]))
def test_values_have_the_bytes_of_single_value_serialisation(kind: Any) -> None:
    iceberg, arrow, values, plain = kind
    column = pa.chunked_array([pa.array([None, *values, None], arrow), pa.array([values[0], *values], arrow)[1:1]])
    found = [text for values in packed(column, iceberg) for text in unpacked(values)]
    assert sorted(found) == sorted(to_bytes(iceberg, plain(value)) for value in values)


def unpacked(values: Packed) -> list[bytes]:
    """The bytes of each value."""
    found = []
    for position, length in enumerate(values.lengths.tolist()):
        content = b"".join(int(word[position]).to_bytes(8, "little") for word in values.words)
        assert not any(content[length:])
        assert values.blocks == length // 16
        found.append(content[:length])
    return found


# --- tables


def stored(table: Table, snapshot_id: int | None = None) -> StatisticsFile:
    """The statistics of a snapshot, or of the head."""
    wanted = snapshot_id or table.refresh().metadata.current_snapshot_id
    (found,) = [file for file in table.refresh().metadata.statistics if file.snapshot_id == wanted]
    return found


def told(table: Table, snapshot_id: int | None = None) -> dict[str, int]:
    """Distinct values by column, as the metadata tells them and the sketches say, too."""
    statistics = stored(table, snapshot_id)
    content = Path(local(statistics.statistics_path)).read_bytes()
    assert statistics.file_size_in_bytes == len(content)
    file = PuffinFile(content)
    assert statistics.file_footer_size_in_bytes == len(content) - sum(one.length for one in file.footer.blobs) - 4
    found = {}
    for described, blob in zip(statistics.blob_metadata, file.footer.blobs, strict=True):
        sketch = datasketches.compact_theta_sketch.deserialize(file.get_blob_payload(blob))
        assert (described.fields, described.properties) == (blob.fields, blob.properties)
        count = int((described.properties or {})["ndv"])
        assert abs(sketch.get_estimate() - count) < 1
        found[table.schema().find_column_name(described.fields[0]) or ""] = count
    return found


def test_distinct_values_are_attached_to_the_snapshot_that_was_read(lake: Lakeside) -> None:
    table = lake.table(spec=BY_REGION)
    for number, region in enumerate(("N", "S", None)):
        append(table, 2, start=number * 20, region=region)
    before, stored_before = contents(table), files_of(table)
    planned = lake.run("stats", ndv=True, dry_run=True)
    assert files_of(table.refresh()) == stored_before
    done = lake.run("stats", ndv=True)
    assert (done.status, done.plan_id) == ("completed", planned.plan_id)
    assert told(table) == {"id": 60, "region": 2, "note": 6} == (done.steps or [])[1].detail["distinct"]
    assert done.verification is not None
    assert (done.verification.ok, done.verification.rows_before) == (True, 60)
    assert {name: done.metrics[name] for name in ("reports", "columns_counted")} == {"reports": 1, "columns_counted": 3}
    assert contents(table.refresh()) == before
    again = lake.run("stats", ndv=True)
    assert len(again.steps or []) == 1, "they are there already"
    append(table, 1, start=100, region="W")
    lake.run("stats", ndv=True, columns=["region"])
    assert told(table) == {"region": 3}


def test_rows_that_delete_files_hide_do_not_count(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 2)
    add_position_deletes(table, {live_data_files(table)[0].file_path: range(5)})
    add_equality_deletes(table, pa.table({"id": pa.array([5, 19], pa.int64())}), ["id"])
    done = lake.run("stats", ndv=True)
    assert told(table)["id"] == 13
    assert done.verification is not None
    assert (done.verification.rows_before, done.verification.rows_after) == (13, 13)


def test_columns_that_moved_and_types_that_grew_count_as_they_are_now(lake: Lakeside) -> None:
    table = lake.table(
        schema=Schema(
            NestedField(1, "i", IntegerType()),
            NestedField(2, "gone", StringType()),
            NestedField(3, "s", StructType(NestedField(4, "city", StringType()))),
            NestedField(5, "a.b", LongType()),
        )
    )
    table.append(
        pa.table(
            {"i": pa.array([1, 2, None], pa.int32()), "gone": ["x"] * 3, "s": [{"city": "Ulm"}] * 3, "a.b": [7] * 3}
        )
    )
    with table.update_schema(allow_incompatible_changes=True) as update:
        update.update_column("i", LongType())
        update.rename_column("i", "number")
        update.delete_column("gone")
        update.add_column("extra", StringType())
    table.append(pa.table({"number": [2, 2**40], "s": [{"city": "Bonn"}] * 2, "a.b": [8, 9], "extra": ["e", None]}))
    done = lake.run("stats", ndv=True)
    assert told(table) == {"number": 3, "a.b": 3, "extra": 1}
    assert "no distinct values are stored of s.city: only of top-level columns" in done.warnings


def test_other_statistics_of_the_snapshot_are_carried_over(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 1)
    head = table.current_snapshot()
    assert head is not None
    theirs = [
        Blob("apache-datasketches-theta-v1", [fields], head.snapshot_id, 1, text, {"ndv": "77"})
        for fields, text in ((1, b"id"), (3, b"note"))
    ]
    attach(table, theirs)
    lake.run("stats", ndv=True, columns=["id", "region"])
    found = {tuple(one.fields): one.properties for one in stored(table).blob_metadata}
    assert found == {(1,): {"ndv": "10"}, (2,): {"ndv": "1"}, (3,): {"ndv": "77"}}
    content = PuffinFile(Path(local(stored(table).statistics_path)).read_bytes())
    assert [content.get_blob_payload(one) for one in content.footer.blobs if one.fields == [3]] == [b"note"]


def attach(table: Table, blobs: list[Blob]) -> str:
    """Statistics as somebody else writes them."""
    head = table.current_snapshot()
    assert head is not None
    content, footer = write(blobs)
    path = f"{table.location()}/metadata/theirs-{uuid.uuid4()}.stats"
    Path(local(path)).write_bytes(content)
    with table.update_statistics() as update:
        update.set_statistics(
            StatisticsFile(
                snapshot_id=head.snapshot_id,
                statistics_path=path,
                file_size_in_bytes=len(content),
                file_footer_size_in_bytes=footer,
                blob_metadata=[BlobMetadata.model_validate(blob.described()) for blob in blobs],
            )
        )
    return path


def test_statistics_that_cannot_be_read_are_replaced_and_that_is_told(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 1)
    Path(local(attach(table, []))).write_bytes(b"PFA1 no Puffin PFA1")
    done = lake.run("stats", ndv=True)
    assert told(table) == {"id": 10, "region": 1, "note": 1}
    assert any("not carried over" in warning for warning in done.warnings)


def test_an_undo_takes_them_away_or_gives_back_those_before(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 1)
    first = lake.run("stats", ndv=True, columns=["id"])
    one = stored(table)
    second = lake.run("stats", ndv=True)
    assert set(told(table)) == {"id", "region", "note"}
    refused = lake.undo(first.operation_id)
    assert refused.problem is not None
    assert "newer statistics" in (refused.problem.detail or "")
    append(table, 1, start=50)  # what others commit on main does not matter
    assert lake.undo(second.operation_id).status == "completed"
    assert stored(table, one.snapshot_id) == one
    assert lake.undo(first.operation_id).status == "completed"
    assert table.refresh().metadata.statistics == []
    assert lake.undo(first.operation_id).status == "skipped"
    reported = lake.run("stats")
    assert lake.undo(reported.operation_id).reason == "nothing to undo: it only reported"


def test_vacuum_keeps_them_and_expiry_drops_them_with_their_snapshots(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 1)
    lake.run("stats", ndv=True)
    (old,) = table.refresh().metadata.statistics
    lake.run("stats", ndv=True, columns=["id"])
    append(table, 1, start=10)
    lake.run("stats", ndv=True)
    age_all(table.refresh())
    assert lake.run("vacuum").status == "skipped"
    assert set(told(table)) == set(told(table, old.snapshot_id)) == {"id", "region", "note"}
    assert lake.run("retention", retain_last=1, **NOW).status == "completed"
    (left,) = table.refresh().metadata.statistics
    assert left.snapshot_id == table.metadata.current_snapshot_id
    assert {path for path in on_disk(table) if path.endswith(".stats")} == {local(left.statistics_path)}
    assert told(table) == {"id": 20, "region": 1, "note": 2}


def test_replaced_statistics_are_orphans(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 1)
    lake.run("stats", ndv=True, columns=["id"])
    first = stored(table)
    lake.run("stats", ndv=True)
    age_all(table.refresh())
    assert lake.run("vacuum").metrics["files_quarantined"] == 1
    assert not Path(local(first.statistics_path)).exists()


def test_a_failed_commit_leaves_no_file(lake: Lakeside, monkeypatch: pytest.MonkeyPatch) -> None:
    from aurum_orchestration.errors import CommitConflictError
    from aurum_orchestration.maintenance.backends.iceberg.stats import sketch

    def refuse(*_: object) -> None:
        raise CommitConflictError("another writer had been faster")

    table = lake.table()
    append(table, 1)
    before = files_of(table)
    monkeypatch.setattr(sketch, "set_statistics", refuse)
    done = lake.run("stats", ndv=True)
    assert done.status == "failed"
    assert files_of(table.refresh()) == before


def test_a_file_that_is_not_as_written_is_not_attached(lake: Lakeside, monkeypatch: pytest.MonkeyPatch) -> None:
    from aurum_orchestration.maintenance.backends.iceberg.stats import sketch

    def shortened(blobs: list[Blob]) -> tuple[bytes, int]:
        return write(blobs[:-1])

    table = lake.table()
    append(table, 1)
    before = files_of(table)
    monkeypatch.setattr(sketch, "write", shortened)
    done = lake.run("stats", ndv=True)
    assert done.problem is not None
    assert (done.status, done.problem.type) == ("failed", "verification-failed")
    assert files_of(table.refresh()) == before


def test_many_pieces_of_many_files_count_once(lake: Lakeside) -> None:
    table = lake.table()
    wide = rows(table, 0, 50_000)
    for part in (wide, wide.slice(20_000), wide.slice(10_000, 5)):
        table.append(part)
    lake.run("stats", ndv=True, sample_rows=0)
    assert abs(told(table)["id"] / 50_000 - 1) < 0.025
