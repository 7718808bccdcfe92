"""Statistics and bloat: what they say is so, a dry run says the same, and nothing is written."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BinaryType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    ListType,
    LongType,
    NestedField,
    StringType,
    StructType,
    TimestamptzType,
    UUIDType,
)

from aurum_orchestration.maintenance.interfaces import MaintenanceResult
from aurum_orchestration_tests.iceberg_deletes import add_position_deletes, live_data_files
from aurum_orchestration_tests.integration.upkeep.lakeside import BY_REGION, Lakeside, append, files_of, rows


def detail(result: MaintenanceResult) -> Any:
    """The report of a result."""
    (step,) = result.steps or []
    return step.detail


def parts(result: MaintenanceResult) -> dict[str, Any]:
    return {part["part"]: part for part in detail(result)["parts"]}


# --- statistics


def test_columns_are_told_as_the_rows_are(lake: Lakeside) -> None:
    table = lake.table(spec=BY_REGION)
    for number, region in enumerate(("N", "S", None)):
        append(table, 2, start=number * 20, region=region)
    done = lake.run("stats")
    assert (done.status, done.reason) == ("completed", f"60 rows in 6 data files ({size(table):.1f} MiB), 3 columns")
    assert {name: done.metrics[name] for name in ("rows", "data_files", "partitions", "columns", "delete_files")} == {
        "rows": 60,
        "data_files": 6,
        "partitions": 3,
        "columns": 3,
        "delete_files": 0,
    }
    columns = detail(done)["columns"]
    assert {key: columns["id"][key] for key in ("values", "nulls", "min", "max", "distinct", "distinct_is")} == {
        "values": 60,
        "nulls": 0,
        "min": 0,
        "max": 59,
        "distinct": 60,
        "distinct_is": "exact",
    }
    assert (columns["region"]["nulls"], columns["region"]["min"], columns["region"]["max"]) == (20, "N", "S")
    assert (columns["region"]["distinct"], columns["note"]["distinct"]) == (2, 6)
    assert columns["id"]["bytes"] > 0


def size(table: Any) -> float:
    return sum(file.file_size_in_bytes for file in live_data_files(table)) / 2**20


def test_a_dry_run_reports_the_same_and_nothing_is_written(lake: Lakeside) -> None:
    append(lake.table(), 2)
    for operation in ("stats", "bloat"):
        stored = files_of(lake.catalog.load_table("ns.t"))
        planned = lake.run(operation, dry_run=True)
        done = lake.run(operation)
        assert planned.status == "planned"
        assert (planned.plan_id, planned.reason) == (done.plan_id, done.reason)
        assert detail(planned)["metrics"] == detail(done)["metrics"]
        assert files_of(lake.catalog.load_table("ns.t")) == stored
        assert done.undo == "nothing to undo: it only reports"
        assert done.verification is None


def test_types_of_every_kind_and_nested_ones(lake: Lakeside) -> None:
    schema = Schema(
        NestedField(1, "i", IntegerType()),
        NestedField(2, "d", DateType()),
        NestedField(3, "t", TimestamptzType()),
        NestedField(4, "n", DecimalType(9, 2)),
        NestedField(5, "f", DoubleType()),
        NestedField(6, "u", UUIDType()),
        NestedField(7, "b", BinaryType()),
        NestedField(8, "s", StructType(NestedField(9, "city", StringType()), NestedField(10, "zip", IntegerType()))),
        NestedField(11, "l", ListType(12, LongType())),
    )
    table = lake.table(schema=schema)
    import uuid
    from datetime import UTC, date, datetime
    from decimal import Decimal

    one = uuid.UUID(int=1)
    given = [
        {
            "i": number,
            "d": date(2026, 1, 1 + number),
            "t": datetime(2026, 1, 1, number, tzinfo=UTC),
            "n": Decimal(number) / 4,
            "f": float("nan") if number == 3 else number / 2,
            "u": one.bytes,
            "b": bytes([number]) * 40,
            "s": {"city": None if number else "Ulm", "zip": number},
            "l": [1, 2],
        }
        for number in range(5)
    ]
    table.append(pa.Table.from_pylist(given, schema=table.schema().as_arrow()))
    done = lake.run("stats")
    columns = detail(done)["columns"]
    bounds = {name: (column["min"], column["max"]) for name, column in columns.items()}
    assert bounds["i"] == (0, 4)
    assert bounds["d"] == ("2026-01-01", "2026-01-05")
    assert bounds["t"] == ("2026-01-01T00:00:00+00:00", "2026-01-01T04:00:00+00:00")
    assert bounds["n"] == ("0.00", "1.00")
    assert bounds["s.zip"] == (None, None) or bounds["s.zip"] == (0, 4)
    assert columns["b"]["bounds"] == "enclose"
    assert columns["s.city"]["type"] == "string"
    assert columns["u"]["distinct"] == 1
    assert "distinct" not in columns["l.element"]
    assert any("l.element" in text for text in done.warnings)


def test_bounds_of_before_a_promotion_are_read_in_their_own_width(lake: Lakeside) -> None:
    table = lake.table(schema=Schema(NestedField(1, "i", IntegerType()), NestedField(2, "f", FloatType())))
    table.append(pa.table({"i": pa.array([-5, 1], pa.int32()), "f": pa.array([1.5, 2.5], pa.float32())}))
    with table.update_schema() as update:
        update.update_column("i", LongType())
        update.update_column("f", DoubleType())
    table.append(pa.table({"i": pa.array([2**40], pa.int64()), "f": pa.array([0.25], pa.float64())}))
    columns = detail(lake.run("stats"))["columns"]
    assert (columns["i"]["min"], columns["i"]["max"], columns["i"]["distinct"]) == (-5, 2**40, 3)
    assert (columns["f"]["min"], columns["f"]["max"], columns["f"]["distinct"]) == (0.25, 2.5, 3)


def test_a_renamed_column_is_sampled_by_its_id(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 1)
    with table.update_schema() as update:
        update.rename_column("note", "remark")
        update.add_column("extra", StringType())
    table.append(table.scan().to_arrow().set_column(2, "remark", pa.array(["x"] * 10, pa.large_string())))
    columns = detail(lake.run("stats"))["columns"]
    assert columns["remark"]["distinct"] == 2
    assert columns["extra"]["nulls"] is None
    assert columns["extra"]["files_without_counts"] == 1


def test_an_estimate_is_near_and_says_that_it_is_one(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 1)
    wide = rows(table, 0, 20_000)
    wide = wide.set_column(1, "region", pc.cast(pc.bit_wise_and(wide["id"], 3), pa.large_string()))
    table.append(wide)
    columns = detail(lake.run("stats", sample_rows=2_000))["columns"]
    assert columns["id"]["distinct_is"] == "estimated"
    assert 2_000 <= columns["id"]["distinct"] <= 20_010
    assert 4 <= columns["region"]["distinct"] <= 6


def test_without_a_sample_no_data_file_is_read(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 1)
    for path in table.inspect.files()["file_path"].to_pylist():
        Path(path.removeprefix("file://")).unlink()
    done = lake.run("stats", sample_rows=0)
    assert done.status == "completed"
    assert "no distinct values: sample_rows is 0" in done.warnings


def test_an_unknown_column_offers_the_nearest(lake: Lakeside) -> None:
    append(lake.table(), 1)
    failed = lake.run("stats", columns=["regoin"])
    assert failed.problem is not None
    assert (failed.problem.type, failed.problem.hint) == ("validation-error", "Did you mean 'region'?")


@pytest.mark.parametrize("operation", ["stats", "bloat"])
def test_an_empty_table_has_an_empty_report(lake: Lakeside, operation: str) -> None:
    lake.table()
    done = lake.run(operation)
    assert done.status == "completed"
    assert done.metrics.get("rows", done.metrics.get("reclaimable_bytes")) == 0


# --- bloat


def test_a_fresh_table_has_no_bloat_worth_a_word(lake: Lakeside) -> None:
    append(lake.table(), 1)
    done = lake.run("bloat")
    found = parts(done)
    assert {name: part["bytes"] for name, part in found.items() if name != "old metadata files"} == {
        "small files": 0,
        "deleted rows": 0,
        "old snapshots": 0,
        "orphan files": 0,
    }


def test_small_files_and_old_snapshots_are_what_compaction_and_retention_win(lake: Lakeside) -> None:
    table = lake.table(spec=BY_REGION)
    append(table, 6)
    assert parts(lake.run("bloat"))["small files"]["files"] == 5
    lake.run("compaction")
    found = parts(lake.run("bloat"))
    assert found["small files"]["files"] == 0
    old = found["old snapshots"]
    assert old["won_back_by"] == "retention"
    before = stored_bytes(lake)
    done = lake.run("retention", retention_days=0, retain_last=1, override_floor=True, override_reason="a test")
    assert done.status == "completed"
    assert (done.metrics["files_deleted"], done.metrics["bytes_deleted"]) == (old["files"], old["bytes"])
    assert before - stored_bytes(lake) == old["bytes"]


def stored_bytes(lake: Lakeside) -> int:
    root = Path(lake.catalog.load_table("ns.t").location().removeprefix("file://"))
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file() and path.suffix != ".json")


def test_delete_files_count_with_what_they_hide(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 2)
    first = live_data_files(table)[0]
    add_position_deletes(table, {first.file_path: range(5)})
    (deletes,) = [
        Path(path.removeprefix("file://")).stat().st_size
        for path in table.inspect.delete_files()["file_path"].to_pylist()
    ]
    found = parts(lake.run("bloat"))["deleted rows"]
    data = sum(file.file_size_in_bytes for file in live_data_files(table))
    assert found == {
        "part": "deleted rows",
        "files": 1,
        "bytes": deletes + data * 5 // 20,
        "exact": False,
        "won_back_by": "compaction, then retention",
    }


def test_only_old_files_that_nothing_refers_to_are_orphans(lake: Lakeside) -> None:
    table = lake.table(("ns", "odd.näme"), spec=BY_REGION)
    append(table, 2, region="a b%20/ü")
    root = Path(table.location().removeprefix("file://"))
    old = time.time() - 4 * 24 * 60 * 60
    for path in root.rglob("*"):
        os.utime(path, (old, old))
    lost, young = root / "data" / "lost.parquet", root / "data" / "young.parquet"
    lost.write_bytes(b"x" * 100)
    os.utime(lost, (old, old))
    (root / "data" / ".lost.parquet.crc").write_bytes(b"y")
    young.write_bytes(b"x" * 1000)
    found = parts(lake.run("bloat", 'lake.ns."odd.näme"'))["orphan files"]
    assert (found["files"], found["bytes"]) == (1, 100)
    without = lake.run("bloat", 'lake.ns."odd.näme"', orphans=False)
    assert "orphan files" not in parts(without)


def test_the_reason_names_the_largest_part(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 2)
    lost = Path(table.location().removeprefix("file://")) / "data" / "lost.parquet"
    lost.write_bytes(b"x" * 2**20)
    os.utime(lost, (0, 0))
    done = lake.run("bloat")
    assert done.reason.startswith("1")
    assert done.reason.endswith("most of it from orphan files (1 MiB), by vacuum")
    assert done.metrics["reclaimable_bytes"] >= 2**20


def test_where_orphans_cannot_be_told_the_rest_is_reported(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 2)
    other = lake.table("ns.other")
    metadata = Path(other.metadata_location.removeprefix("file://"))
    guest = Path(table.location().removeprefix("file://")) / "data" / metadata.name
    guest.write_bytes(metadata.read_bytes())
    os.utime(guest, (0, 0))
    done = lake.run("bloat")
    assert done.status == "completed"
    assert "orphan files" not in parts(done)
    assert any(warning.startswith("orphan files cannot be told") for warning in done.warnings)
