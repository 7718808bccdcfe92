"""Plans: refused with the reason, made without writing, and not carried out on a table that has drifted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import FileFormat, ManifestFile
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import LongType, StringType

from aurum_orchestration.errors import (
    AurumError,
    CorruptTableError,
    StateDriftedError,
    TableNotFoundError,
    UnsupportedError,
)
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.backends.iceberg.compact import handler
from aurum_orchestration.maintenance.executor import MaintenanceExecutor
from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, RunContext
from aurum_orchestration.maintenance.operations.compaction import CompactionOperation
from aurum_orchestration_tests.integration.iceberg.claims import edit_metadata
from aurum_orchestration_tests.integration.iceberg.support import (
    add_data_files,
    append_files,
    append_numbers,
    by_duckdb,
    carry_out,
    data_paths,
    described,
    fields,
    files_under,
    make_table,
    open_plan,
    parameters,
    plan_of,
    stored_files,
    typed,
    write_file,
)

NUMBERS = fields(id=LongType(), region=StringType())


@pytest.fixture
def table(catalog: SqlCatalog) -> Table:
    """Four small files."""
    made = make_table(catalog, NUMBERS)
    append_numbers(made, region="N")
    return made


@pytest.fixture
def backend(catalog: SqlCatalog, tmp_path: Path) -> IcebergMaintenanceBackend:
    return IcebergMaintenanceBackend({"catalog": catalog.properties | {"type": "sql"}}, name="lake")


# --- refusals


def odd_files(**changes: Any) -> Callable[[Table], None]:
    """Two more files whose description is changed."""

    def change(table: Table) -> None:
        paths = [write_file(table, typed(table, {"id": [1], "region": ["N"]})) for _ in range(2)]
        add_data_files(table, [described(table, path, **changes) for path in paths])

    return change


def another_spec(table: Table) -> None:
    with table.update_spec() as update:
        update.add_field("region", IdentityTransform(), "region")


def version_3(table: Table) -> None:
    def upgrade(metadata: dict[str, Any]) -> None:
        metadata.update({"format-version": 3, "next-row-id": 0})

    assert isinstance(table.catalog, SqlCatalog)
    edit_metadata(table.catalog, table, upgrade)


def listed_twice(table: Table) -> None:
    append_files(table, [f"file://{data_paths(table)[0]}"])


_REFUSED = {
    "encrypted files": (odd_files(key_metadata=b"key"), "2 of the data files to be rewritten are encrypted"),
    "a file twice": (listed_twice, "1 of the data files to be rewritten are listed twice"),
    "version 3": (version_3, "format version 3 needs row lineage"),
}


@pytest.mark.parametrize(("change", "reason"), [pytest.param(*case, id=name) for name, case in _REFUSED.items()])
def test_refused_with_the_reason(table: Table, change: Callable[[Table], None], reason: str) -> None:
    change(table)
    before = stored_files(table)
    with pytest.raises(UnsupportedError, match=reason):
        plan_of(table)
    assert stored_files(table) == before


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"write.format.default": "orc"}, "the table writes ORC"),
        ({"write.format.default": "avro"}, "the table writes AVRO"),
        ({"encryption.key-id": "k"}, "the table is encrypted"),
    ],
)
def test_refused_by_its_properties(table: Table, properties: dict[str, str], reason: str) -> None:
    with table.transaction() as transaction:
        transaction.set_properties(properties)
    with pytest.raises(UnsupportedError, match=reason):
        plan_of(table)


@pytest.mark.parametrize("other", [FileFormat.ORC, FileFormat.AVRO], ids=lambda one: one.value)
def test_files_of_other_formats_are_left_beside_parquet_files(
    catalog: SqlCatalog, table: Table, other: FileFormat
) -> None:
    odd_files(file_format=other)(table)
    plan = plan_of(table)
    assert {path for step in plan.steps for path in step.detail["files"]} < set(data_paths_as_recorded(table))
    (warning,) = plan.warnings
    assert warning.startswith(f"2 {other.value} data files are left as they are")
    alone = make_table(catalog, NUMBERS, name="ns.alone")
    odd_files(file_format=other)(alone)
    with pytest.raises(UnsupportedError, match=f"2 {other.value} data files are among those to be rewritten"):
        plan_of(alone)


def data_paths_as_recorded(table: Table) -> list[str]:
    """Locations of the live data files."""
    return [f"file://{path}" for path in data_paths(table.catalog.load_table(table.name()))]


def test_files_of_an_old_spec_do_not_stand_in_the_way_when_they_are_not_chosen(table: Table) -> None:
    another_spec(table)
    table.refresh()
    for _ in range(2):
        table.append(typed(table, {"id": [1, 2], "region": ["N", "N"]}))
    plan = plan_of(table, partition_filter="region = 'N'")
    assert [step.detail["partition"] for step in plan.steps] == ["region=N"]
    before = by_duckdb(table)
    carry_out(open_plan(plan, table))
    table.refresh()
    assert by_duckdb(table) == before
    assert len(data_paths(table)) == 5


def test_nothing_to_do_is_no_refusal(catalog: SqlCatalog) -> None:
    empty = make_table(catalog, NUMBERS)
    plan = plan_of(empty)
    assert (plan.steps, plan.fingerprint["snapshot_id"]) == ([], None)
    assert plan.reason.startswith("nothing to do")


# --- dry


async def test_a_dry_run_writes_nothing(table: Table, backend: IcebergMaintenanceBackend, tmp_path: Path) -> None:
    before = files_under(tmp_path)
    dumped = (tmp_path / "catalog.db").read_bytes()
    result = await MaintenanceExecutor().execute(
        backend,
        CompactionOperation(),
        MaintenanceConfig(
            operation_type="compaction", target_table="ns.t", dry_run=True, parameters={"min_input_files": 2}
        ),
    )
    assert result.status == "planned"
    assert result.steps is not None
    assert result.steps[0].detail["files_out"] == 1
    assert len(result.steps[0].detail["files"]) == 4
    assert files_under(tmp_path) == before
    assert (tmp_path / "catalog.db").read_bytes() == dumped
    await backend.disconnect()


async def test_what_is_planned_is_what_is_done(table: Table, backend: IcebergMaintenanceBackend) -> None:
    plan = backend.plan(TableId("lake", ("ns", "t")), "compaction", parameters())
    assert plan.plan_id == plan_of(table).plan_id
    tally = carry_out(backend.open(plan, RunContext("operation-1")))
    assert [step.model_dump() for step in tally.steps] == [step.model_dump() for step in plan.steps]
    assert tally.metrics["files_rewritten"] == len(plan.steps[0].detail["files"])
    assert tally.metrics["bytes_rewritten"] == plan.steps[0].detail["bytes"]
    assert tally.metrics["rows_rewritten"] == plan.steps[0].detail["rows"]
    await backend.disconnect()


# --- drift


def remove_a_file(table: Table) -> None:
    table.refresh()
    table.delete("id < 10")  # a whole file


def add_a_column(table: Table) -> None:
    with table.update_schema() as update:
        update.add_column("n", LongType())


def create_anew(table: Table) -> None:
    table.catalog.drop_table(table.name())
    append_numbers(make_table(table.catalog, NUMBERS), region="N")


def drop(table: Table) -> None:
    table.catalog.drop_table(table.name())


def take_back(table: Table) -> None:
    with table.manage_snapshots() as manage:
        manage.create_branch(table.metadata.snapshots[0].snapshot_id, "main")


_DRIFTED: dict[str, tuple[Callable[[Table], None], type[AurumError], str]] = {
    "file removed": (remove_a_file, StateDriftedError, "1 of 4 planned files are gone at snapshot .*parquet"),
    "schema changed": (add_a_column, StateDriftedError, "schema_id is 1 now, 0 when planned"),
    "spec changed": (another_spec, StateDriftedError, "spec_id is 1 now, 0 when planned"),
    "created anew": (create_anew, StateDriftedError, "table_uuid is .* now, .* when planned"),
    "dropped": (drop, TableNotFoundError, "Table does not exist: ns.t"),
}


@pytest.mark.parametrize(
    ("change", "error", "reason"), [pytest.param(*case, id=name) for name, case in _DRIFTED.items()]
)
def test_a_table_that_no_longer_fits_the_plan(
    table: Table,
    backend: IcebergMaintenanceBackend,
    change: Callable[[Table], None],
    error: type[AurumError],
    reason: str,
) -> None:
    plan = plan_of(table)
    change(table)
    before = files_under(Path(table.location().removeprefix("file://")))
    with pytest.raises(error, match=reason):
        carry_out(backend.open(plan, RunContext("operation-1")))
    assert files_under(Path(table.location().removeprefix("file://"))) == before


def test_appends_since_the_plan_are_no_drift(table: Table) -> None:
    plan = plan_of(table)
    append_numbers(table, files=2, rows=3, region="S")
    before = by_duckdb(table)
    carry_out(open_plan(plan, table))
    table.refresh()
    assert by_duckdb(table) == before
    assert len(data_paths(table)) == 3


def test_main_taken_back_since_the_plan(table: Table) -> None:
    append_numbers(table, files=2, region="S")
    plan = plan_of(table)
    take_back(table)
    with pytest.raises(StateDriftedError, match="2 of 6 planned files are gone"):
        carry_out(open_plan(plan, table))


def test_a_table_whose_manifest_is_missing_says_which(table: Table) -> None:
    snapshot = table.current_snapshot()
    assert snapshot is not None
    (manifest,) = snapshot.manifests(table.io)
    Path(manifest.manifest_path.removeprefix("file://")).unlink()
    with pytest.raises(CorruptTableError, match=f"manifest .*{Path(manifest.manifest_path).name} is missing"):
        plan_of(table)


# --- reading


@pytest.fixture
def manifests_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the manifests that are decoded from now on."""
    paths: list[str] = []
    fetch = ManifestFile.fetch_manifest_entry

    def noted(self: ManifestFile, *args: Any, **options: Any) -> Any:
        paths.append(self.manifest_path)
        return fetch(self, *args, **options)

    monkeypatch.setattr(ManifestFile, "fetch_manifest_entry", noted)
    return paths


def test_what_planning_read_is_not_read_again_while_the_table_is_unchanged(
    table: Table, manifests_read: list[str]
) -> None:
    before = by_duckdb(table)
    manifests_read.clear()
    plan = plan_of(table)
    planned = len(manifests_read)
    assert planned > 0
    carry_out(open_plan(plan, table))
    assert len(manifests_read) == planned
    assert by_duckdb(table.refresh()) == before


def test_a_table_that_changed_is_read_anew(table: Table, manifests_read: list[str]) -> None:
    plan = plan_of(table)
    append_numbers(table, files=1, region="S")
    before = by_duckdb(table)
    manifests_read.clear()
    execution = open_plan(plan, table)
    assert len(manifests_read) == 2
    carry_out(execution)
    assert by_duckdb(table.refresh()) == before


def test_what_was_read_goes_with_its_plan(table: Table) -> None:
    plans = [plan_of(table) for _ in range(4)]
    assert len(handler._read) <= 2
    del plans
    assert not handler._read
