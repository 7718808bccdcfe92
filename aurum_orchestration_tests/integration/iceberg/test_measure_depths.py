"""What is measured at which depth, and that the exact numbers are what the planner would pack."""

from __future__ import annotations

import random
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.table import Table
from pyiceberg.transforms import BucketTransform, IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import DecimalType, LongType, StringType, UUIDType

from aurum_orchestration.maintenance.backends.iceberg.files import Files
from aurum_orchestration.maintenance.backends.iceberg.measure import IcebergMeasurer
from aurum_orchestration.maintenance.planner.binpack import is_small, pack
from aurum_orchestration_tests.iceberg_deletes import live_data_files
from aurum_orchestration_tests.integration.iceberg.claims import MIB, claim, measure
from aurum_orchestration_tests.integration.iceberg.support import append_numbers, fields, make_table, plan_of, spec_of

NUMBERS = fields(id=LongType())
REGIONAL = fields(id=LongType(), region=StringType())
BY_REGION = spec_of((2, IdentityTransform(), "region"))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files read from now on."""
    seen: list[str] = []
    read = Files.read

    def watched(self: Files, location: str) -> bytes:
        seen.append(location.rsplit("/", 1)[1])
        return read(self, location)

    monkeypatch.setattr(Files, "read", watched)
    return seen


def expected(table: Table, target_mb: int, min_input_files: int, max_group_size_mb: int) -> dict[str, float]:
    """What pack() says over PyIceberg's own listing of the live files, in the order of their commits."""
    sizes: defaultdict[Any, list[int]] = defaultdict(list)
    for entry in sorted(table.inspect.entries().to_pylist(), key=lambda entry: entry["sequence_number"]):
        file = entry["data_file"]
        sizes[repr(file["partition"])].append(file["file_size_in_bytes"])
    target = target_mb * MIB
    small = excess = rewritten = 0
    for partition in sizes.values():
        few = sum(is_small(size, target) for size in partition)
        small += few if few >= min_input_files else 0
        bins = pack(partition, target, min_input_files, max_group_size_mb * MIB)
        excess += sum(bin_.excess for bin_ in bins)
        rewritten += sum(bin_.bytes for bin_ in bins)
    return {
        "small_files": small,
        "excess_files": excess,
        "small_bytes": rewritten,
        "partitions": len(sizes),
        "data_files": sum(map(len, sizes.values())),
        "data_bytes": sum(map(sum, sizes.values())),
    }


@pytest.mark.parametrize("seed", range(6))
def test_exact_numbers_are_what_pack_says_over_the_live_files(catalog: SqlCatalog, seed: int) -> None:
    chance = random.Random(seed)
    table = make_table(catalog, REGIONAL, spec=BY_REGION)
    for _ in range(chance.randint(2, 6)):
        region = chance.choice(["N", "S", "Ö", None])
        claim(table, [chance.randint(1, 12 * MIB) for _ in range(chance.randint(1, 15))], Record(region))
    rules = {"target_file_size_mb": 8, "min_input_files": chance.randint(2, 6), "max_group_size_mb": 20}
    found = measure(catalog, table, measurer=IcebergMeasurer(catalog, "lake", survey_seconds=60), **rules).metrics
    wanted = expected(table, 8, rules["min_input_files"], 20)
    assert {name: found[name] for name in wanted} == wanted
    assert found["exact"] == 1
    steps = plan_of(table, **rules).steps
    assert found["excess_files"] == sum(len(step.detail["files"]) - step.detail["files_out"] for step in steps)
    assert found["small_bytes"] == sum(step.detail["bytes"] for step in steps)
    assert found["avg_file_bytes"] == pytest.approx(wanted["data_bytes"] / wanted["data_files"])


def test_the_numbers_of_a_real_table(catalog: SqlCatalog) -> None:
    table = make_table(catalog, NUMBERS)
    append_numbers(table, files=7, rows=100)
    table.delete("id < 250")  # two files go, one is rewritten
    snapshot = table.current_snapshot()
    assert snapshot is not None
    health = measure(catalog, table, clear_excess_files=1)
    assert health.state_token == str(snapshot.snapshot_id)
    assert (health.backend, str(health.table), health.problem) == ("lake", "lake.ns.t", None)
    files = table.inspect.files().to_pylist()
    age = health.measured_at.timestamp() - snapshot.timestamp_ms / 1000
    assert dict(health.metrics) == {
        "data_files": 5,
        "data_bytes": sum(file["file_size_in_bytes"] for file in files),
        "rows": 450,
        "avg_file_bytes": sum(file["file_size_in_bytes"] for file in files) / 5,
        "small_files": 5,
        "small_bytes": sum(file["file_size_in_bytes"] for file in files),
        "excess_files": 4,
        "partitions": 1,
        "delete_files": 0,
        "position_delete_rows": 0,
        "equality_delete_files": 0,
        "equality_delete_rows": 0,
        "snapshots": len(table.metadata.snapshots),
        "manifests": len(snapshot.manifests(table.io)),
        "manifest_bytes": sum(manifest.manifest_length for manifest in snapshot.manifests(table.io)),
        "excess_manifests": 1,  # of those with live files
        "metadata_bytes": Path(table.metadata_location.removeprefix("file://")).stat().st_size,
        "format_version": 2,
        "seconds_since_commit": pytest.approx(age),
        "oldest_snapshot_seconds": pytest.approx(
            health.measured_at.timestamp() - table.metadata.snapshots[0].timestamp_ms / 1000
        ),
        "history_expired": 0,
        "exact": 1,
    }


def test_partition_values_of_every_kind_keep_their_partitions_apart(catalog: SqlCatalog) -> None:
    schema = fields(id=LongType(), price=DecimalType(9, 2), other=DecimalType(9, 2), key=UUIDType(), name=StringType())
    spec = PartitionSpec(
        PartitionField(2, 1000, IdentityTransform(), "price"),
        PartitionField(3, 1001, IdentityTransform(), "odd name/ä"),
        PartitionField(4, 1002, IdentityTransform(), "key"),
        PartitionField(5, 1003, BucketTransform(16), "name_bucket"),
    )
    table = make_table(catalog, schema, spec=spec)
    one, two = Decimal("1.00"), Decimal("-2.50")
    key = UUID(int=7)
    for values in (
        (one, two, key, 1),
        (one, one, key, 1),
        (two, one, key, None),
        (one, two, None, 1),
        (one, two, key, 1),
    ):
        claim(table, [1000] * 3, Record(*values))
    metrics = measure(catalog, table, min_input_files=2, clear_excess_files=1).metrics
    # five commits, four partitions: the last one adds to the first
    assert (metrics["partitions"], metrics["small_files"], metrics["excess_files"]) == (4, 15, 11)


def test_equal_values_under_two_specs_are_two_partitions(catalog: SqlCatalog) -> None:
    schema = fields(id=LongType(), region=StringType(), hub=StringType())
    table = make_table(catalog, schema, spec=BY_REGION)
    claim(table, [1000] * 6, Record("N"))
    with table.update_spec() as change:
        change.remove_field("region")
        change.add_identity("hub")
    claim(table, [1000] * 6, Record("N"))
    claim(table, [1000] * 6, Record("N"))
    metrics = measure(catalog, table, clear_excess_files=1).metrics
    assert metrics["partitions"] == len({file.spec_id for file in live_data_files(table)}) == 2
    assert metrics["excess_files"] == 5 + 11


def test_a_partition_with_too_few_small_files_counts_none(catalog: SqlCatalog) -> None:
    table = make_table(catalog, REGIONAL, spec=BY_REGION)
    claim(table, [1000] * 4, Record("N"))
    claim(table, [1000] * 6, Record("S"))
    metrics = measure(catalog, table, min_input_files=5).metrics
    assert (metrics["data_files"], metrics["small_files"], metrics["excess_files"]) == (10, 6, 5)


def test_a_table_that_looks_well_is_estimated_without_reading_its_manifests(
    catalog: SqlCatalog, reads: list[str]
) -> None:
    table = make_table(catalog, NUMBERS)
    claim(table, [120 * MIB] * 20)
    measurer = IcebergMeasurer(catalog, "lake", survey_seconds=0)
    metrics = measure(catalog, table, measurer=measurer).metrics
    assert [name for name in reads if name.endswith(".avro")] == []
    assert (metrics["exact"], metrics["small_files"], metrics["excess_files"]) == (0, 0, 0)
    assert {"small_bytes", "partitions", "manifests"}.isdisjoint(metrics)
    # under a policy with larger files the same table looks bad, and is read
    metrics = measure(catalog, table, measurer=measurer, target_file_size_mb=512).metrics
    assert (metrics["exact"], metrics["small_files"], metrics["excess_files"]) == (1, 20, 15)


def test_too_few_files_for_the_policy_need_no_manifests_to_be_exact(catalog: SqlCatalog, reads: list[str]) -> None:
    table = make_table(catalog, NUMBERS)
    claim(table, [1000] * 4)
    metrics = measure(catalog, table, min_input_files=5, clear_excess_files=1).metrics
    assert [name for name in reads if name.endswith(".avro")] == []
    assert (metrics["exact"], metrics["small_files"], metrics["excess_files"]) == (1, 0, 0)


def test_small_files_that_came_lately_are_found_beside_huge_ones(catalog: SqlCatalog) -> None:
    table = make_table(catalog, NUMBERS)
    claim(table, [10_000 * MIB] * 5)
    for _ in range(5):
        claim(table, [1000] * 6)
    measurer = IcebergMeasurer(catalog, "lake", survey_seconds=0)
    metrics = measure(catalog, table, measurer=measurer).metrics
    assert (metrics["exact"], metrics["small_files"], metrics["excess_files"]) == (1, 30, 29)


def test_small_files_hidden_by_huge_ones_of_the_same_commit_are_found_by_and_by(catalog: SqlCatalog) -> None:
    hidden = []
    for number in range(3):
        table = make_table(catalog, NUMBERS, name=f"ns.t{number}")
        claim(table, [*[10_000 * MIB] * 5, *[1000] * (30 + number)])
        hidden.append(table)
    measurer = IcebergMeasurer(catalog, "lake", survey_seconds=0)
    assert [health.metrics["exact"] for health in measure(catalog, *hidden, measurer=measurer)] == [0, 0, 0]
    measurer = IcebergMeasurer(catalog, "lake", survey_seconds=60)
    assert [health.metrics["excess_files"] for health in measure(catalog, *hidden, measurer=measurer)] == [29, 30, 31]


def test_without_time_for_manifests_a_suspect_keeps_an_estimate_and_is_read_the_next_time(
    catalog: SqlCatalog, reads: list[str]
) -> None:
    table = make_table(catalog, NUMBERS)
    claim(table, [100 * MIB, *[1000] * 20])
    measurer = IcebergMeasurer(catalog, "lake", deep_seconds=0)
    metrics = measure(catalog, table, measurer=measurer).metrics
    assert (metrics["exact"], metrics["small_files"], metrics["excess_files"]) == (0, 21, 20)
    assert [name for name in reads if name.endswith(".avro")] == []
    measurer = IcebergMeasurer(catalog, "lake")
    metrics = measure(catalog, table, measurer=measurer).metrics
    assert (metrics["exact"], metrics["small_files"], metrics["excess_files"]) == (1, 20, 19)


def test_the_worst_suspects_are_read_first(catalog: SqlCatalog, reads: list[str]) -> None:
    tables = []
    for number, files in enumerate((20, 60, 40)):
        table = make_table(catalog, NUMBERS, name=f"ns.t{number}")
        claim(table, [1000] * files)
        tables.append(table)
    measure(catalog, *tables)
    lists = [name for name in reads if name.startswith("snap-")]
    expected_order = [tables[position].metadata.current_snapshot_id for position in (1, 2, 0)]
    assert [int(name.split("-")[1]) for name in lists] == expected_order


def test_nothing_is_read_twice(catalog: SqlCatalog, reads: list[str]) -> None:
    tables = [make_table(catalog, NUMBERS, name=f"ns.t{number}") for number in range(3)]
    for table in tables:
        claim(table, [1000] * 10)
        claim(table, [1000] * 10)
    measurer = IcebergMeasurer(catalog, "lake")
    before = measure(catalog, *tables, measurer=measurer)
    assert len(reads) == 3 * (1 + 1 + 2)  # metadata, manifest list, two manifests
    reads.clear()
    again = measure(catalog, *tables, measurer=measurer)
    assert reads == []
    for old, new in zip(before, again, strict=True):
        assert new.metrics["seconds_since_commit"] >= old.metrics["seconds_since_commit"]
        ageless = [{**one.metrics, "seconds_since_commit": 0, "oldest_snapshot_seconds": 0} for one in (old, new)]
        assert ageless[0] == ageless[1]
    # after a commit: its metadata, the new manifest list, and only the manifest that it added
    claim(tables[1], [1000] * 5)
    changed = measure(catalog, *tables, measurer=measurer)
    assert len(reads) == 3
    assert [health.metrics["data_files"] for health in changed] == [20, 25, 20]
    assert changed[1].state_token != before[1].state_token


def test_what_is_remembered_is_bounded(catalog: SqlCatalog, reads: list[str]) -> None:
    tables = [make_table(catalog, NUMBERS, name=f"ns.t{number}") for number in range(3)]
    for table in tables:
        claim(table, [1000] * 10)
    measurer = IcebergMeasurer(catalog, "lake", max_tables=2, max_files=12)
    first = measure(catalog, *tables, measurer=measurer)
    reads.clear()
    second = measure(catalog, *tables, measurer=measurer)
    assert 0 < len(reads) < 9
    assert [health.metrics["excess_files"] for health in first + second] == [9] * 6


@pytest.mark.parametrize(("max_files", "again"), [(1000, 0), (12, 3), (0, 3)])
def test_manifests_are_remembered_as_far_as_there_is_room(
    catalog: SqlCatalog, reads: list[str], max_files: int, again: int
) -> None:
    table = make_table(catalog, NUMBERS)
    for _ in range(3):
        claim(table, [1000] * 10)
    measurer = IcebergMeasurer(catalog, "lake", max_files=max_files)
    measure(catalog, table, measurer=measurer)
    reads.clear()
    assert measure(catalog, table, measurer=measurer, min_input_files=6).metrics["excess_files"] == 29
    assert len([name for name in reads if not name.startswith("snap-")]) == again


def test_manifests_with_nothing_alive_are_left_alone(catalog: SqlCatalog, reads: list[str]) -> None:
    table = make_table(catalog, REGIONAL, spec=BY_REGION)
    append_numbers(table, files=6, region="N")
    append_numbers(table, files=6, region="S")
    table.delete("region = 'N'")
    assert measure(catalog, table, clear_excess_files=1).metrics["excess_files"] == 5
    assert len([name for name in reads if name.endswith(".avro")]) == 2  # of three: the list, and what lives


def test_another_policy_is_followed_at_once_without_reading_again(catalog: SqlCatalog, reads: list[str]) -> None:
    table = make_table(catalog, NUMBERS)
    claim(table, [10 * MIB] * 20)
    measurer = IcebergMeasurer(catalog, "lake")
    assert measure(catalog, table, measurer=measurer, target_file_size_mb=100).metrics["excess_files"] == 18
    reads.clear()
    assert measure(catalog, table, measurer=measurer, target_file_size_mb=50).metrics["excess_files"] == 16
    assert [name for name in reads if not name.startswith("snap-")] == []
