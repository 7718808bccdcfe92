"""Vacuum on real tables: orphans go into quarantine, everything that is referred to, young or hidden stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyiceberg.table import Table
from pyiceberg.table.statistics import StatisticsFile

from aurum_orchestration.errors import RequestError
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.iceberg import FUNCTIONS, remove_orphan_files, restore_quarantine
from aurum_orchestration.maintenance.interfaces import MaintenanceResult
from aurum_orchestration_tests.integration.cleanup.judges import (
    age,
    age_all,
    everything,
    local,
    names,
    plant,
    quarantined,
    set_properties,
    snapshot_rows,
)
from aurum_orchestration_tests.integration.upkeep.lakeside import BY_REGION, Lakeside, append, contents


@pytest.fixture
def table(lake: Lakeside) -> Table:
    """A table with a history, a branch, a tag and statistics; everything in it is a month old."""
    table = lake.table(spec=BY_REGION)
    append(table, 2, region="N")
    append(table, 1, start=50, region="ä b/ö%20")
    table.manage_snapshots().create_tag(table.metadata.snapshots[0].snapshot_id, "first").commit()
    table.delete("region == 'N'")
    path = f"{table.location()}/metadata/numbers.stats"
    Path(local(path)).write_bytes(b"Puffin")
    with table.update_statistics() as update:
        update.set_statistics(
            StatisticsFile(
                snapshot_id=table.metadata.snapshots[0].snapshot_id,
                statistics_path=path,
                file_size_in_bytes=6,
                file_footer_size_in_bytes=0,
                blob_metadata=[],
            )
        )
    table.refresh()
    age_all(table)
    return table


def test_a_table_without_orphans_is_skipped_and_nothing_moves(lake: Lakeside, table: Table) -> None:
    before = everything(table)
    done = lake.run("vacuum")
    assert (done.status, done.reason.startswith("nothing to do: of ")) == ("skipped", True)
    assert everything(table) == before


def test_orphans_of_every_kind_are_set_aside_and_nothing_else(lake: Lakeside, table: Table) -> None:
    live, rows = everything(table), snapshot_rows(table)
    orphans = plant(
        table,
        "data/lost.parquet",
        "data/region=N/lost too.parquet",
        "metadata/lost-m0.avro",
        "metadata/snap-1-0-lost.avro",
        "somewhere/else.bin",
    )
    planned = lake.run("vacuum", dry_run=True)
    (step,) = planned.steps or []
    assert {local(path): size for path, size in step.detail["files"].items()} == {
        str(path): len(path.read_bytes()) for path in orphans
    }
    assert everything(table) == live | set(orphans)
    done = lake.run("vacuum")
    assert (done.status, done.warnings) == ("completed", [])
    assert done.metrics["files_quarantined"] == len(orphans)
    assert done.metrics["bytes_quarantined"] == step.detail["bytes"]
    assert "files_deleted" not in done.metrics
    assert done.plan_id == planned.plan_id
    assert {path for path in everything(table) if ".aurum-quarantine" not in path.parts} == live
    assert names(quarantined(table)) == names(orphans)
    assert snapshot_rows(table.refresh()) == rows
    assert lake.run("vacuum").status == "skipped", "a quarantine is no orphan"


def test_files_younger_than_the_floor_stay(lake: Lakeside, table: Table) -> None:
    plant(table, "data/in-flight.parquet", days=0)
    plant(table, "data/two-days.parquet", days=2)
    (old,) = plant(table, "data/eight-days.parquet", days=8)
    assert names((lake.run("vacuum", dry_run=True).steps or [])[0].detail["files"]) == [old.name]
    lake.run("vacuum")
    assert names(quarantined(table)) == [old.name]
    with pytest.raises(RequestError, match=r"^vacuum: older_than_days is 1, below the floor of 3 days$") as refused:
        lake.run("vacuum", older_than_days=1, override_floor=True)
    assert "an override_reason" in str(refused.value.hint)
    done = lake.run("vacuum", older_than_days=1, override_floor=True, override_reason="no writer runs")
    assert done.metrics["files_quarantined"] == 1


def test_hidden_files_hints_and_checksums(lake: Lakeside, table: Table) -> None:
    live = min(path for path in everything(table) if path.suffix == ".parquet")
    folder = str(live.parent.relative_to(local(table.location())))
    kept = plant(
        table,
        "_delta_log/000.json",
        "data/_SUCCESS",
        "data/.hidden",
        "metadata/version-hint.text",
        "metadata/.version-hint.text.crc",
        f"{folder}/.{live.name}.crc",
    )
    young = plant(table, "data/young.parquet", days=0) + plant(table, "data/.young.parquet.crc", days=30)
    gone = plant(table, "data/lost.parquet", "data/.lost.parquet.crc", "data/.nobody.parquet.crc")
    lake.run("vacuum")
    assert names(quarantined(table)) == names(gone)
    assert all(path.exists() for path in [*kept, *young])


def test_a_partition_whose_name_starts_with_an_underscore_is_no_hidden_folder(lake: Lakeside, table: Table) -> None:
    with table.update_spec() as update:
        update.add_field("note", "identity", "_note")
    (orphan,) = plant(table, "data/_note=x/lost.parquet")
    plant(table, "data/_other=x/kept.parquet")
    age_all(table)
    lake.run("vacuum")
    assert names(quarantined(table)) == [orphan.name]


def test_old_metadata_files_go_once_the_log_no_longer_names_them(lake: Lakeside) -> None:
    table = set_properties(lake.table(), write__metadata__previous_versions_max="2")
    append(table, 6)
    age_all(table)
    logged = {local(entry.metadata_file) for entry in table.metadata.metadata_log} | {local(table.metadata_location)}
    assert lake.run("vacuum").metrics["files_quarantined"] == 5
    assert {str(path) for path in everything(table) if path.name.endswith(".metadata.json")} - {
        str(path) for path in quarantined(table)
    } == logged
    assert len(contents(table.refresh())) == 60


def test_data_and_metadata_paths_of_their_own_are_searched_too(lake: Lakeside) -> None:
    data, metadata = lake.home / "elsewhere" / "data", lake.home / "elsewhere" / "meta"
    table = set_properties(lake.table(), write__data__path=f"file://{data}", write__metadata__path=f"file://{metadata}")
    append(table, 2)
    rows = contents(table)
    files = [data / "deep" / "lost.parquet", metadata / "lost.avro", Path(local(table.location())) / "lost.bin"]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"lost")
    age(30, *(path for path in lake.home.rglob("*") if path.is_file()))
    done = lake.run("vacuum")
    assert done.metrics["files_quarantined"] == 3
    assert not any(path.exists() for path in files)
    assert contents(table.refresh()) == rows
    lake.undo(done.operation_id)
    assert all(path.read_bytes() == b"lost" for path in files)
    assert not list(lake.home.rglob(".aurum-quarantine"))


def test_object_storage_layout(lake: Lakeside) -> None:
    table = set_properties(lake.table(), write__object_storage__enabled="true")
    append(table, 3)
    assert len({path.parent for path in everything(table) if path.suffix == ".parquet"}) == 3
    rows = contents(table)
    age_all(table)
    plant(table, "data/0101/1100/1010/11110000/lost.parquet")
    assert lake.run("vacuum").metrics["files_quarantined"] == 1
    assert contents(table.refresh()) == rows


# --- quarantine


def test_an_undo_puts_every_file_back_as_it_was(lake: Lakeside, table: Table) -> None:
    orphans = plant(table, "data/a.parquet", "data/region=N/b.parquet", "metadata/c.avro")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in everything(table)}
    done = lake.run("vacuum")
    assert done.undo is not None
    assert done.undo.startswith(f"aurum undo {done.operation_id}")
    planned = lake.undo(done.operation_id, dry_run=True)
    assert names((planned.steps or [])[0].detail["files"]) == names(orphans)
    assert len(quarantined(table)) == 3
    undone = lake.undo(done.operation_id)
    assert (undone.status, undone.metrics["files_restored"]) == ("completed", 3)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in everything(table)} == before
    assert not (Path(local(table.location())) / ".aurum-quarantine").exists()


def test_an_undo_overwrites_nothing(lake: Lakeside, table: Table) -> None:
    first, second = plant(table, "data/a.parquet", "data/b.parquet")
    done = lake.run("vacuum")
    first.write_bytes(b"somebody else's")
    undone = lake.undo(done.operation_id)
    assert undone.metrics["files_restored"] == 1
    assert ["1 file stay in quarantine" in warning for warning in undone.warnings] == [True]
    assert (first.read_bytes(), second.read_bytes()) == (b"somebody else's", b"data/b.parquet")
    assert names(quarantined(table)) == ["a.parquet"]
    first.unlink()
    assert lake.undo(done.operation_id).metrics["files_restored"] == 1


def test_a_later_vacuum_empties_the_quarantine_when_its_time_is_over(lake: Lakeside, table: Table) -> None:
    plant(table, "data/a.parquet", "data/b.parquet")
    done = lake.run("vacuum")
    home = Path(local(table.location())) / ".aurum-quarantine"
    assert lake.run("vacuum").status == "skipped"
    age(8, home / done.operation_id / "manifest.jsonl")
    assert lake.run("vacuum", quarantine_days=9).status == "skipped"
    (late,) = plant(table, "data/late.parquet")
    planned = lake.run("vacuum", dry_run=True)
    assert [step.action for step in planned.steps or []] == ["purge", "quarantine"]
    purged = lake.run("vacuum")
    assert (purged.metrics["files_deleted"], purged.metrics["files_quarantined"]) == (2, 1)
    assert [path.name for path in home.iterdir()] == [purged.operation_id]
    assert names(quarantined(table)) == [late.name]
    undone = lake.undo(done.operation_id)
    assert undone.status == "failed"
    assert undone.problem is not None
    assert "no quarantine" in (undone.problem.detail or "")


def test_without_quarantine_files_are_gone_at_once(lake: Lakeside, table: Table) -> None:
    plant(table, "data/a.parquet", "data/b.parquet")
    before = everything(table)
    done = lake.run("vacuum", quarantine=False)
    assert (done.metrics["files_deleted"], done.metrics["bytes_deleted"]) == (2, 28)
    assert names(before - everything(table)) == ["a.parquet", "b.parquet"]
    assert not (Path(local(table.location())) / ".aurum-quarantine").exists()
    assert done.undo == "nothing brings back files that were deleted without quarantine"


def test_the_plain_functions_and_the_bridge_do_the_same(lake: Lakeside, table: Table) -> None:
    (orphan,) = plant(table, "data/a.parquet")
    backend = IcebergMaintenanceBackend(
        {"catalog": {"type": "sql", "uri": f"sqlite:///{lake.home}/catalog.db"}}, name="lake"
    )
    planned = remove_orphan_files("lake.ns.t", backend=backend, dry_run=True)
    assert (planned["files_quarantined"], planned["files_deleted"]) == (1, 0)
    assert planned["orphan_files"] == [f"file://{orphan}"]
    assert orphan.exists()
    done = FUNCTIONS["remove_orphan_files"]("lake.ns.t", backend=backend)
    assert (done["files_quarantined"], done["bytes_quarantined"]) == (1, planned["bytes_quarantined"])
    assert not orphan.exists()
    with pytest.raises(RequestError, match="no quarantine"):
        restore_quarantine("lake.ns.t", "unknown", backend=backend)
    assert FUNCTIONS["restore_quarantine"]("lake.ns.t", done["operation_id"], backend=backend) == {
        "files_restored": 1,
        "bytes_restored": 14,
        "conflicts": [],
        "failures": [],
    }
    assert orphan.exists()
    backend.catalog.close()


def test_what_a_kill_of_expiry_left_is_found(lake: Lakeside, table: Table) -> None:
    """A replaced file that the newest snapshots still list, as removed, is an orphan once it is nowhere live."""
    table.manage_snapshots().remove_tag("first").commit()
    gone = [snapshot.snapshot_id for snapshot in table.metadata.snapshots[:-1]]
    table.maintenance.expire_snapshots().by_ids(gone).commit()  # removes references only
    age_all(table)
    done: MaintenanceResult = lake.run("vacuum")
    table.refresh()
    left = {str(path) for path in everything(table) - quarantined(table) if path.name != "manifest.jsonl"}
    live = {local(path) for path in table.inspect.files()["file_path"].to_pylist()}
    assert {path for path in left if path.endswith(".parquet")} == live
    assert done.metrics["files_quarantined"] >= 2
