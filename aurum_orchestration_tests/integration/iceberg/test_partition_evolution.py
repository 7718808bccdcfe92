"""Partition evolution through the service: the spec is set, old files follow, a killed run carries on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.table import Table
from pyiceberg.types import IntegerType, NestedField, StringType, StructType, TimestampType

from aurum_orchestration.errors import RequestError
from aurum_orchestration.maintenance import iceberg
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.backends.iceberg.evolution.plan import spec_text
from aurum_orchestration.maintenance.backends.iceberg.evolution.terms import Asked, change_of, parse_term
from aurum_orchestration_tests.iceberg_deletes import live_data_files
from aurum_orchestration_tests.integration.iceberg.support import fields
from aurum_orchestration_tests.integration.upkeep.lakeside import BY_REGION, Lakeside, append, contents
from aurum_orchestration_tests.integration.upkeep.test_killed import kill_at

SCHEMA = fields(
    id=IntegerType(), ts=TimestampType(), name=StringType(), s=StructType(NestedField(9, "k", IntegerType()))
)


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lakeside]:
    with Lakeside.at(tmp_path) as made:
        yield made


def specs_of_files(table: Table) -> dict[int, int]:
    found: dict[int, int] = {}
    for file in live_data_files(table.refresh()):
        found[file.spec_id] = found.get(file.spec_id, 0) + 1
    return found


def regional(lake: Lakeside) -> Table:
    table = lake.table(spec=BY_REGION)
    append(table, 2, region="N")
    append(table, 2, start=100, region=None)
    return table


def test_the_spec_is_set_and_old_files_follow(lake: Lakeside) -> None:
    table = regional(lake)
    rows, before = contents(table), table.metadata_location
    planned = lake.run("partition_evolution", dry_run=True, spec=["bucket(4, id)"])
    assert table.refresh().metadata_location == before
    assert planned.reason == "partition by bucket(4, id), rewrite 4 files of older specs into bucket(4, id) in 1 group"
    assert planned.steps is not None
    assert [step.action for step in planned.steps] == ["evolve", "rewrite"]
    assert planned.steps[0].detail["former_spec"] == "region"
    done = lake.run("partition_evolution", spec=["bucket(4, id)"])
    assert (done.status, done.plan_id) == ("completed", planned.plan_id)
    assert done.metrics["specs_changed"] == 1
    assert done.metrics["files_rewritten"] == 4
    assert done.verification is not None
    assert (done.verification.ok, done.verification.rows_before) == (True, 40)
    assert specs_of_files(table) == {1: 4}
    assert spec_text(table.spec(), table.schema()) == "bucket(4, id)"
    assert contents(table) == rows
    assert table.scan(row_filter="id = 105").to_arrow().num_rows == 1
    again = lake.run("partition_evolution", spec=["bucket(4, id)"])
    assert (again.status, again.reason) == ("skipped", "nothing to do: the table is partitioned by bucket(4, id)")


def test_undo_sets_the_former_spec(lake: Lakeside) -> None:
    table = regional(lake)
    rows = contents(table)
    done = lake.run("partition_evolution", spec=["truncate(1, note) as first"])
    assert done.undo is not None
    assert "partition spec 0 is the default again" in done.undo
    undone = lake.undo(done.operation_id)
    assert undone.status == "completed", undone.problem
    assert table.refresh().metadata.default_spec_id == 0
    assert contents(table) == rows
    append(table, 1, start=500)
    assert specs_of_files(table) == {0: 1, 1: 1}
    # the former spec's files come back by the same operation, and the spec is not made twice
    assert lake.run("partition_evolution", spec=["region"]).status == "completed"
    assert specs_of_files(table) == {0: 3}


def test_undo_is_refused_when_the_spec_was_changed_since(lake: Lakeside) -> None:
    table = regional(lake)
    done = lake.run("partition_evolution", spec=[], rewrite=False)
    assert specs_of_files(table) == {0: 4}
    with table.update_spec() as update:
        update.add_identity("note")
    refused = lake.undo(done.operation_id)
    assert refused.problem is not None
    assert "the partition spec was changed since" in (refused.problem.detail or "")


def test_fields_are_added_and_removed_one_by_one_and_version_1_keeps_them_void(lake: Lakeside) -> None:
    table = lake.table(spec=BY_REGION, properties={"format-version": "1"})
    append(table, 2)
    rows = contents(table)
    for _ in range(2):
        lake.run("partition_evolution", add=["bucket(2, id) as b"], remove=["region"])
        assert [str(field.transform) for field in table.refresh().spec().fields] == ["void", "bucket[2]"]
    assert specs_of_files(table) == {1: 2}
    lake.run("partition_evolution", spec=["region"])
    assert spec_text(table.refresh().spec(), table.schema()) == "region"
    assert set(specs_of_files(table)) == {2}
    assert contents(table) == rows


def test_too_many_partitions_and_wrong_columns_are_refused_before_anything_changes(lake: Lakeside) -> None:
    table = regional(lake)
    before = table.metadata_location
    refused = lake.run("partition_evolution", spec=["id"], max_partitions=30)
    assert refused.status == "skipped"
    assert "would fall into" in refused.reason
    wrong = lake.run("partition_evolution", spec=["regoin"])
    assert wrong.problem is not None
    assert "region" in (wrong.problem.hint or "")
    assert table.refresh().metadata_location == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be understood"),
        ("day(ts", "cannot be understood"),
        ("dya(ts)", "no transform 'dya'"),
        ("bucket(id)", "takes a number and a column"),
        ("bucket(0, id)", "takes a number and a column"),
        ("day(name)", "has no day"),
        ("s", "no column 's'"),
    ],
)
def test_terms_that_cannot_be(text: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        parse_term(text, SCHEMA)


@pytest.mark.parametrize(
    ("text", "column", "transform", "name"),
    [
        ("days(ts)", "ts", "day", None),
        ("Bucket(16,id)", "id", "bucket[16]", None),
        ("truncate(name, 3) AS prefix", "name", "truncate[3]", "prefix"),
        ("s.k", "s.k", "identity", None),
        ('identity("name") as "n m"', "name", "identity", "n m"),
    ],
)
def test_terms_that_can_be(text: str, column: str, transform: str, name: str | None) -> None:
    term = parse_term(text, SCHEMA)
    assert (term.column, str(term.transform), term.name) == (column, transform, name)


@pytest.mark.parametrize("spec", [["day(ts)", "hour(ts)"], ["id", "identity(id)"]])
def test_specs_that_cannot_be(spec: list[str]) -> None:
    with pytest.raises(RequestError, match="twice"):
        change_of(PartitionSpec(), SCHEMA, Asked(spec, [], []), set())


def test_the_plain_function(lake: Lakeside) -> None:
    table = regional(lake)
    backend = IcebergMaintenanceBackend(
        {"catalog": {"type": "sql", "uri": f"sqlite:///{lake.home}/catalog.db"}}, name="lake"
    )
    planned = iceberg.evolve_partitions("lake.ns.t", backend=backend, dry_run=True, spec=[])
    assert (planned["specs_changed"], planned["files_rewritten"], planned["files_added"]) == (1, 4, 1)
    done = iceberg.evolve_partitions("lake.ns.t", backend=backend, spec=[])
    assert (done["specs_changed"], done["files_rewritten"], done["files_added"]) == (1, 4, 1)
    assert specs_of_files(table) == {1: 1}
    backend.catalog.close()


def large_appends(table: Table) -> None:
    """Three files of more than a MiB each, so that each is a group of its own."""
    import numpy as np

    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 2**60, 60_000)
        ids = pa.array(noise, pa.int64())
        table.append(
            pa.table({"id": ids, "region": ["N"] * len(ids), "note": ids.cast(pa.string())}).cast(_arrow(table))
        )


def _arrow(table: Table) -> Any:
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    return schema_to_pyarrow(table.schema(), include_field_ids=False)


@pytest.mark.parametrize(
    ("point", "default", "old_left"),
    [("commit", 0, 3), ("committed", 1, 3), ("committed:2", 1, None), ("commit:3", 1, None), ("record", 1, 0)],
)
def test_killed_and_carried_on(lake: Lakeside, point: str, default: int, old_left: int | None) -> None:
    table = lake.table(spec=BY_REGION)
    large_appends(table)
    rows = table.scan(selected_fields=("id",)).to_arrow().column("id").to_numpy().sum()
    kill_at(lake, "partition_evolution", point)
    table.refresh()
    assert table.metadata.default_spec_id == default
    left = specs_of_files(table).get(0, 0)
    assert left == old_left if old_left is not None else 0 < left < 3
    assert table.scan(selected_fields=("id",)).to_arrow().column("id").to_numpy().sum() == rows
    again = lake.run("partition_evolution", spec=["bucket(2, id)"], target_file_size_mb=1, max_group_size_mb=1)
    assert again.status == ("skipped" if point == "record" else "completed"), again.problem
    assert set(specs_of_files(table)) == {1}
    assert table.scan(selected_fields=("id",)).to_arrow().column("id").to_numpy().sum() == rows


@pytest.mark.parametrize("rewrite", [True, False])
def test_metadata_that_a_commit_would_drop_is_a_reason_to_refuse(lake: Lakeside, rewrite: bool) -> None:
    table = regional(lake)
    path = Path(table.metadata_location.removeprefix("file://"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "of-tomorrow": {"kept": True}}))
    before = path.read_text()
    result = lake.run("partition_evolution", spec=["bucket(4, id)"], rewrite=rewrite)
    assert result.status == "skipped"
    assert "of-tomorrow" in (result.reason or "")
    assert (table.refresh().metadata_location, path.read_text()) == (f"file://{path}", before)
