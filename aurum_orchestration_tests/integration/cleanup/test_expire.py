"""Expiry on real tables: what may go goes, with every file that only it held; the rest keeps every row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.table import Table
from pyiceberg.table.statistics import PartitionStatisticsFile, StatisticsFile
from pyiceberg.table.update import SetPartitionStatisticsUpdate

from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.iceberg import FUNCTIONS, expire_snapshots
from aurum_orchestration_tests.iceberg_deletes import add_position_deletes, live_data_files
from aurum_orchestration_tests.integration.cleanup.judges import (
    NOW,
    aged,
    content_of,
    local,
    on_disk,
    reachable,
    rewrite_metadata,
    set_properties,
    snapshot_rows,
)
from aurum_orchestration_tests.integration.upkeep.lakeside import BY_REGION, Lakeside, append, rows


def eventful(lake: Lakeside) -> Table:
    """A table with appends, an overwrite, deletes, a delete file, a branch and a tag."""
    table = lake.table(spec=BY_REGION)
    append(table, 3, region="N")
    append(table, 2, start=100, region="S")
    table.manage_snapshots().create_tag(table.metadata.snapshots[1].snapshot_id, "audit").commit()
    table.delete("region == 'S'")
    table.overwrite(rows(table, 500, region="N"), overwrite_filter="region == 'N'")
    table.manage_snapshots().create_branch(table.metadata.snapshots[-1].snapshot_id, "work").commit()
    append(table, 2, start=900, region="W")
    add_position_deletes(table, {live_data_files(table)[0].file_path: [0, 3]})
    table.append(rows(table, 2000, region="branch"), branch="work")
    return table.refresh()


def test_everything_that_nothing_refers_to_is_gone_and_what_stays_keeps_its_rows(lake: Lakeside) -> None:
    table = eventful(lake)
    before, stored = snapshot_rows(table), on_disk(table)
    refs = {name: ref.model_dump() for name, ref in table.metadata.refs.items()}
    done = lake.run("retention", retain_last=1, **NOW)
    table.refresh()
    assert (done.status, done.problem, done.warnings) == ("completed", None, [])
    kept = snapshot_rows(table)
    assert len(kept) == 3 == len({ref["snapshot-id"] for ref in refs.values()})
    assert kept == {id_: before[id_] for id_ in kept}
    assert {name: ref.model_dump() for name, ref in table.metadata.refs.items()} == refs
    left = on_disk(table)
    assert left == reachable(table)
    assert done.metrics["snapshots_expired"] == len(before) - len(kept)
    assert done.metrics["files_deleted"] == len(stored) - len(left) > 10


def test_the_plan_names_exactly_what_a_run_then_deletes_and_writes_nothing(lake: Lakeside) -> None:
    table = eventful(lake)
    stored = on_disk(table)
    sizes = {path: Path(path).stat().st_size for path in stored}
    before = {path: path.stat().st_mtime_ns for path in lake.home.rglob("*")}
    planned = lake.run("retention", retain_last=1, dry_run=True, **NOW)
    assert planned.status == "planned"
    assert {path: path.stat().st_mtime_ns for path in lake.home.rglob("*")} == before
    (step,) = planned.steps or []
    kinds = ("data_files", "statistics_files", "manifests", "manifest_lists")
    named = {local(path): size for kind in kinds for path, size in step.detail[kind].items()}
    done = lake.run("retention", retain_last=1, **NOW)
    gone = stored - on_disk(table.refresh())
    assert set(named) == gone
    assert named == {path: sizes[path] for path in gone}
    assert (len(gone), sum(named.values())) == (step.detail["files"], step.detail["bytes"])
    assert (done.plan_id, done.metrics["bytes_deleted"]) == (planned.plan_id, step.detail["bytes"])
    assert set(step.detail["snapshots"]).isdisjoint(snapshot.snapshot_id for snapshot in table.metadata.snapshots)


def test_days_and_number_decide_by_the_clock_of_the_writers(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 6)
    table = aged(lake, table, 10)
    append(table, 2, start=100)
    assert lake.run("retention", retention_days=30).status == "skipped"
    assert lake.run("retention", retention_days=7, retain_last=8).status == "skipped"
    assert lake.run("retention", retention_days=7, retain_last=5).metrics["snapshots_expired"] == 3
    assert lake.run("retention", retention_days=7, retain_last=1).metrics["snapshots_expired"] == 3
    assert len(table.refresh().metadata.snapshots) == 2


def test_the_tables_own_properties_protect_more_than_the_policy(lake: Lakeside) -> None:
    table = set_properties(lake.table(), history__expire__min_snapshots_to_keep="7")
    append(table, 8)
    assert lake.run("retention", retain_last=1, **NOW).metrics["snapshots_expired"] == 1
    set_properties(table, history__expire__max_snapshot_age_ms="86400000")
    assert lake.run("retention", retain_last=1, **NOW).status == "skipped"


def test_a_ref_past_its_own_age_goes_with_what_only_it_kept(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 3)
    first, second, head = (snapshot.snapshot_id for snapshot in table.metadata.snapshots)
    table.manage_snapshots().create_tag(first, "short", max_ref_age_ms=1000).commit()
    table.manage_snapshots().create_tag(second, "kept").commit()
    table = aged(lake, table, 1)
    only = content_of(table, first) - content_of(table, second) - content_of(table, head)
    done = lake.run("retention", retention_days=30)
    table.refresh()
    assert (done.metrics["refs_removed"], done.metrics["snapshots_expired"]) == (1, 0)
    assert set(table.metadata.refs) == {"main", "kept"}, "history younger than 30 days stays, the tag itself goes"
    done = lake.run("retention", retain_last=1, **NOW)
    assert {snapshot.snapshot_id for snapshot in table.refresh().metadata.snapshots} == {second, head}
    assert on_disk(table).isdisjoint(only)


def test_statistics_files_go_with_their_snapshots(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 2)
    first, second = (snapshot.snapshot_id for snapshot in table.metadata.snapshots)
    written: dict[tuple[str, int], str] = {}
    for snapshot_id in (first, second):
        for kind in ("stats", "partitions"):
            path = f"{table.location()}/metadata/{snapshot_id}.{kind}"
            Path(local(path)).write_bytes(b"Puffin")
            written[kind, snapshot_id] = local(path)
        with table.update_statistics() as update:
            update.set_statistics(
                StatisticsFile(
                    snapshot_id=snapshot_id,
                    statistics_path=f"file://{written['stats', snapshot_id]}",
                    file_size_in_bytes=6,
                    file_footer_size_in_bytes=0,
                    blob_metadata=[],
                )
            )
        partition = PartitionStatisticsFile(
            snapshot_id=snapshot_id,
            statistics_path=f"file://{written['partitions', snapshot_id]}",
            file_size_in_bytes=6,
        )
        table.catalog.commit_table(table, (), (SetPartitionStatisticsUpdate(partition_statistics=partition),))
        table.refresh()
    assert lake.run("retention", retain_last=1, **NOW).status == "completed"
    metadata = table.refresh().metadata
    assert [file.snapshot_id for file in (*metadata.statistics, *metadata.partition_statistics)] == [second, second]
    assert {path for path in written.values() if Path(path).exists()} == {
        written["stats", second],
        written["partitions", second],
    }


def test_a_file_that_came_back_under_another_spelling_of_its_path_is_kept(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 1)
    (file,) = live_data_files(table)
    before = snapshot_rows(table)[table.metadata.snapshots[0].snapshot_id]
    table.delete()
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as again:
        file._data[1] = file.file_path.replace("file://", "file:")
        again.append_data_file(file)
    assert lake.run("retention", retain_last=1, **NOW).metrics["snapshots_expired"] == 2
    assert Path(local(live_data_files(table.refresh())[0].file_path).removeprefix("file:")).exists()
    assert snapshot_rows(table) == {table.metadata.snapshots[0].snapshot_id: before}


@pytest.mark.parametrize("commits", [0, 1])
def test_a_table_with_nothing_to_expire_is_skipped_with_the_reason(lake: Lakeside, commits: int) -> None:
    append(lake.table(), commits)
    done = lake.run("retention", retain_last=1, **NOW)
    reason = "nothing to do: the table has no snapshot" if not commits else "nothing to do: each of 1 snapshot"
    assert (done.status, done.reason.startswith(reason)) == ("skipped", True)


def test_a_table_that_says_its_files_are_not_its_own_is_left_alone(lake: Lakeside) -> None:
    table = set_properties(lake.table(), gc__enabled="false")
    append(table, 3)
    stored = on_disk(table)
    done = lake.run("retention", retain_last=1, **NOW)
    assert done.status == "skipped"
    assert "gc.enabled: false" in done.reason
    assert on_disk(table.refresh()) == stored
    assert len(table.metadata.snapshots) == 3


def test_metadata_that_a_commit_would_drop_makes_a_refusal_that_names_it(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 3)

    def add(metadata: dict[str, Any]) -> None:
        metadata["snapshots"][1]["new-in-v4"] = {"kept": True}

    table = rewrite_metadata(lake, table, add)
    done = lake.run("retention", retain_last=1, **NOW)
    assert done.status == "skipped"
    assert "snapshots[1].new-in-v4" in done.reason
    assert json.loads(Path(local(table.metadata_location)).read_text())["snapshots"][1]["new-in-v4"]


def test_data_files_from_elsewhere_are_named_before_they_are_deleted(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 1)
    (file,) = live_data_files(table)
    elsewhere = lake.home / "elsewhere" / "imported.parquet"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(Path(local(file.file_path)).read_bytes())
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as imported:
        file._data[1] = f"file://{elsewhere}"
        imported.append_data_file(file)
    table.delete()
    planned = lake.run("retention", retain_last=1, dry_run=True, **NOW)
    assert [str(elsewhere) in warning for warning in planned.warnings] == [True]
    lake.run("retention", retain_last=1, **NOW)
    assert not elsewhere.exists()


def test_the_plain_function_and_the_bridge_do_the_same(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 4)
    backend = IcebergMaintenanceBackend(
        {"catalog": {"type": "sql", "uri": f"sqlite:///{lake.home}/catalog.db"}}, name="lake"
    )
    planned = expire_snapshots("lake.ns.t", backend=backend, dry_run=True, retain_last=2, **NOW)
    assert len(table.refresh().metadata.snapshots) == 4
    done = FUNCTIONS["expire_snapshots"]("lake.ns.t", backend=backend, retain_last=2, **NOW)
    for key in ("snapshots_expired", "refs_removed", "files_deleted", "bytes_deleted", "rows_deleted", "plan_id"):
        assert planned[key] == done[key]
    assert (done["snapshots_expired"], done["files_deleted"], done["dry_run"]) == (2, 2, False)
    assert len(table.refresh().metadata.snapshots) == 2
    backend.catalog.close()


def test_checksum_files_beside_deleted_ones_go_too(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 2)
    companions = []
    for path in on_disk(table):
        companion = Path(path).with_name(f".{Path(path).name}.crc")
        companion.write_bytes(b"crc")
        companions.append(companion)
    lake.run("retention", retain_last=1, **NOW)
    left = on_disk(table.refresh())
    assert {companion for companion in companions if companion.exists()} == {
        Path(path).with_name(f".{Path(path).name}.crc") for path in reachable(table)
    }
    assert len(left) == 2 * len(reachable(table))
