"""Compaction beside other writers and catalogs that fail: nothing of theirs is lost, nothing of ours is left."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.table import Table
from pyiceberg.table.update.validate import _validate_no_new_deletes_for_data_files
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import LongType, StringType
from sqlalchemy.exc import OperationalError

from aurum_orchestration.errors import (
    AurumError,
    BackendUnavailableError,
    CommitConflictError,
    CommitStateUnknownError,
    TableNotFoundError,
)
from aurum_orchestration.history import History
from aurum_orchestration.maintenance.backends.iceberg import publish
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.executor import MaintenanceExecutor
from aurum_orchestration.maintenance.flow import Tally
from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, MaintenancePlan, RunContext, Unit
from aurum_orchestration.maintenance.operations.compaction import CompactionOperation
from aurum_orchestration_tests.iceberg_deletes import add_position_deletes, live_data_files
from aurum_orchestration_tests.integration.iceberg.claims import edit_metadata
from aurum_orchestration_tests.integration.iceberg.support import (
    Interfering,
    Rows,
    append_numbers,
    bag,
    by_duckdb,
    by_scan,
    carry_out,
    data_paths,
    fields,
    left_behind,
    make_table,
    open_plan,
    operations_since,
    plan_of,
    spec_of,
    typed,
)

NUMBERS = fields(id=LongType(), region=StringType())
OURS = range(50)  # five files of ten rows


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FIRST_WAIT", "_LONGEST_WAIT", "_SETTLING"):
        monkeypatch.setattr(publish, name, 0.0)
    monkeypatch.setattr(publish, "_READ_BACK_WAITS", (0.0, 0.0))


@pytest.fixture
def table(catalog: SqlCatalog) -> Table:
    made = make_table(catalog, NUMBERS, spec=spec_of((2, IdentityTransform(), "region")))
    append_numbers(made, files=5, region="N")
    return made


def rows(table: Table, *more: dict[str, Any], without: set[int] = frozenset()) -> Rows:  # type: ignore[assignment]
    ours = [{"id": number, "region": "N"} for number in OURS if number not in without]
    return bag(typed(table, [*ours, *more]))


def other(table: Table) -> Table:
    """The table as somebody else has it open."""
    return table.catalog.load_table(table.name())


def interfere(table: Table, change: Callable[[Table], object], **parameters: Any) -> Tally:
    """Compact while ``change`` is committed by somebody else between staging and our first commit."""
    done: list[object] = []

    def once(_: Unit) -> None:
        if not done:
            done.append(change(other(table)))

    tally = carry_out(Interfering(open_plan(plan_of(table, **parameters), table), once))
    table.refresh()
    return tally


# --- other writers


def test_a_concurrent_append_survives(table: Table) -> None:
    known = list(table.metadata.snapshots)
    new = {"id": 500, "region": "N"}
    tally = interfere(table, lambda theirs: theirs.append(typed(theirs, [new])))
    assert tally.metrics["commit_retries"] == 1
    assert by_duckdb(table) == by_scan(table) == rows(table, new)
    assert operations_since(table, known) == ["append", "replace"]
    assert len(data_paths(table)) == 2
    assert left_behind(table) == set()


def test_many_concurrent_appends_survive(table: Table) -> None:
    def append_five(theirs: Table) -> None:
        for number in range(5):
            theirs.append(typed(theirs, [{"id": 500 + number, "region": "S"}]))

    interfere(table, append_five)
    assert by_scan(table) == rows(table, *({"id": 500 + number, "region": "S"} for number in range(5)))
    assert left_behind(table) == set()


@pytest.mark.parametrize("condition", ["id < 10", "id < 15", "id >= 0"], ids=["a file", "a file and a half", "all"])
def test_a_concurrent_delete_by_pyiceberg_wins(table: Table, condition: str) -> None:
    before: list[Rows] = []

    def delete(theirs: Table) -> None:
        theirs.delete(condition)
        before.append(by_scan(other(table)))

    with pytest.raises(
        CommitConflictError, match=r"of 5 files were removed by another commit meanwhile, e\.g\. .*parquet"
    ):
        interfere(table, delete)
    table.refresh()
    assert [by_scan(table)] == before
    assert left_behind(table) == set()


def test_a_concurrent_delete_of_another_partition_is_no_conflict(table: Table) -> None:
    append_numbers(table, files=2, region="S")
    interfere(table, lambda theirs: theirs.delete("region = 'S'"), partition_filter="region = 'N'")
    assert by_scan(table) == rows(table)
    assert len(data_paths(table)) == 1
    assert left_behind(table) == set()


def delete_then_append(theirs: Table) -> None:
    """Five rows of a file that is being rewritten, then any append."""
    add_position_deletes(theirs, {live_data_files(theirs)[0].file_path: range(5)})
    theirs.append(typed(theirs, [{"id": 500, "region": "S"}]))


def test_pyicebergs_own_check_misses_a_delete_that_an_append_follows(table: Table) -> None:
    """Why this engine does not use it: compare with the next test."""
    base, replaced = table.current_snapshot(), set(live_data_files(table))
    assert base is not None
    theirs = other(table)
    add_position_deletes(theirs, {live_data_files(theirs)[0].file_path: range(5)})

    def stock_check() -> None:
        head = theirs.refresh().current_snapshot()
        assert head is not None
        _validate_no_new_deletes_for_data_files(theirs, head, AlwaysTrue(), replaced, base)

    with pytest.raises(Exception, match="found new delete for replace data file"):
        stock_check()
    theirs.append(typed(theirs, [{"id": 500, "region": "S"}]))
    stock_check()  # passes: a commit after it would bring the five rows back


def test_a_concurrent_row_delete_that_an_append_follows_is_a_conflict(table: Table) -> None:
    with pytest.raises(CommitConflictError, match="deleted rows from files that were being rewritten"):
        interfere(table, delete_then_append)
    table.refresh()
    assert by_scan(table).total() == 46
    assert left_behind(table) == set()


def test_a_concurrent_row_delete_elsewhere_is_no_conflict(table: Table) -> None:
    append_numbers(table, files=2, region="S")

    def delete_south(theirs: Table) -> None:
        south = next(file.file_path for file in live_data_files(theirs) if file.partition[0] == "S")
        add_position_deletes(theirs, {south: [0, 1, 2]})

    interfere(table, delete_south, partition_filter="region = 'N'")
    assert by_scan(table).total() == 67
    assert len(data_paths(table)) == 3


def take_main_back(theirs: Table) -> None:
    with theirs.manage_snapshots() as manage:
        manage.create_branch(theirs.metadata.snapshots[0].snapshot_id, "main")


def test_the_base_rolled_back_is_a_conflict(table: Table) -> None:
    append_numbers(table, files=2, region="N")
    with pytest.raises(CommitConflictError, match="is no ancestor of the head any more"):
        interfere(table, take_main_back)
    table.refresh()
    assert by_scan(table) == rows(table)
    assert left_behind(table) == set()


def test_the_base_expired_is_a_conflict_too(table: Table) -> None:
    def append_and_expire(theirs: Table) -> None:
        base = theirs.current_snapshot()
        assert base is not None
        theirs.append(typed(theirs, [{"id": 500, "region": "S"}]))
        theirs.maintenance.expire_snapshots().by_id(base.snapshot_id).commit()

    with pytest.raises(CommitConflictError, match="is no ancestor of the head any more: rolled back or expired"):
        interfere(table, append_and_expire)
    assert by_scan(other(table)).total() == 51


def test_dropped_meanwhile(table: Table) -> None:
    location = Path(table.location().removeprefix("file://"))
    with pytest.raises(TableNotFoundError, match="dropped during the operation"):
        interfere(table, lambda theirs: theirs.catalog.drop_table(theirs.name()))
    left = {path.name for path in location.rglob("*") if path.is_file()}
    assert sum(name.endswith(".parquet") for name in left) == 5
    assert sum(name.endswith(".avro") for name in left) == 2


def test_dropped_and_created_anew_meanwhile(table: Table) -> None:
    def anew(theirs: Table) -> None:
        theirs.catalog.drop_table(theirs.name())
        append_numbers(make_table(theirs.catalog, NUMBERS, spec=table.spec()), files=2, region="S")

    with pytest.raises(TableNotFoundError, match="created anew during the operation"):
        interfere(table, anew)
    assert by_scan(other(table)).total() == 20


def upgrade_to_3(theirs: Table) -> None:
    assert isinstance(theirs.catalog, SqlCatalog)
    edit_metadata(theirs.catalog, theirs, lambda metadata: metadata.update({"format-version": 3, "next-row-id": 0}))


@pytest.mark.parametrize("refused", [0, 1], ids=["found by the catalog", "found on reading back"])
def test_upgraded_to_a_format_that_needs_row_lineage_meanwhile(table: Table, faults: list[Fault], refused: int) -> None:
    faults += [refuse] * refused
    with pytest.raises(
        (CommitConflictError, BackendUnavailableError), match=r"format version 3|first row id"
    ) as caught:
        interfere(table, upgrade_to_3)
    assert caught.value.transient  # planned again, it is refused with the reason
    table.refresh()
    assert by_scan(table) == rows(table)
    assert {Path(name).suffixes[-2:] == [".metadata", ".json"] for name in left_behind(table)} <= {True}


def test_the_schema_evolves_between_two_groups(table: Table) -> None:
    append_numbers(table, files=4, region="S")

    def evolve(theirs: Table) -> None:
        with theirs.update_schema() as update:
            update.rename_column("id", "number")
            update.add_column("note", StringType())

    tally = interfere(table, evolve)
    assert tally.metrics["groups"] == 2
    assert by_scan(table).total() == 90
    for file in live_data_files(table):
        assert file.value_counts == {1: file.record_count, 2: file.record_count}
        assert file.lower_bounds[1] == bytes(8)
    table.append(typed(table, [{"number": 1, "region": "N", "note": "x"}]))
    assert set(table.scan().to_arrow().column_names) == {"number", "region", "note"}


def test_two_compactions_of_one_plan(table: Table) -> None:
    plan = plan_of(table)
    first, second = open_plan(plan, table), open_plan(plan, table)
    carry_out(first)
    with pytest.raises(CommitConflictError, match="5 of 5 files were removed by another commit"):
        carry_out(second)
    table.refresh()
    assert by_scan(table) == rows(table)
    assert left_behind(table) == set()


# --- through the whole flow


class InterferedBackend(IcebergMaintenanceBackend):
    """A backend beside which somebody commits ``change`` at the first commit."""

    def __init__(self, catalog: SqlCatalog, change: Callable[[Table], object]) -> None:
        super().__init__({"catalog": {**catalog.properties, "type": "sql"}}, name="lake")
        self._change: Callable[[Table], object] | None = change

    def open(self, plan: MaintenancePlan, run: RunContext) -> Any:
        return Interfering(super().open(plan, run), self._once)  # type: ignore[arg-type]

    def _once(self, _: Unit) -> None:
        change, self._change = self._change, None
        if change is not None:
            change(self.catalog.load_table(("ns", "t")))


async def run_beside(catalog: SqlCatalog, change: Callable[[Table], object], home: Path, **parameters: Any) -> Any:
    backend = InterferedBackend(catalog, change)
    executor = MaintenanceExecutor(History(f"sqlite:///{home}/history.db"), pause=0.01, longest_pause=0.01)
    try:
        return await executor.execute(
            backend,
            CompactionOperation(),
            MaintenanceConfig(operation_type="compaction", target_table="lake.ns.t", parameters=parameters),
        )
    finally:
        await backend.disconnect()


async def test_the_flow_plans_again_after_a_conflict_and_deleted_rows_stay_deleted(
    catalog: SqlCatalog, table: Table, tmp_path: Path
) -> None:
    result = await run_beside(catalog, delete_then_append, tmp_path)
    assert (result.status, result.metrics["conflicts_retried"]) == ("completed", 1)
    assert result.verification.ok
    assert result.verification.rows_before == result.verification.rows_after == 45
    table.refresh()
    assert by_scan(table).total() == 46
    assert len(data_paths(table)) == 2
    assert left_behind(table) == set()


async def test_the_flow_plans_again_what_a_deletion_left(catalog: SqlCatalog, table: Table, tmp_path: Path) -> None:
    result = await run_beside(catalog, lambda theirs: theirs.delete("id < 30"), tmp_path, min_input_files=2)
    assert (result.status, result.metrics["conflicts_retried"]) == ("completed", 1)
    assert result.metrics["files_rewritten"] == 5 - 3
    table.refresh()
    assert by_duckdb(table) == rows(table, without=set(range(30)))
    assert left_behind(table) == set()


# --- catalogs that fail


Commit = Callable[..., Any]
Fault = Callable[[Commit, tuple[Any, ...]], Any]


def refuse(_: Commit, __: tuple[Any, ...]) -> Any:
    raise CommitFailedException("another writer was faster")


def land_and_refuse(commit: Commit, arguments: tuple[Any, ...]) -> Any:
    """As a client does that sends a request again whose answer got lost."""
    commit(*arguments)
    raise CommitFailedException("the snapshot is not the head any more")


def land_and_break(commit: Commit, arguments: tuple[Any, ...]) -> Any:
    commit(*arguments)
    raise OperationalError("UPDATE", {}, sqlite3.OperationalError("connection lost"))


def break_down(_: Commit, __: tuple[Any, ...]) -> Any:
    raise OperationalError("UPDATE", {}, sqlite3.OperationalError("database is locked"))


def time_out(_: Commit, __: tuple[Any, ...]) -> Any:
    raise CommitStateUnknownException("504 Gateway Timeout")


@pytest.fixture
def faults(catalog: SqlCatalog, table: Table) -> Iterator[list[Fault]]:
    """What happens at the next commits, in turn; real ones when empty."""
    waiting: list[Fault] = []
    commit = catalog.commit_table

    def faulty(*arguments: Any) -> Any:
        return waiting.pop(0)(commit, arguments) if waiting else commit(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "commit_table", faulty)
        yield waiting


@pytest.mark.parametrize("times", [1, 3])
def test_refused_a_few_times(table: Table, faults: list[Fault], times: int) -> None:
    known = list(table.metadata.snapshots)
    faults += [refuse] * times
    tally = carry_out(open_plan(plan_of(table), table))
    assert tally.metrics["commit_retries"] == times
    table.refresh()
    assert operations_since(table, known) == ["replace"]
    assert by_scan(table) == rows(table)
    assert left_behind(table) == set()


def test_refused_too_often(table: Table, faults: list[Fault]) -> None:
    faults += [refuse] * 100
    with pytest.raises(CommitConflictError, match="20 commits in a row"):
        carry_out(open_plan(plan_of(table), table))
    assert left_behind(table) == set()
    assert len(data_paths(other(table))) == 5


@pytest.mark.parametrize("fault", [land_and_refuse, land_and_break])
def test_landed_although_the_catalog_failed(table: Table, faults: list[Fault], fault: Fault) -> None:
    known = list(table.metadata.snapshots)
    faults.append(fault)
    tally = carry_out(open_plan(plan_of(table), table))
    assert tally.metrics["groups"] == 1
    table.refresh()
    assert operations_since(table, known) == ["replace"]
    assert by_duckdb(table) == by_scan(table) == rows(table)
    assert left_behind(table) == set()


def test_landed_and_somebody_committed_since(table: Table, faults: list[Fault]) -> None:
    def land_then_another(commit: Commit, arguments: tuple[Any, ...]) -> Any:
        commit(*arguments)
        theirs = other(table)
        theirs.append(typed(theirs, [{"id": 500, "region": "S"}]))
        raise ConnectionError("connection lost")

    faults.append(land_then_another)
    tally = carry_out(open_plan(plan_of(table), table))
    assert tally.metrics["files_added"] == 1
    table.refresh()
    assert by_scan(table) == rows(table, {"id": 500, "region": "S"})
    assert left_behind(table) == set()


def test_not_landed(table: Table, faults: list[Fault]) -> None:
    faults.append(break_down)
    with pytest.raises(BackendUnavailableError, match=r"the catalog did not take the commit: .*database is locked"):
        carry_out(open_plan(plan_of(table), table))
    assert left_behind(table) == set()
    assert by_scan(other(table)) == rows(table)


@pytest.mark.parametrize("fault", [land_and_break, break_down], ids=["landed", "not landed"])
def test_down_on_reading_back(
    catalog: SqlCatalog, table: Table, faults: list[Fault], fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows, so nothing is deleted: not the files, not the manifests."""

    def then_down(commit: Commit, arguments: tuple[Any, ...]) -> Any:
        try:
            return fault(commit, arguments)
        finally:
            monkeypatch.setattr(catalog, "load_table", _down)

    faults.append(then_down)
    execution = open_plan(plan_of(table), table)
    with pytest.raises(CommitStateUnknownError, match="may or may not have taken place"):
        carry_out(execution)
    monkeypatch.undo()
    table.refresh()
    assert by_duckdb(table) == by_scan(table) == rows(table)
    if fault is land_and_break:
        assert len(data_paths(table)) == 1
        assert left_behind(table) == set()
    else:
        left = left_behind(table)
        assert sum(name.endswith(".parquet") for name in left) == 1
        assert sum(name.endswith(".avro") for name in left) == 3


def _down(*_: Any) -> Any:
    raise OperationalError("SELECT", {}, sqlite3.OperationalError("unable to open database file"))


def test_an_answer_that_did_not_come_may_come_later(table: Table, faults: list[Fault]) -> None:
    """A gateway's timeout: the request may still be under way, so that what it needs has to stay."""
    late: list[tuple[Commit, tuple[Any, ...]]] = []

    def send(commit: Commit, arguments: tuple[Any, ...]) -> Any:
        late.append((commit, arguments))
        return time_out(commit, arguments)

    faults.append(send)
    with pytest.raises(CommitStateUnknownError, match="504 Gateway Timeout"):
        carry_out(open_plan(plan_of(table), table))
    assert len(data_paths(other(table))) == 5
    ((commit, arguments),) = late
    commit(*arguments)
    table.refresh()
    assert len(data_paths(table)) == 1
    assert by_duckdb(table) == by_scan(table) == rows(table)
    assert left_behind(table) == set()


@pytest.mark.parametrize("error", [CommitConflictError, BackendUnavailableError, CommitStateUnknownError])
def test_what_may_be_tried_again_says_so(error: type[AurumError]) -> None:
    assert error.transient
