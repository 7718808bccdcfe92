"""Expiry beside other writers, with a catalog that answers late or not at all, and on broken or stubborn storage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from aurum_orchestration.errors import (
    BackendUnavailableError,
    CommitStateUnknownError,
    CorruptTableError,
    StateDriftedError,
    VerificationError,
)
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.files import Files
from aurum_orchestration.maintenance.backends.iceberg.reachability import References
from aurum_orchestration.maintenance.backends.iceberg.retention import expire, handler, lost_refs
from aurum_orchestration.maintenance.backends.iceberg.retention.unreachable import Unreachable, still_unreachable
from aurum_orchestration.maintenance.flow import Tally, run_units
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, RunContext
from aurum_orchestration.maintenance.operations.retention import RetentionParameters
from aurum_orchestration.maintenance.stopping import StopSignal
from aurum_orchestration_tests.iceberg_deletes import live_data_files
from aurum_orchestration_tests.integration.cleanup.judges import NOW, local, on_disk, reachable, snapshot_rows
from aurum_orchestration_tests.integration.upkeep.lakeside import Lakeside, append, contents, rows

Commit = Callable[..., Any]


def plan_of(table: Table, retain_last: int = 1) -> MaintenancePlan:
    parameters = RetentionParameters(retain_last=retain_last, **NOW)
    return handler.plan(table.catalog.load_table(table.name()), TableId("lake", table.name()), parameters)


def carry_out(plan: MaintenancePlan, table: Table, run: RunContext | None = None) -> Tally:
    tally = Tally()
    execution = handler.execution(plan, table.catalog.load_table(table.name()))
    run_units(execution, run or RunContext("op"), tally, StopSignal(), lambda: None)
    return tally


def someone_else(lake: Lakeside) -> Table:
    """The table as another process would load it."""
    return lake.catalog.load_table("ns.t")


@pytest.fixture
def table(lake: Lakeside) -> Table:
    """Four appends, each a file and a manifest; the second is then deleted, so that its file can go."""
    table = lake.table()
    append(table, 3)
    table.overwrite(rows(table, 900))
    return table


def tag(lake: Lakeside, number: int, name: str = "late") -> int:
    other = someone_else(lake)
    snapshot_id = other.metadata.snapshots[number].snapshot_id
    other.manage_snapshots().create_tag(snapshot_id, name).commit()
    return snapshot_id


def before_commit(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """Let ``act`` happen once, after the expiry was decided and right before the catalog takes it."""
    real: Commit = SqlCatalog.commit_table
    waiting = [act]

    def commit(self: SqlCatalog, *given: Any) -> Any:
        if waiting:
            waiting.pop()()
        return real(self, *given)

    monkeypatch.setattr(SqlCatalog, "commit_table", commit)


def test_an_append_between_plan_and_commit_is_kept(
    lake: Lakeside, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(table)
    someone_else(lake).append(rows(table, 7000))
    before_commit(monkeypatch, lambda: someone_else(lake).append(rows(table, 8000)))
    tally = carry_out(plan, table)
    assert tally.metrics["commit_retries"] == 1
    assert len(table.refresh().metadata.snapshots) == 3, "the planned ones went, not those that came since"
    assert on_disk(table) == reachable(table)
    assert len(contents(table)) == 30


def test_a_tag_made_after_the_plan_keeps_its_snapshot(lake: Lakeside, table: Table) -> None:
    plan, before = plan_of(table), snapshot_rows(table)
    tagged = tag(lake, 1)
    with pytest.raises(StateDriftedError, match="now held by late"):
        carry_out(plan, table)
    assert snapshot_rows(table.refresh()) == before
    done = lake.run("retention", retain_last=1, **NOW)
    assert (done.status, done.metrics["snapshots_expired"]) == ("completed", len(before) - 2)
    assert snapshot_rows(table.refresh())[tagged] == before[tagged]


def test_a_tag_made_in_the_middle_of_the_commit_keeps_its_snapshot(
    lake: Lakeside, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, before, stored = plan_of(table), snapshot_rows(table), on_disk(table)
    before_commit(monkeypatch, lambda: tag(lake, 1))
    with pytest.raises(StateDriftedError, match="now held by late"):
        carry_out(plan, table)
    assert "late" in table.refresh().metadata.refs
    assert snapshot_rows(table) == before
    assert on_disk(table) == stored


def test_the_service_plans_anew_when_a_tag_comes_in_between(
    lake: Lakeside, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    tagged: list[int] = []
    before_commit(monkeypatch, lambda: tagged.append(tag(lake, 1)))
    done = lake.run("retention", retain_last=1, **NOW)
    assert (done.status, done.metrics["conflicts_retried"]) == ("completed", 1)
    assert {snapshot.snapshot_id for snapshot in table.refresh().metadata.snapshots} == {
        *tagged,
        table.metadata.current_snapshot_id,
    }
    assert on_disk(table) == reachable(table)


@pytest.fixture
def _unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a REST catalog: no requirement of ours is checked with the commit."""
    nothing = type("NoSuchCatalog", (), {})
    monkeypatch.setattr(expire, "MetastoreCatalog", nothing)
    monkeypatch.setattr(lost_refs, "MetastoreCatalog", nothing)


@pytest.mark.usefixtures("_unguarded")
def test_where_no_requirement_can_forbid_it_a_lost_tag_comes_back_and_no_file_goes(
    lake: Lakeside, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, before, stored = plan_of(table), snapshot_rows(table), on_disk(table)
    (newest,) = {snapshot.sequence_number for snapshot in table.metadata.snapshots[-1:]}
    tagged: list[int] = []
    before_commit(monkeypatch, lambda: tagged.append(tag(lake, 1)))
    tally = carry_out(plan, table)
    (warning,) = tally.warnings
    assert "NOTHING WAS DELETED" in warning
    assert f"late (snapshot {tagged[0]})" in warning
    assert tally.metrics["files_deleted"] == 0
    table.refresh()
    assert stored <= on_disk(table)
    back = table.metadata.refs["late"].snapshot_id
    assert snapshot_rows(table)[back] == before[tagged[0]]
    assert newest is not None
    assert table.metadata.next_sequence_number() == newest + 2
    append(table, 1, start=5000)
    assert len(contents(table)) == 20


@pytest.mark.usefixtures("_unguarded")
def test_a_lost_tag_that_cannot_come_back_is_an_error_that_is_not_tried_again(
    lake: Lakeside, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, stored = plan_of(table), on_disk(table)
    before_commit(monkeypatch, lambda: tag(lake, 1))

    def refuse(*_: Any) -> None:
        raise CorruptTableError("no")

    monkeypatch.setattr(lost_refs, "commit_updates", refuse)
    with pytest.raises(VerificationError, match="late on snapshot") as raised:
        carry_out(plan, table)
    assert not raised.value.transient
    assert stored <= on_disk(table)


@pytest.mark.usefixtures("_unguarded")
def test_without_the_metadata_before_nothing_is_deleted(
    lake: Lakeside, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, stored = plan_of(table), on_disk(table)
    before_commit(monkeypatch, lambda: Path(local(table.metadata_location)).unlink())
    real = SqlCatalog.load_table

    def load(self: SqlCatalog, name: Any) -> Table:
        try:
            return real(self, name)
        except FileNotFoundError:
            return table  # a catalog that keeps no metadata files

    monkeypatch.setattr(SqlCatalog, "load_table", load)
    tally = carry_out(plan, table)
    assert [warning.startswith("nothing was deleted") for warning in tally.warnings] == [True]
    assert stored <= on_disk(table)


# --- the catalog's answer is lost


def test_a_commit_whose_answer_is_lost_is_read_back_and_finished(
    lake: Lakeside, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(table)
    real: Commit = SqlCatalog.commit_table

    def commit(self: SqlCatalog, *given: Any) -> Any:
        real(self, *given)
        raise TimeoutError("no answer")

    monkeypatch.setattr(SqlCatalog, "commit_table", commit)
    tally = carry_out(plan, table)
    assert tally.metrics["snapshots_expired"] > 0
    assert on_disk(table.refresh()) == reachable(table)


def test_a_commit_that_did_not_take_place_deletes_nothing(
    lake: Lakeside, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, before, stored = plan_of(table), snapshot_rows(table), on_disk(table)

    def commit(self: SqlCatalog, *given: Any) -> Any:
        raise ConnectionError("gone")

    monkeypatch.setattr(SqlCatalog, "commit_table", commit)
    with pytest.raises(BackendUnavailableError, match="did not take the commit"):
        carry_out(plan, table)
    assert on_disk(table) == stored
    assert snapshot_rows(table.refresh()) == before


def test_when_even_reading_back_fails_nothing_is_deleted(
    lake: Lakeside, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, stored = plan_of(table), on_disk(table)
    real: Commit = SqlCatalog.commit_table
    execution = handler.execution(plan, table.catalog.load_table(table.name()))

    def down(*_: Any) -> Any:
        raise ConnectionError("gone")

    def commit(self: SqlCatalog, *given: Any) -> Any:
        real(self, *given)
        monkeypatch.setattr(SqlCatalog, "load_table", down)
        raise TimeoutError("no answer")

    monkeypatch.setattr(SqlCatalog, "commit_table", commit)
    monkeypatch.setattr("aurum_orchestration.maintenance.backends.iceberg.publish.time.sleep", lambda _: None)
    with pytest.raises(CommitStateUnknownError):
        run_units(execution, RunContext("op"), Tally(), StopSignal(), lambda: None)
    assert stored <= on_disk(table)


# --- broken files


@pytest.mark.parametrize("kind", ["list", "manifest"])
@pytest.mark.parametrize("which", [0, -1], ids=["of an expiring snapshot", "of a kept one"])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty"])
def test_what_cannot_be_read_is_a_typed_error_and_nothing_is_deleted(
    lake: Lakeside, table: Table, kind: str, which: int, damage: str
) -> None:
    snapshot = table.metadata.snapshots[which]
    victim = snapshot.manifest_list if kind == "list" else snapshot.manifests(table.io)[0].manifest_path
    path = Path(local(victim))
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else -20])
    stored, location = on_disk(table), table.metadata_location
    done = lake.run("retention", retain_last=1, **NOW)
    assert done.status == "failed"
    assert done.problem is not None
    assert done.problem.type == "corrupt-table"
    assert path.name in (done.problem.detail or "")
    assert on_disk(table) == stored
    assert table.refresh().metadata_location == location


def test_a_manifest_that_goes_bad_after_the_plan_means_no_deletion(
    lake: Lakeside, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(table)
    (manifest, *_) = table.metadata.snapshots[-1].manifests(table.io)
    before_commit(monkeypatch, lambda: Path(local(manifest.manifest_path)).write_bytes(b""))
    stored = on_disk(table)
    tally = carry_out(plan, table)
    assert tally.metrics["snapshots_expired"] > 0
    assert ["cannot be read" in warning for warning in tally.warnings] == [True]
    assert on_disk(table) == stored


def test_a_property_that_is_no_number_stops_the_expiry(lake: Lakeside, table: Table) -> None:
    name = "history.expire.max-snapshot-age-ms"
    table.transaction().set_properties({name: "a week"}).commit_transaction()
    done = lake.run("retention", retain_last=1, **NOW)
    assert done.status == "failed"
    assert name in (done.problem.detail or "" if done.problem else "")


def test_files_that_cannot_be_deleted_are_counted_and_the_rest_goes(lake: Lakeside, table: Table) -> None:
    first = table.metadata.snapshots[0].manifests(table.io)[0].fetch_manifest_entry(table.io)[0].data_file.file_path
    stubborn = Path(local(first))
    stubborn.unlink()
    stubborn.mkdir()  # what unlink refuses even to root
    done = lake.run("retention", retain_last=1, **NOW)
    assert (done.status, done.metrics["files_left"]) == ("completed", 1)
    (warning,) = done.warnings
    assert warning.startswith("1 file could not be deleted, the next vacuum removes what is left")
    assert stubborn.name in warning
    assert on_disk(table.refresh()) == reachable(table)


def test_files_that_are_gone_already_are_fine(lake: Lakeside, table: Table) -> None:
    plan = plan_of(table)
    (step,) = plan.steps
    for path in [*step.detail["data_files"], *step.detail["manifests"]]:
        Path(local(path)).unlink()
    tally = carry_out(plan, table)
    assert tally.warnings == []
    assert tally.metrics["files_deleted"] == len(step.detail["manifest_lists"])


def test_a_cancelled_run_keeps_what_it_committed_and_says_what_is_left(lake: Lakeside, table: Table) -> None:
    plan = plan_of(table)
    run = RunContext("op")
    monkey = handler.execution(plan, table.catalog.load_table(table.name()))
    (unit,) = monkey.units()
    unit.stage(run)
    run.cancelled.set()
    stored = on_disk(table)
    outcome = unit.commit(run)
    assert outcome.metrics["snapshots_expired"] > 0
    assert [warning.startswith("cancelled with") for warning in outcome.warnings] == [True]
    assert on_disk(table) == stored


def test_of_a_wrong_plan_only_what_nothing_refers_to_would_go(lake: Lakeside, table: Table) -> None:
    (step,) = plan_of(table).steps
    everything = {f"file:{path}": 1 for path in on_disk(table)}
    wrong = Unreachable(everything, everything, everything, everything)
    references = References(Files(table.io.properties, table.io))
    found = still_unreachable(wrong, table.metadata, references)
    live, lists = set(found.data_files), {local(s.manifest_list) for s in table.metadata.snapshots}
    assert {path.removeprefix("file:") for path in live}.isdisjoint(
        local(file.file_path) for file in live_data_files(table)
    )
    assert {path.removeprefix("file:") for path in found.manifest_lists}.isdisjoint(lists)
    manifests = {local(m.manifest_path) for s in table.metadata.snapshots for m in s.manifests(table.io)}
    assert {path.removeprefix("file:") for path in found.manifests}.isdisjoint(manifests)
    assert step.detail["files"] > 0
