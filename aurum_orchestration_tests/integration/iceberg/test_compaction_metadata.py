"""What a compaction commits: snapshot, summary, manifest list, manifests, metrics of files; recomputed plainly."""

from __future__ import annotations

import json
import math
from datetime import date
from typing import Any, cast

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.conversions import from_bytes
from pyiceberg.io.pyarrow import parquet_file_to_data_file
from pyiceberg.manifest import ManifestEntryStatus
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.types import DateType, DoubleType, ListType, LongType, NestedField, PrimitiveType, StringType, StructType

from aurum_orchestration.maintenance.backends.iceberg import commit
from aurum_orchestration_tests.iceberg_deletes import live_data_files
from aurum_orchestration_tests.integration.iceberg.support import (
    append,
    append_numbers,
    by_scan,
    compact,
    data_paths,
    fields,
    judge,
    local,
    make_table,
    operations_since,
    plan_of,
    snapshots_since,
    spec_of,
    typed,
)
from aurum_orchestration_tests.integration.iceberg.test_compaction_rows import EMPTY, EVERY_TYPE, FULL, HALF, NOTHING

BOTH_FORMATS = pytest.mark.parametrize("version", ["1", "2"])
METRICS = ["column_sizes", "value_counts", "null_value_counts", "nan_value_counts", "lower_bounds", "upper_bounds"]
DAYS = [date(2026, 1, 30), date(2026, 1, 31), None]


def by_day(catalog: SqlCatalog, version: str, commits: int = 3) -> Table:
    """A file per day (one of them null) and commit; prices with nulls and NaN."""
    schema = fields(id=LongType(), day=DateType(), price=DoubleType())
    table = make_table(catalog, schema, {"format-version": version}, spec=spec_of((2, IdentityTransform(), "day")))
    for number in range(commits):
        rows = [{"id": number, "day": day, "price": price} for day in DAYS for price in (1.5, None, math.nan)]
        table.append(typed(table, rows))
    return table


def head(table: Table) -> Snapshot:
    snapshot = table.current_snapshot()
    assert snapshot is not None
    return snapshot


def told(snapshot: Snapshot) -> dict[str, str]:
    assert snapshot.summary is not None
    return snapshot.summary.additional_properties


def avro(location: str) -> list[dict[str, Any]]:
    with local(location).open("rb") as stream:
        return list(fastavro.reader(stream))  # type: ignore[arg-type]


@BOTH_FORMATS
def test_one_replace_snapshot_a_group_with_right_totals(catalog: SqlCatalog, version: str) -> None:
    table = by_day(catalog, version)
    known = list(table.metadata.snapshots)
    result = compact(table)
    made = snapshots_since(table, known)
    assert operations_since(table, known) == ["replace"] * 3
    assert [snapshot.parent_snapshot_id for snapshot in made] == [
        known[-1].snapshot_id,
        *(snapshot.snapshot_id for snapshot in made[:-1]),
    ]
    assert head(table) == made[-1]
    assert result.metrics["groups"] == 3
    if version == "2":
        assert [snapshot.sequence_number for snapshot in made] == [4, 5, 6]
    for snapshot in made:
        old, new = table.inspect.files(snapshot.parent_snapshot_id), table.inspect.files(snapshot.snapshot_id)
        gone = old.filter(pa.compute.invert(pa.compute.is_in(old["file_path"], new["file_path"].combine_chunks())))
        came = new.filter(pa.compute.invert(pa.compute.is_in(new["file_path"], old["file_path"].combine_chunks())))

        def total(files: pa.Table, name: str) -> int:
            return sum(files[name].to_pylist())

        expected = {
            "added-data-files": came.num_rows,
            "deleted-data-files": gone.num_rows,
            "added-records": total(came, "record_count"),
            "deleted-records": total(gone, "record_count"),
            "added-files-size": total(came, "file_size_in_bytes"),
            "removed-files-size": total(gone, "file_size_in_bytes"),
            "changed-partition-count": 1,
            "total-data-files": new.num_rows,
            "total-records": total(new, "record_count"),
            "total-files-size": total(new, "file_size_in_bytes"),
            "total-delete-files": 0,
            "total-position-deletes": 0,
            "total-equality-deletes": 0,
        }
        assert {name: int(told(snapshot)[name]) for name in expected} == expected
        assert (came.num_rows, gone.num_rows) == (1, 3)
        assert told(snapshot)["aurum.operation-id"] == "operation-1"
        assert told(snapshot)["aurum.plan-id"] == result.plan.plan_id
    assert plan_of(table).steps == []


@BOTH_FORMATS
def test_manifests_list_what_is_live_and_the_list_says_so(
    catalog: SqlCatalog, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "ENTRIES_PER_MANIFEST", 4)
    table = by_day(catalog, version, commits=4)
    before = table.inspect.entries().to_pylist()
    compact(table, partition_filter="day = '2026-01-31'")
    snapshot = head(table)
    listed = avro(snapshot.manifest_list)
    manifests = snapshot.manifests(table.io)
    assert [row["manifest_path"] for row in listed] == [manifest.manifest_path for manifest in manifests]
    assert len(manifests) == 4  # 1 added, 4 + 4 kept, 4 deleted
    assert sorted(row["manifest_path"] for row in listed) == sorted(table.inspect.manifests()["path"].to_pylist())
    for row in listed:
        entries = avro(row["manifest_path"])
        statuses = [ManifestEntryStatus(entry["status"]) for entry in entries]
        for status in ManifestEntryStatus:
            name = status.name.lower()
            chosen = [entry["data_file"] for entry in entries if entry["status"] == status.value]
            assert row[f"{name}_files_count"] == len(chosen)
            assert row[f"{name}_rows_count"] == sum(file["record_count"] for file in chosen)
        assert row["manifest_length"] == local(row["manifest_path"]).stat().st_size
        assert row["added_snapshot_id"] == snapshot.snapshot_id
        days = [entry["data_file"]["partition"]["day"] for entry in entries]
        (summary,) = row["partitions"]
        values = [(day - date(1970, 1, 1)).days for day in days if day is not None]
        assert summary["contains_null"] == (None in days)
        assert not summary["contains_nan"]
        for bound, value in (("lower_bound", min(values, default=None)), ("upper_bound", max(values, default=None))):
            assert summary[bound] == (None if value is None else value.to_bytes(4, "little"))
        if version == "2":
            live = [
                entry["sequence_number"]
                for entry, status in zip(entries, statuses, strict=True)
                if status != ManifestEntryStatus.DELETED
            ]
            assert row["sequence_number"] == snapshot.sequence_number
            assert row["min_sequence_number"] == min(live, default=snapshot.sequence_number)
            assert row["content"] == 0
    after = {entry["data_file"]["file_path"]: entry for entry in table.inspect.entries().to_pylist()}
    for entry in before:
        now = after[entry["data_file"]["file_path"]]
        replaced = entry["data_file"]["partition"]["day"] == DAYS[1]
        # what readers skip live files by is of no use for replaced ones, and most of a manifest
        left_out = METRICS if replaced else []
        assert not any(now["data_file"][name] for name in left_out)
        assert now["data_file"] == {**entry["data_file"], **{name: now["data_file"][name] for name in left_out}}
        assert now["sequence_number"] == entry["sequence_number"]
        assert now["file_sequence_number"] == entry["file_sequence_number"]
        assert now["snapshot_id"] == (snapshot.snapshot_id if replaced else entry["snapshot_id"])
        assert now["status"] == (ManifestEntryStatus.DELETED if replaced else ManifestEntryStatus.EXISTING).value


def test_manifests_without_replaced_files_are_kept_as_they_are(catalog: SqlCatalog) -> None:
    table = by_day(catalog, "2")
    append(table, [{"id": 9, "day": DAYS[0], "price": 1.0}])
    last = head(table).manifests(table.io)[0].manifest_path
    compact(table, partition_filter="day = '2026-01-31'")
    paths = [manifest.manifest_path for manifest in head(table).manifests(table.io)]
    assert last in paths
    compact(table, partition_filter="day = '2026-01-30'")
    assert last not in [manifest.manifest_path for manifest in head(table).manifests(table.io)]


@BOTH_FORMATS
def test_manifests_carry_what_readers_look_for_in_their_header(catalog: SqlCatalog, version: str) -> None:
    table = by_day(catalog, version)
    compact(table)
    for manifest in head(table).manifests(table.io):
        with local(manifest.manifest_path).open("rb") as stream:
            header = dict(fastavro.reader(stream).metadata)
        assert json.loads(header["schema"])["schema-id"] == 0
        assert json.loads(header["partition-spec"]) == [
            {"source-id": 2, "field-id": 1000, "transform": "identity", "name": "day"}
        ]
        assert (header["partition-spec-id"], header["format-version"]) == ("0", version)
        assert header.get("content") == ("data" if version == "2" else None)


@pytest.mark.parametrize(
    ("codec", "stored"), [("gzip", b"deflate"), ("uncompressed", b"null"), ("zstd", b"zstandard"), ("odd", b"deflate")]
)
def test_manifests_are_compressed_as_the_table_says(catalog: SqlCatalog, codec: str, stored: bytes) -> None:
    table = make_table(catalog, fields(id=LongType()))
    append_numbers(table)
    with table.transaction() as transaction:
        transaction.set_properties({"write.avro.compression-codec": codec})
    before = by_scan(table)
    compact(table)
    for location in (head(table).manifest_list, *(one.manifest_path for one in head(table).manifests(table.io))):
        known = [b"deflate", b"null", b"zstandard", b"snappy"]
        header = local(location).read_bytes().split(b"avro.codec", 1)[1][:12]
        found = [name for name in known if name in header]
        assert found in ([stored], [b"deflate" if stored == b"zstandard" else stored])
    assert by_scan(table) == before


def test_an_upgraded_table_keeps_its_sequence_numbers(catalog: SqlCatalog) -> None:
    table = by_day(catalog, "1")
    with table.transaction() as transaction:
        transaction.upgrade_table_version(2)
    append(table, [{"id": 9, "day": DAYS[0], "price": 1.0}])
    before = judge(table)
    compact(table, partition_filter="day = '2026-01-30'")
    assert judge(table) == before
    entries = {entry["data_file"]["file_path"]: entry for entry in table.inspect.entries().to_pylist()}
    kept = [entry for entry in entries.values() if entry["status"] == ManifestEntryStatus.EXISTING.value]
    assert {entry["sequence_number"] for entry in kept} == {0}
    assert plan_of(table, partition_filter="day = '2026-01-30'").steps == []


# --- metrics of the files written


_METRICS = ("column_sizes", "value_counts", "null_value_counts", "nan_value_counts", "lower_bounds", "upper_bounds")


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"write.metadata.metrics.default": "none"},
        {"write.metadata.metrics.default": "counts", "write.metadata.metrics.column.string": "truncate(3)"},
        {"write.metadata.metrics.default": "full", "write.metadata.metrics.column.struct.a": "none"},
    ],
    ids=["default", "none", "counts", "full"],
)
def test_metrics_are_those_that_pyiceberg_computes_and_bound_the_values(
    catalog: SqlCatalog, properties: dict[str, str]
) -> None:
    schema = Schema(*(field for field in EVERY_TYPE.fields if field.name != "binary"))  # PyIceberg cannot bound \xff...
    table = make_table(catalog, schema, {**properties, "write.parquet.row-group-limit": "2"})
    rows = [{name: value for name, value in row.items() if name != "binary"} for row in (FULL, NOTHING, EMPTY, HALF)]
    append(table, rows, rows[:1], rows[2:])
    compact(table)
    (file,) = live_data_files(table)
    reference = parquet_file_to_data_file(io=table.io, table_metadata=table.metadata, file_path=file.file_path)
    bounds = ("lower_bounds", "upper_bounds")
    others = [name for name in _METRICS if name not in bounds]
    for name in (*others, "split_offsets", "record_count", "file_size_in_bytes", "sort_order_id", "content"):
        assert getattr(file, name) == getattr(reference, name), name
    # PyIceberg leaves out those of every nested field; inside structs they are what lets Java skip files
    struct = schema.find_field("struct").field_type
    assert isinstance(struct, StructType)
    nested = {field.field_id for field in struct.fields}
    for name in bounds:
        found, known = getattr(file, name), getattr(reference, name)
        assert {key: value for key, value in found.items() if key not in nested} == known, name
        assert nested.isdisjoint(found) == ("none" in properties.values() or "counts" in properties.values())
    (path,) = data_paths(table)
    assert pq.ParquetFile(path).num_row_groups == 4
    stored = pq.read_table(path)
    bounded = 0
    for field in schema.fields:
        lower, upper = ((bounds or {}).get(field.field_id) for bounds in (file.lower_bounds, file.upper_bounds))
        if lower is None or upper is None:
            continue
        bounded += 1
        kind = cast(PrimitiveType, field.field_type)
        values = [one for one in _storage(stored.column(field.name)) if one is not None and not _is_nan(one)]
        assert from_bytes(kind, lower) <= min(values), field.name
        assert from_bytes(kind, upper) >= max(values), field.name
    assert bounded == {"none": 0, "counts": 1}.get(properties.get("write.metadata.metrics.default", ""), 15)


def _storage(column: pa.ChunkedArray) -> list[Any]:
    if isinstance(column.type, pa.UuidType):
        return [value.bytes if value is not None else None for value in column.to_pylist()]
    if pa.types.is_temporal(column.type):
        return column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64()).to_pylist()  # type: ignore[no-any-return]
    return column.to_pylist()  # type: ignore[no-any-return]


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


# --- what else hangs on a table


def test_incremental_readers_see_no_row_twice(catalog: SqlCatalog) -> None:
    table = make_table(catalog, fields(id=LongType()))
    append_numbers(table, files=3)
    start = head(table).snapshot_id
    append(table, {"id": [100, 101]})
    compact(table)
    append(table, {"id": [200]})
    added = table.incremental_append_scan(from_snapshot_id_exclusive=start).to_arrow()
    assert sorted(added["id"].to_pylist()) == [100, 101, 200]


def test_older_snapshots_can_still_be_read(catalog: SqlCatalog) -> None:
    table = make_table(catalog, fields(id=LongType()))
    append_numbers(table, files=3, rows=2)
    old = head(table).snapshot_id
    append(table, {"id": [100]})
    compact(table)
    assert sorted(table.scan(snapshot_id=old).to_arrow()["id"].to_pylist()) == list(range(6))


def test_refs_and_the_retention_of_main_stay(catalog: SqlCatalog) -> None:
    table = make_table(catalog, fields(id=LongType()))
    append_numbers(table, files=3)
    first = head(table).snapshot_id
    append(table, {"id": [100]})
    now = head(table).snapshot_id
    with table.manage_snapshots() as manage:
        manage.create_tag(first, "release", max_ref_age_ms=10**12)
        manage.create_branch(now, "audit", min_snapshots_to_keep=3, max_snapshot_age_ms=10**11)
        manage.create_branch(now, "main", min_snapshots_to_keep=7, max_snapshot_age_ms=10**10, max_ref_age_ms=10**12)
    table.refresh()
    before = dict(table.metadata.refs)
    compact(table)
    after = dict(table.metadata.refs)
    main = after.pop("main")
    assert main == before.pop("main").model_copy(update={"snapshot_id": head(table).snapshot_id})
    assert main.min_snapshots_to_keep == 7
    assert after == before
    assert table.current_snapshot() != table.snapshot_by_name("audit")


def test_only_main_is_compacted(catalog: SqlCatalog) -> None:
    table = make_table(catalog, fields(id=LongType()))
    append_numbers(table, files=3)
    with table.manage_snapshots() as manage:
        manage.create_branch(head(table).snapshot_id, "audit")
    table.refresh()
    table.append(typed(table, {"id": [7]}), branch="audit")
    table.refresh()
    audit = table.snapshot_by_name("audit")
    result = compact(table)
    assert result.metrics["rows_rewritten"] == 30
    assert table.snapshot_by_name("audit") == audit
    assert table.scan().use_ref("audit").to_arrow().num_rows == 31
    assert sorted(by_scan(table)) == sorted(repr({"id": number}) for number in range(30))


def test_a_day_partition_and_nested_columns_have_statistics_too(catalog: SqlCatalog) -> None:
    schema = Schema(
        NestedField(1, "at", DateType()),
        NestedField(2, "s", StructType(NestedField(3, "x", LongType()), NestedField(4, "y", StringType()))),
        NestedField(5, "l", ListType(6, LongType(), False)),
    )
    table = make_table(catalog, schema, spec=spec_of((1, DayTransform(), "day")))
    row = {"at": date(2026, 1, 31), "s": {"x": 5, "y": None}, "l": [1, None, 3]}
    append(table, [row] * 3, [row])
    compact(table)
    (file,) = live_data_files(table)
    by_name = {table.schema().find_column_name(number): count for number, count in file.value_counts.items()}
    assert by_name == {"at": 4, "s.x": 4, "s.y": 4, "l.element": 12}
    nulls = {table.schema().find_column_name(number): count for number, count in file.null_value_counts.items()}
    assert nulls == {"at": 0, "s.x": 0, "s.y": 4, "l.element": 4}
