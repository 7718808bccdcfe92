"""Rewriting manifests on real tables: the same entries in few manifests, whatever others do meanwhile."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import ManifestContent
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.transforms import BucketTransform, DayTransform, IdentityTransform, VoidTransform
from pyiceberg.typedef import Record
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
    StringType,
    TimestampType,
    UUIDType,
)

from aurum_orchestration.errors import BackendUnavailableError
from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.sizes import candidates, ideal
from aurum_orchestration.maintenance.iceberg import rewrite_manifests
from aurum_orchestration.maintenance.interfaces import MaintenanceResult
from aurum_orchestration_tests.iceberg_deletes import add_equality_deletes, add_position_deletes, live_data_files
from aurum_orchestration_tests.integration.iceberg.claims import claim, edit_metadata
from aurum_orchestration_tests.integration.upkeep.foreign import (
    add_field,
    header_of,
    raw_fields,
    rename_all,
    rewrite_in_place,
    without_field,
)
from aurum_orchestration_tests.integration.upkeep.lakeside import (
    BY_REGION,
    REGIONS,
    SCHEMA,
    Lakeside,
    append,
    contents,
    entries,
    files_of,
    manifests,
    rows,
)


def rewritten(lake: Lakeside, table: Table, name: str = "lake.ns.t", **parameters: Any) -> MaintenanceResult:
    """A completed and verified rewrite that kept every entry and every row; the table is refreshed."""
    table.refresh()
    before, live = entries(table), contents(table)
    done = lake.run("manifests", name, **parameters)
    assert (done.status, done.problem) == ("completed", None)
    assert done.verification is not None
    assert done.verification.ok
    table.refresh()
    assert entries(table) == before
    assert contents(table) == live
    return done


# --- what comes out


def test_many_manifests_become_one_with_the_same_entries(lake: Lakeside) -> None:
    table = lake.table(spec=BY_REGION)
    for number, region in enumerate(REGIONS):
        append(table, 4, start=100 * number, region=region)
    old = table.current_snapshot()
    done = rewritten(lake, table)
    assert done.reason == "20 of 20 manifests become 1"
    assert len(manifests(table)) == 1
    assert done.verification is not None
    assert done.verification.rows_before == 200
    new = table.current_snapshot()
    assert new is not None
    assert old is not None
    assert new.parent_snapshot_id == old.snapshot_id
    assert new.summary is not None
    assert new.summary.operation is Operation.REPLACE
    said = new.summary.additional_properties
    assert {key: said[key] for key in said if key.startswith(("manifests-", "entries-"))} == {
        "manifests-created": "1",
        "manifests-kept": "0",
        "manifests-replaced": "20",
        "entries-processed": "20",
    }
    assert old.summary is not None
    totals = {key: value for key, value in old.summary.additional_properties.items() if key.startswith("total-")}
    assert totals.items() <= said.items()
    (listed,) = new.manifests(table.io)
    assert (listed.added_files_count, listed.existing_files_count, listed.existing_rows_count) == (0, 20, 200)
    assert (listed.sequence_number, listed.min_sequence_number) == (new.sequence_number, 1)
    assert listed.manifest_length == Path(listed.manifest_path.removeprefix("file://")).stat().st_size


def test_every_plan_of_a_scan_is_as_before(lake: Lakeside) -> None:
    table = lake.table(spec=BY_REGION)
    for number, region in enumerate(REGIONS):
        append(table, 2, start=100 * number, region=region)

    def scanned(table: Table) -> list[Counter[str]]:
        filters = ["region = 'None'", "region is null", "region = 'ä b/ö%20'", "id = 203"]
        return [Counter(map(repr, table.scan(row_filter=one).to_arrow().to_pylist())) for one in filters]

    before = scanned(table)
    assert [found.total() for found in before] == [20, 20, 20, 1]
    rewritten(lake, table)
    assert scanned(table) == before


def test_entries_are_clustered_by_partition_and_bounds_are_tight(lake: Lakeside) -> None:
    table = lake.table(spec=BY_REGION)
    for number in range(30):
        append(table, 1, start=10 * number, region=f"region {number % 3}")
    rewritten(lake, table, target_manifest_size_mb=0.0005, everything=True)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    listed = snapshot.manifests(table.io)
    assert 1 < len(listed) < 30
    seen = [item.data_file.partition[0] for one in listed for item in one.fetch_manifest_entry(table.io)]
    assert seen == sorted(seen)
    for one in listed:
        found = [item.data_file.partition[0] for item in one.fetch_manifest_entry(table.io)]
        (bounds,) = one.partitions or []
        assert (bounds.lower_bound, bounds.upper_bound) == (min(found).encode(), max(found).encode())
        assert not bounds.contains_null


def test_what_was_rewritten_is_not_rewritten_again(lake: Lakeside) -> None:
    table = lake.table(spec=BY_REGION)
    append(table, 6)
    rewritten(lake, table)
    again = lake.run("manifests")
    assert (again.status, again.reason) == ("skipped", "nothing to do: 1 manifest, and no fewer at 8 MiB each")
    one = lake.run("manifests", everything=True)
    assert one.status == "skipped"


def test_the_tables_own_target_is_followed(lake: Lakeside) -> None:
    table = lake.table(properties={"commit.manifest.target-size-bytes": "20000"})
    append(table, 12)
    done = lake.run("manifests", dry_run=True)
    assert [step.detail["target_bytes"] for step in done.steps or ()] == [20000]


def test_a_dry_run_names_the_manifests_and_writes_nothing(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 3)
    stored = files_of(table)
    planned = lake.run("manifests", dry_run=True)
    (step,) = planned.steps or []
    assert [group["files"] for group in step.detail["groups"]] == [manifests(table)]
    assert (step.detail["files_out"], files_of(table)) == (1, stored)
    assert lake.run("manifests").plan_id == planned.plan_id


def test_memory_is_bounded_by_groups_that_commit_one_by_one(lake: Lakeside, monkeypatch: pytest.MonkeyPatch) -> None:
    table = lake.table(spec=BY_REGION)
    for number in range(12):
        append(table, 1, start=10 * number, region=f"r{number % 4}")
    monkeypatch.setattr("aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.plan.MIB", 4096)
    done = rewritten(lake, table, max_group_size_mb=3, target_manifest_size_mb=0.01)
    assert len(done.steps or []) > 1
    assert len(manifests(table)) == len(done.steps or [])
    # each group is a commit, and one command takes all of them back
    assert lake.undo(done.operation_id).metrics["snapshots_taken_back"] == len(done.steps or [])
    assert len(manifests(table.refresh())) == 12


# --- kinds of tables


def test_an_empty_table_and_one_without_rows(lake: Lakeside) -> None:
    table = lake.table()
    assert lake.run("manifests").reason == "nothing to do: the table has no manifest"
    append(table, 3)
    table.delete("id >= 0")
    assert lake.run("manifests").status == "skipped"
    assert contents(table.refresh()) == Counter()


def test_delete_manifests_are_rewritten_among_themselves(lake: Lakeside) -> None:
    table = lake.table(spec=BY_REGION)
    append(table, 3)
    for file in live_data_files(table):
        add_position_deletes(table, {file.file_path: [0, 3]})
    before = contents(table)
    assert before.total() == 24
    done = rewritten(lake, table)
    assert (len(manifests(table)), len(manifests(table, ManifestContent.DELETES))) == (1, 1)
    assert done.metrics["entries"] == 6
    assert header_of(manifests(table, ManifestContent.DELETES)[0])["content"] == "deletes"
    # sequence numbers decide which rows a delete hides: rows appended later are not touched
    append(table, 1, start=0)
    assert contents(table).total() == 34


def test_equality_deletes_keep_their_columns(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 2)
    for number in range(2):
        add_equality_deletes(table, rows(table, number, 1), ["id"])
    table.refresh()
    before = entries(table)
    assert lake.run("manifests").status == "completed"
    assert entries(table.refresh()) == before
    (deletes,) = manifests(table, ManifestContent.DELETES)
    assert raw_fields(deletes, 135) == [[1], [1]]


def test_version_1(lake: Lakeside) -> None:
    table = lake.table(spec=BY_REGION, properties={"format-version": "1"})
    append(table, 4)
    rewritten(lake, table)
    (path,) = manifests(table)
    assert header_of(path)["format-version"] == "1"
    assert raw_fields(path, 105) == [64 * 1024 * 1024] * 4
    assert raw_fields(path, 134) == ["no such field"] * 4


def test_a_table_upgraded_from_version_1(lake: Lakeside) -> None:
    table = lake.table(spec=BY_REGION, properties={"format-version": "1"})
    append(table, 3)
    with table.transaction() as transaction:
        transaction.upgrade_table_version(2)
    append(table.refresh(), 3, start=100)
    rewritten(lake, table)
    (path,) = manifests(table)
    assert header_of(path)["format-version"] == "2"
    assert raw_fields(path, 134) == [0] * 6
    assert raw_fields(path, 105) == ["no such field"] * 6
    numbers = {item[3] for item in entries(table)}
    assert numbers == {0, 1, 2, 3}


def test_a_table_upgraded_from_version_1_and_not_written_to_since(lake: Lakeside) -> None:
    table = lake.table(spec=BY_REGION, properties={"format-version": "1"})
    append(table, 3)
    with table.transaction() as transaction:
        transaction.upgrade_table_version(2)
    rewritten(lake, table)
    (path,) = manifests(table)
    assert raw_fields(path, 134) == [0] * 3


def test_manifests_of_different_specs_stay_apart(lake: Lakeside) -> None:
    table = lake.table(spec=BY_REGION)
    append(table, 3)
    with table.update_spec() as update:
        update.add_field("id", IdentityTransform(), "by_id")
    for number in range(3):
        table.append(rows(table, 500 + number, 1))
    rewritten(lake, table)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert sorted(one.partition_spec_id for one in snapshot.manifests(table.io)) == [0, 1]


def test_an_old_spec_whose_column_was_dropped(lake: Lakeside) -> None:
    table = lake.table(spec=BY_REGION)
    append(table, 3)
    with table.update_spec() as update:
        update.remove_field("region")
    with table.update_schema(allow_incompatible_changes=True) as schema:
        schema.delete_column("region")
    table.refresh()
    before = entries(table)
    assert lake.run("manifests").status == "completed"
    table.refresh()
    assert entries(table) == before
    (path,) = manifests(table)
    assert raw_fields(path, 102) == [{"region": "N"}] * 3


def test_partition_values_of_every_kind(lake: Lakeside) -> None:
    one, high = UUID(int=5), UUID(int=2**127)
    kinds: dict[str, tuple[Any, Any, list[Any]]] = {
        "b": (BooleanType(), IdentityTransform(), [True, False, None]),
        "i": (IntegerType(), IdentityTransform(), [-7, 3, None]),
        "l": (LongType(), IdentityTransform(), [-(2**40), 2**40, 0]),
        "d": (DateType(), IdentityTransform(), [-3653, 20484, None]),
        "n": (DecimalType(9, 2), IdentityTransform(), [Decimal("-1.25"), Decimal("1.00"), Decimal("0.00")]),
        "m": (DecimalType(30, 5), IdentityTransform(), [Decimal("-99999999.00001"), Decimal("7.00000"), None]),
        "u": (UUIDType(), IdentityTransform(), [one, high, None]),
        "x": (FixedType(3), IdentityTransform(), [b"\0\xff\1", b"abc", None]),
        "y": (BinaryType(), IdentityTransform(), [b"", b"\xff\xff", None]),
        "s": (StringType(), IdentityTransform(), ["", "None", None]),
        "f": (DoubleType(), IdentityTransform(), [-0.5, float("inf"), float("nan")]),
        "g": (FloatType(), IdentityTransform(), [-0.5, 2.5, None]),
        "t": (TimestampType(), DayTransform(), [-1, 20484, None]),
        "k": (LongType(), BucketTransform(16), [3, 15, None]),
        "v": (StringType(), VoidTransform(), [None, None, None]),
    }
    schema = Schema(*(NestedField(number, name, kind[0]) for number, (name, kind) in enumerate(kinds.items(), 1)))
    spec = PartitionSpec(
        *(
            PartitionField(number, 1000 + number, transform, f"{name} p/ä")
            for number, (name, (_, transform, _)) in enumerate(kinds.items(), 1)
        )
    )
    table = lake.table(schema=schema, spec=spec)
    for position in (0, 1, 2, 1, 0):
        claim(table, [1000], Record(*(values[position] for _, _, values in kinds.values())))
    table.refresh()
    listed = table.metadata.snapshot_by_name("main")
    assert listed is not None
    given = [one.partitions or [] for one in listed.manifests(table.io)]
    before = entries(table)
    assert lake.run("manifests").status == "completed"
    assert entries(table.refresh()) == before
    snapshot = table.current_snapshot()
    assert snapshot is not None
    (new,) = snapshot.manifests(table.io)
    for number, (name, (_, _, values)) in enumerate(kinds.items()):
        summary = (new.partitions or [])[number]
        assert summary.contains_null == (None in values), name
        known = {bound for one in given for bound in (one[number].lower_bound, one[number].upper_bound)}
        assert {summary.lower_bound, summary.upper_bound} <= known, name
    bounds = dict(zip(kinds, new.partitions or [], strict=True))
    assert (bounds["i"].lower_bound, bounds["i"].upper_bound) == (b"\xf9\xff\xff\xff", b"\3\0\0\0")
    assert (bounds["n"].lower_bound, bounds["n"].upper_bound) == (b"\x83", b"\x64")
    assert (bounds["u"].lower_bound, bounds["u"].upper_bound) == (one.bytes, high.bytes)
    assert bounds["f"].contains_nan
    assert bounds["v"].lower_bound is None


def test_a_promoted_partition_column(lake: Lakeside) -> None:
    schema = Schema(NestedField(1, "i", IntegerType()), NestedField(2, "n", DecimalType(4, 2)))
    spec = PartitionSpec(
        PartitionField(1, 1000, IdentityTransform(), "i"), PartitionField(2, 1001, IdentityTransform(), "n")
    )
    table = lake.table(schema=schema, spec=spec)
    for number in (-3, 5):
        row = {"i": pa.array([number], pa.int32()), "n": pa.array([Decimal(number) / 4], pa.decimal128(4, 2))}
        table.append(pa.table(row))
    with table.update_schema() as update:
        update.update_column("i", LongType())
        update.update_column("n", DecimalType(20, 2))
    row = {"i": pa.array([2**40], pa.int64()), "n": pa.array([Decimal("-123456789.25")], pa.decimal128(20, 2))}
    table.append(pa.table(row))
    rewritten(lake, table)
    assert len(manifests(table)) == 1
    assert {repr(file.partition) for file in live_data_files(table)} == {
        repr(file.partition) for file in live_data_files(table)
    }
    assert contents(table).total() == 3
    assert table.scan(row_filter="i = -3").to_arrow().num_rows == 1
    assert table.scan(row_filter="n = -123456789.25").to_arrow().num_rows == 1


def test_odd_names(lake: Lakeside) -> None:
    lake.catalog.create_namespace(("ns", "in ner.x"))
    table = lake.table(("ns", "in ner.x", 't"ä %20'), spec=BY_REGION)
    append(table, 3)
    rewritten(lake, table, 'lake.ns."in ner.x"."t""ä %20"')
    assert len(manifests(table)) == 1


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("gzip", "deflate"),
        ("ZSTD", "zstandard"),
        ("uncompressed", "null"),
        ("snappy", "deflate"),
        ("nonsense", "deflate"),
    ],
)
def test_manifests_are_compressed_as_the_table_says(lake: Lakeside, said: str, written: str) -> None:
    table = lake.table(spec=BY_REGION)
    append(table, 3)
    with table.transaction() as transaction:
        transaction.set_properties({"write.avro.compression-codec": said})
    rewritten(lake, table)
    (path,) = manifests(table)
    key = b"avro.codec" + bytes([2 * len(written)]) + written.encode()
    assert key in Path(path.removeprefix("file://")).read_bytes()


# --- other writers' manifests


def test_fields_that_nobody_here_knows_survive(lake: Lakeside) -> None:
    table = lake.table(spec=BY_REGION)
    append(table, 3)
    for path in manifests(table):
        rewrite_in_place(table, path, add_field("from_the_future", 9999, "string", f"kept {path[-9:]}"))
    rewritten(lake, table)
    (path,) = manifests(table)
    assert all(str(value).startswith("kept ") for value in raw_fields(path, 9999))


def test_manifests_of_different_writers_become_one_that_has_all_fields(lake: Lakeside) -> None:
    table = lake.table(spec=BY_REGION)
    append(table, 5)
    first, second, third, fourth, _ = manifests(table)
    rewrite_in_place(table, first, add_field("from_the_future", 9999, "string", "kept"))
    rewrite_in_place(table, second, rename_all)
    rewrite_in_place(table, third, without_field("sort_order_id"))
    rewrite_in_place(table, fourth, add_field("referenced_data_file", 143, "string", "file:///x"))
    rewritten(lake, table)
    (path,) = manifests(table)
    assert Counter(raw_fields(path, 9999)) == {"kept": 1, None: 4}
    assert Counter(raw_fields(path, 143)) == {"file:///x": 1, None: 4}
    with duckdb.connect() as connection:
        paths = [file.file_path.removeprefix("file://") for file in live_data_files(table)]
        assert connection.sql("select count(*) from read_parquet($paths)", params={"paths": paths}).fetchall() == [
            (50,)
        ]


# --- others at work


def test_manifests_that_others_add_meanwhile_are_kept_as_they_are(
    lake: Lakeside, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = lake.table(spec=BY_REGION)
    append(table, 4)
    before = interfere(lake, monkeypatch, lambda other: append(other, 1, start=900, region="S"))
    done = lake.run("manifests")
    assert (done.status, done.metrics["commit_retries"], done.metrics["conflicts_retried"]) == ("completed", 1, 0)
    table.refresh()
    assert len(manifests(table)) == 2
    assert contents(table).total() == 50
    assert before[0] in manifests(table)


def test_a_concurrent_tag_is_no_conflict_and_stays(lake: Lakeside, monkeypatch: pytest.MonkeyPatch) -> None:
    table = lake.table()
    append(table, 4)
    head = table.metadata.current_snapshot_id
    assert head is not None
    interfere(lake, monkeypatch, lambda other: other.manage_snapshots().create_tag(head, "theirs").commit())
    assert lake.run("manifests").status == "completed"
    assert table.refresh().metadata.refs["theirs"].snapshot_id == head
    assert len(manifests(table)) == 1


def test_a_concurrent_delete_makes_it_plan_again_and_is_never_undone(
    lake: Lakeside, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = lake.table()
    append(table, 4)
    interfere(lake, monkeypatch, lambda other: other.delete("id < 15"))
    done = lake.run("manifests")
    assert done.status == "completed"
    assert done.metrics["conflicts_retried"] == 1
    assert contents(table.refresh()).total() == 25
    assert unreferenced(table) == set()


def test_a_table_created_anew_meanwhile_is_left_alone(lake: Lakeside, monkeypatch: pytest.MonkeyPatch) -> None:
    table = lake.table()
    append(table, 3)

    def replace(_: Table) -> None:
        lake.catalog.drop_table("ns.t")
        append(lake.table(), 1, start=70)

    interfere(lake, monkeypatch, replace)
    failed = lake.run("manifests")
    assert failed.status == "failed"
    assert failed.problem is not None
    assert failed.problem.type == "table-not-found"
    assert contents(lake.catalog.load_table("ns.t")).total() == 10


def interfere(lake: Lakeside, monkeypatch: pytest.MonkeyPatch, act: Any) -> list[str]:
    """Let ``act`` do something to the table just before the first commit; the manifests it has then."""
    real = SqlCatalog.commit_table
    seen: list[str] = []
    acting: list[bool] = []

    def interfering(self: SqlCatalog, *arguments: Any) -> Any:
        if not acting:
            acting.append(True)
            other = lake.catalog.load_table("ns.t")
            act(other)
            seen.extend(manifests(lake.catalog.load_table("ns.t")))
        return real(self, *arguments)

    monkeypatch.setattr(SqlCatalog, "commit_table", interfering)
    return seen


def unreferenced(table: Table) -> set[str]:
    """Files in the metadata folder that no snapshot and no metadata file names."""
    metadata = table.metadata
    named = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    for snapshot in metadata.snapshots:
        named |= {snapshot.manifest_list, *(one.manifest_path for one in snapshot.manifests(table.io))}
    known = {Path(path.removeprefix("file://")).name for path in named}
    return {Path(path).name for path in files_of(table) if path.startswith("metadata/")} - known


# --- what goes wrong


def test_a_commit_whose_answer_is_lost_is_read_back(lake: Lakeside, monkeypatch: pytest.MonkeyPatch) -> None:
    table = lake.table()
    append(table, 4)
    real = SqlCatalog.commit_table

    def unheard(self: SqlCatalog, *arguments: Any) -> Any:
        real(self, *arguments)
        raise TimeoutError("no answer")

    monkeypatch.setattr(SqlCatalog, "commit_table", unheard)
    assert lake.run("manifests").status == "completed"
    assert len(manifests(table.refresh())) == 1
    assert unreferenced(table) == set()


def test_a_catalog_that_refuses_leaves_nothing_behind(lake: Lakeside, monkeypatch: pytest.MonkeyPatch) -> None:
    table = lake.table()
    append(table, 4)
    before = entries(table)

    def refuse(*_: Any) -> Any:
        raise OSError("the catalog is down")

    monkeypatch.setattr(SqlCatalog, "commit_table", refuse)
    from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend

    properties = {"type": "sql", **{key: str(value) for key, value in lake.catalog.properties.items()}}
    backend = IcebergMaintenanceBackend({"catalog": properties}, name="lake")
    with pytest.raises(BackendUnavailableError, match="did not take the commit"):
        rewrite_manifests("lake.ns.t", backend=backend)
    backend.catalog.close()
    monkeypatch.undo()
    assert entries(table.refresh()) == before


def test_a_refused_rewrite_through_the_service_leaves_nothing_behind(
    lake: Lakeside, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = lake.table()
    append(table, 4)
    monkeypatch.setattr(
        "aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.execute.RawEntry.fact",
        lambda entry: (object(),),
    )
    failed = lake.run("manifests")
    assert failed.status == "failed"
    assert failed.problem is not None
    assert failed.problem.type == "verification-failed"
    monkeypatch.undo()
    assert unreferenced(table.refresh()) == set()
    assert len(manifests(table)) == 4


@pytest.mark.parametrize("damage", ["missing", "cut", "garbage"])
def test_a_damaged_manifest_is_a_typed_error_and_changes_nothing(lake: Lakeside, damage: str) -> None:
    table = lake.table()
    append(table, 4)
    path = Path(manifests(table)[1].removeprefix("file://"))
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"garbage")
    stored = files_of(table)
    failed = lake.run("manifests")
    assert failed.status == "failed"
    assert failed.problem is not None
    assert failed.problem.type == "corrupt-table"
    assert path.name in failed.reason
    assert files_of(table) == stored
    path.write_bytes(content)
    rewritten(lake, table)


def test_format_version_3_is_refused_with_who_could(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 3)

    def upgrade(metadata: dict[str, Any]) -> None:
        metadata["format-version"] = 3
        metadata["next-row-id"] = 30

    edit_metadata(lake.catalog, table, upgrade)
    refused = lake.run("manifests")
    assert refused.status == "skipped"
    assert "Spark's rewrite_manifests" in refused.reason


# --- undo, plain function


def test_undo(lake: Lakeside) -> None:
    table = lake.table(spec=BY_REGION)
    append(table, 4)
    listed, head = manifests(table), table.metadata.current_snapshot_id
    done = rewritten(lake, table)
    undone = lake.undo(done.operation_id)
    assert undone.status == "completed"
    table.refresh()
    assert (table.metadata.current_snapshot_id, manifests(table)) == (head, listed)


def test_the_plain_function(lake: Lakeside, monkeypatch: pytest.MonkeyPatch) -> None:
    table = lake.table(schema=SCHEMA)
    append(table, 3)
    monkeypatch.setenv("AURUM_HOME", str(lake.home))
    monkeypatch.setenv("AURUM_FLEET", str(lake.home / "fleet.yaml"))
    planned = rewrite_manifests("lake.ns.t", dry_run=True)
    assert (planned["manifests_rewritten"], planned["manifests_added"], planned["dry_run"]) == (3, 1, True)
    done = rewrite_manifests("lake.ns.t")
    assert (done["manifests_rewritten"], done["manifests_added"], done["dry_run"]) == (3, 1, False)
    assert len(manifests(table.refresh())) == 1


# --- which manifests


@pytest.mark.parametrize(
    ("sizes", "chosen"),
    [
        ([], []),
        ([10], []),
        ([10, 10], [0, 1]),
        ([100, 100, 10], []),
        ([100, 10, 100, 10], [1, 3]),
        ([60, 60], []),
        ([70, 70, 70], [0, 1, 2]),
        ([74, 74, 74], []),
        ([30, 30, 30, 30], [0, 1, 2, 3]),
        ([250], []),
        ([300_000], [0]),
        ([300_000, 10], [0, 1]),
    ],
)
def test_which_manifests_are_worth_rewriting(sizes: list[int], chosen: list[int]) -> None:
    assert candidates(sizes, 100) == chosen


def test_everything_means_everything() -> None:
    assert candidates([100, 100, 10], 100, everything=True) == [0, 1, 2]
    assert candidates([100], 100, everything=True) == []


@pytest.mark.parametrize(("total", "few"), [(0, 0), (1, 1), (100, 1), (110, 1), (111, 2), (210, 2), (950, 10)])
def test_how_few_they_can_be(total: int, few: int) -> None:
    assert ideal(total, 100) == few
