"""What keeps vacuum from taking somebody else's file, and what it does where storage or metadata are broken."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.vacuum import handler, neighbours, places, remote_places
from aurum_orchestration.maintenance.flow import Tally, run_units
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, RunContext
from aurum_orchestration.maintenance.operations.vacuum import VacuumParameters
from aurum_orchestration.maintenance.stopping import StopSignal
from aurum_orchestration_tests.iceberg_deletes import live_data_files
from aurum_orchestration_tests.integration.cleanup.judges import (
    DAY,
    age,
    age_all,
    everything,
    local,
    names,
    plant,
    quarantined,
    rewrite_metadata,
    set_properties,
)
from aurum_orchestration_tests.integration.upkeep.lakeside import Lakeside, append, contents


@pytest.fixture
def table(lake: Lakeside) -> Table:
    """Two appends, a month old, and an orphan."""
    table = lake.table()
    append(table, 2)
    age_all(table)
    plant(table, "data/lost.parquet")
    return table


def plan_of(table: Table, **parameters: Any) -> MaintenancePlan:
    loaded = table.catalog.load_table(table.name())
    return handler.plan(loaded, TableId("lake", table.name()), VacuumParameters(**parameters))


def carry_out(made: MaintenancePlan, table: Table, run: RunContext | None = None) -> Tally:
    tally = Tally()
    execution = handler.execution(made, table.catalog.load_table(table.name()))
    run_units(execution, run or RunContext("op"), tally, StopSignal(), lambda: None)
    return tally


def refused(lake: Lakeside, table: Table, *said: str) -> None:
    """Vacuum is skipped with a reason that says all that, and nothing moves."""
    before = everything(table)
    done = lake.run("vacuum")
    assert done.status == "skipped"
    assert [text for text in said if text not in done.reason] == []
    assert everything(table) == before


# --- whose files are these?


@pytest.mark.parametrize(
    ("where", "properties"),
    [
        ("same", {}),
        ("below", {}),
        ("above", {}),
        ("elsewhere", {"write__data__path": "same"}),
        ("elsewhere", {"write__object_storage__path": "below"}),
        ("elsewhere", {"write__metadata__path": "same/metadata"}),
    ],
)
def test_a_table_that_shares_a_location_is_named(
    lake: Lakeside, table: Table, where: str, properties: dict[str, str]
) -> None:
    own = table.location()
    places = {
        "same": own,
        "below": f"{own}/inner",
        "above": own.rpartition("/")[0],
        "elsewhere": f"file://{lake.home}/x",
    }
    places["same/metadata"] = f"{own}/metadata"
    location = places[where].replace("file://", "file:" if where == "below" else "file://")
    other = lake.catalog.create_table("ns.other", table.schema(), location=location)
    set_properties(other, **{name: places[value] for name, value in properties.items()})
    refused(lake, table, "ns.other", local(own))


def test_a_table_beside_it_with_a_longer_name_shares_nothing(lake: Lakeside, table: Table) -> None:
    other = lake.catalog.create_table("ns.other", table.schema(), location=f"{table.location()}-2")
    append(other, 1)
    assert lake.run("vacuum").status == "completed"


def test_a_table_of_a_catalog_of_another_name_in_the_same_database_counts(lake: Lakeside, table: Table) -> None:
    uri, warehouse = f"sqlite:///{lake.home}/catalog.db", f"file://{lake.home}/warehouse"
    second = SqlCatalog("second", uri=uri, warehouse=warehouse)
    second.create_namespace("ns")
    second.create_table("ns.twin", table.schema(), location=table.location())
    second.close()
    refused(lake, table, "second.ns.twin")


def test_a_neighbour_whose_metadata_is_gone_is_judged_by_its_folder(lake: Lakeside, table: Table) -> None:
    far = lake.catalog.create_table("ns.far", table.schema())
    Path(local(far.metadata_location)).unlink()
    made = plan_of(table)
    assert len(made.steps) == 1
    near = lake.catalog.create_table("ns.near", table.schema(), location=table.location())
    Path(local(near.metadata_location)).unlink()
    refused(lake, table, "ns.near")


def test_neighbours_are_read_once_and_anew_when_they_change(lake: Lakeside, table: Table) -> None:
    other = lake.catalog.create_table("ns.other", table.schema())
    loaded = lake.catalog.load_table("ns.t")
    neighbours.refuse_neighbours(loaded)
    Path(local(other.metadata_location)).write_text("no longer read")
    neighbours.refuse_neighbours(loaded)

    def move(metadata: dict[str, Any]) -> None:
        metadata["location"] = table.location()

    other.metadata.location  # noqa: B018 - still in memory
    Path(local(other.metadata_location)).write_text(other.metadata.model_dump_json())
    rewrite_metadata(lake, other, move)
    with pytest.raises(UnsupportedError, match=r"ns\.other"):
        neighbours.refuse_neighbours(loaded)


def test_a_catalog_that_is_asked_table_by_table(lake: Lakeside, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "SqlCatalog", type("Other", (), {}))
    lake.catalog.create_table("ns.fine", table.schema())
    neighbours.refuse_neighbours(table)
    lake.catalog.create_table("ns.other", table.schema(), location=f"{table.location()}/inner")
    with pytest.raises(UnsupportedError, match=r"ns\.other"):
        neighbours.refuse_neighbours(table)


def test_metadata_of_a_table_that_no_catalog_knows_is_a_refusal_until_it_is_said_to_be_dropped(
    lake: Lakeside, table: Table
) -> None:
    old, rows = everything(table), contents(table)
    lake.catalog.drop_table("ns.t")
    anew = lake.table()
    append(anew, 1, start=70)
    age_all(anew)
    refused(lake, anew, str(table.metadata.table_uuid), "dropped_tables")
    done = lake.run("vacuum", dropped_tables=True)
    assert names(quarantined(anew)) == names(old)
    assert len(contents(anew.refresh())) == 10
    lake.undo(done.operation_id)
    assert contents(lake.catalog.register_table("ns.old", table.metadata_location)) == rows


def test_a_table_that_says_its_files_are_not_its_own(lake: Lakeside, table: Table) -> None:
    set_properties(table, gc__enabled="false")
    refused(lake, table, "gc.enabled: false")


def test_the_root_of_a_storage_is_never_searched(lake: Lakeside, table: Table) -> None:
    set_properties(table, write__data__path="file:///")
    refused(lake, table, "root of its storage")


@pytest.mark.parametrize("path", ["t#1", "t?x=1", "t;v"])
def test_a_path_that_readers_understand_differently_is_refused(lake: Lakeside, table: Table, path: str) -> None:
    set_properties(table, write__data__path=f"file://{lake.home}/{path}")
    refused(lake, table, path)


# --- is it the same file?


def test_live_files_known_under_another_spelling_make_a_refusal(lake: Lakeside, table: Table) -> None:
    """The location goes through a link, as where storage is mounted twice: no path agrees, every file looks lost."""
    link = lake.home / "link"
    link.symlink_to(local(table.location()))

    def move(metadata: dict[str, Any]) -> None:
        metadata["location"] = f"file://{link}"

    moved = rewrite_metadata(lake, table, move)
    refused(lake, moved, "has the name of a live file", "spelled in two ways")


def test_a_copy_of_a_live_file_is_an_orphan_like_any_other(lake: Lakeside, table: Table) -> None:
    live = Path(local(live_data_files(table)[0].file_path))
    copy = live.parent.parent / "backup" / live.name
    copy.parent.mkdir()
    copy.write_bytes(live.read_bytes())
    age(30, copy)
    lake.run("vacuum")
    assert live.exists()
    assert names(quarantined(table)) == sorted(["lost.parquet", live.name])


def test_links_are_neither_followed_nor_moved(lake: Lakeside, table: Table) -> None:
    outside = lake.home / "outside"
    outside.mkdir()
    (outside / "precious.parquet").write_bytes(b"precious")
    age(30, outside / "precious.parquet")
    folder = Path(local(table.location())) / "data"
    (folder / "linked").symlink_to(outside)
    (folder / "linked.parquet").symlink_to(outside / "precious.parquet")
    os.utime(folder / "linked.parquet", (1, 1), follow_symlinks=False)
    lake.run("vacuum")
    assert (folder / "linked.parquet").is_symlink()
    assert (outside / "precious.parquet").exists()
    assert names(quarantined(table)) == ["lost.parquet"]


def test_a_name_that_is_no_text_is_told_and_left(lake: Lakeside, table: Table) -> None:
    strange = os.fsencode(Path(local(table.location())) / "data") + b"/caf\xe9.parquet"
    with open(strange, "wb") as stream:  # noqa: PTH123
        stream.write(b"x")
    done = lake.run("vacuum")
    assert ["no text" in warning for warning in done.warnings] == [True]
    assert os.path.exists(strange)  # noqa: PTH110


# --- between plan and run


def test_a_planned_file_that_the_table_refers_to_by_now_stays(lake: Lakeside, table: Table) -> None:
    live = Path(local(live_data_files(table)[0].file_path))
    lost = live.parent / "lost.parquet"
    lost.write_bytes(live.read_bytes())
    age(30, lost)
    made = plan_of(table)
    table.add_files([f"file://{lost}"], check_duplicate_files=False)
    tally = carry_out(made, table)
    assert [warning.startswith("1 planned file stay") for warning in tally.warnings] == [True]
    assert len(contents(table.refresh())) == 20
    assert sum(contents(table).values()) == 30
    assert not quarantined(table)


def test_a_planned_file_that_was_written_again_stays(lake: Lakeside, table: Table) -> None:
    made = plan_of(table)
    lost = next(path for path in everything(table) if path.name == "lost.parquet")
    lost.write_bytes(b"new")
    tally = carry_out(made, table)
    assert lost.read_bytes() == b"new"
    assert tally.undo == []
    assert not (Path(local(table.location())) / ".aurum-quarantine").exists()


def test_a_planned_file_that_is_gone_is_fine(lake: Lakeside, table: Table) -> None:
    made = plan_of(table)
    next(path for path in everything(table) if path.name == "lost.parquet").unlink()
    assert carry_out(made, table).warnings == []


def test_appends_meanwhile_do_not_disturb(lake: Lakeside, table: Table) -> None:
    made = plan_of(table)
    append(table, 3, start=500)
    carry_out(made, table)
    assert len(contents(table.refresh())) == 50
    assert names(quarantined(table)) == ["lost.parquet"]


def test_the_storages_clock_decides_when_this_machines_is_ahead(
    lake: Lakeside, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = plant(table, "data/in-flight.parquet", days=0)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 20 * DAY)
    made = plan_of(table)
    assert len(made.steps[0].detail["files"]) == 2
    tally = carry_out(made, table)
    assert any("ahead of" in warning for warning in tally.warnings)
    assert fresh[0].exists()
    assert names(quarantined(table)) == ["lost.parquet"]


def test_a_clock_behind_the_storages_takes_less(lake: Lakeside, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(table, "data/ten-days.parquet", days=10)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 20 * DAY)
    tally = carry_out(plan_of(table), table)
    assert any("behind" in warning for warning in tally.warnings)
    assert names(quarantined(table)) == ["lost.parquet"]


def test_a_cancelled_run_says_what_is_left_and_the_next_carries_on(lake: Lakeside, table: Table) -> None:
    made = plan_of(table)
    run = RunContext("op")
    (unit,) = handler.execution(made, table).units()
    unit.stage(run)
    run.cancelled.set()
    outcome = unit.commit(run)
    assert [warning.startswith("cancelled with 1 file left") for warning in outcome.warnings] == [True]
    assert not quarantined(table)
    carry_out(plan_of(table), table)
    assert names(quarantined(table)) == ["lost.parquet"]


# --- broken or stubborn storage


@pytest.mark.parametrize("kind", ["list", "manifest"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_what_cannot_be_read_is_a_typed_error_and_nothing_moves(
    lake: Lakeside, table: Table, kind: str, damage: str
) -> None:
    snapshot = table.metadata.snapshots[0]
    victim = Path(local(snapshot.manifest_list if kind == "list" else snapshot.manifests(table.io)[0].manifest_path))
    if damage == "missing":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:-9])
    before = everything(table)
    done = lake.run("vacuum")
    assert done.status == "failed"
    assert done.problem is not None
    assert (done.problem.type, victim.name in (done.problem.detail or "")) == ("corrupt-table", True)
    assert everything(table) == before


def test_a_manifest_that_goes_bad_after_the_plan_moves_nothing(lake: Lakeside, table: Table) -> None:
    made = plan_of(table)
    Path(local(table.metadata.snapshots[-1].manifest_list)).write_bytes(b"")
    before = everything(table)
    with pytest.raises(Exception, match="not an Avro file"):
        carry_out(made, table)
    assert everything(table) == before


def test_files_that_cannot_be_moved_are_counted_and_the_rest_goes(
    lake: Lakeside, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(table, "data/stubborn.parquet")
    real: Callable[..., None] = os.rename

    def rename(source: str, target: str) -> None:
        if "stubborn" in str(source):
            raise PermissionError(13, "Permission denied")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    done = lake.run("vacuum")
    assert (done.metrics["files_quarantined"], done.metrics["files_left"]) == (1, 1)
    assert ["stubborn.parquet: Permission denied" in warning for warning in done.warnings] == [True]


def test_a_quarantine_that_cannot_be_written_is_an_error_before_anything_moves(lake: Lakeside, table: Table) -> None:
    (Path(local(table.location())) / ".aurum-quarantine").write_bytes(b"in the way")
    before = everything(table)
    done = lake.run("vacuum")
    assert done.status == "failed"
    assert done.problem is not None
    assert done.problem.type == "storage-write"
    assert everything(table) == before


def test_folders_on_another_disk_are_copied_before_they_are_deleted(
    lake: Lakeside, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., None] = os.rename

    def rename(source: str, target: str) -> None:
        if str(source).endswith("lost.parquet"):
            raise OSError(18, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    done = lake.run("vacuum")
    assert done.metrics["files_quarantined"] == 1
    (moved,) = quarantined(table)
    assert moved.read_bytes() == b"data/lost.parquet"
    assert names(everything(table)).count("lost.parquet") == 1


def test_a_quarantine_of_which_a_kill_left_only_a_draft_is_emptied_in_time(lake: Lakeside, table: Table) -> None:
    home = Path(local(table.location())) / ".aurum-quarantine" / "killed"
    home.mkdir(parents=True)
    (home / "manifest.jsonl.abc").write_bytes(b"half")
    lake.run("vacuum")
    assert home.exists()
    age(8, home / "manifest.jsonl.abc")
    lake.run("vacuum")
    assert not home.exists()


def test_a_quarantine_without_a_manifest_is_left_to_a_person(lake: Lakeside, table: Table) -> None:
    home = Path(local(table.location())) / ".aurum-quarantine" / "strange" / "data"
    home.mkdir(parents=True)
    for path in (home / "x.parquet", home.parent / "manifest.jsonl.draft"):
        path.write_bytes(b"x")
        age(90, path)
    lake.run("vacuum")
    assert (home / "x.parquet").exists()


def test_a_table_of_0_snapshots(lake: Lakeside) -> None:
    table = lake.table()
    plant(table, "data/lost.parquet")
    age_all(table)
    assert lake.run("vacuum").metrics["files_quarantined"] == 1
    assert Path(local(table.metadata_location)).exists()


# --- through PyIceberg's file systems, as for an object store


@pytest.mark.parametrize("io", ["pyiceberg.io.pyarrow.PyArrowFileIO", "pyiceberg.io.fsspec.FsspecFileIO"])
def test_every_step_through_an_arrow_file_system(lake: Lakeside, io: str) -> None:
    if "fsspec" in io:
        pytest.importorskip("fsspec")
    table = set_properties(lake.table(), py_io_impl=io)
    append(table, 2)
    rows = contents(table)
    age_all(table)
    orphans = plant(table, "data/lost.parquet", "data/deep/er/lost too.parquet")
    plant(table, "data/young.parquet", days=0)
    kept = everything(table) - set(orphans)
    assert isinstance(table.catalog, MetastoreCatalog)
    loaded = table.catalog.load_table(table.name())
    assert isinstance(handler.execution(plan_of(table), loaded).table.io, type(loaded.io))
    assert isinstance(places.place_of(loaded.io, loaded.location()), remote_places.ArrowPlace)
    done = lake.run("vacuum")
    assert (done.status, done.warnings, done.metrics["files_quarantined"]) == ("completed", [], 2)
    assert {path for path in everything(table) if ".aurum-quarantine" not in path.parts} == kept
    assert lake.run("vacuum").status == "skipped"
    undone = lake.undo(done.operation_id)
    assert (undone.status, undone.metrics["files_restored"]) == ("completed", 2)
    assert all(path.exists() for path in orphans)
    again = lake.run("vacuum", override_floor=True, override_reason="copies are new", older_than_days=0)
    assert again.metrics["files_quarantined"] == 3
    age(9, *everything(table))
    purged = lake.run("vacuum", quarantine=False)
    assert purged.metrics["files_deleted"] == 3
    assert everything(table) == {path for path in kept if path.name != "young.parquet"}
    assert contents(table.refresh()) == rows
