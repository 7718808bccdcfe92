"""Undo: what an operation committed is taken back, and nobody else's commit ever is."""

from __future__ import annotations

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from aurum_orchestration.errors import UnknownNameError
from aurum_orchestration.maintenance.interfaces import MaintenanceResult, MaintenanceStatus
from aurum_orchestration_tests.integration.upkeep.lakeside import BY_REGION, Lakeside, append, contents, files_of


def compacted(lake: Lakeside, regions: int = 1) -> tuple[Table, int, MaintenanceResult]:
    """A compacted table, its snapshot before, and the compaction's result."""
    table = lake.table(spec=BY_REGION)
    for number in range(regions):
        append(table, 3, start=100 * number, region=f"r{number}")
    before = table.metadata.current_snapshot_id
    assert before is not None
    done = lake.run("compaction", min_input_files=2)
    assert (done.status, done.metrics["groups"]) == ("completed", regions)
    table.refresh()
    return table, before, done


def test_a_compaction_of_several_groups_is_taken_back_as_one(lake: Lakeside) -> None:
    table, before, done = compacted(lake, regions=3)
    rows, moved = contents(table), table.metadata.current_snapshot_id
    undone = lake.undo(done.operation_id)
    table.refresh()
    assert (undone.status, str(undone.config.operation_type)) == ("completed", "undo")
    assert table.metadata.current_snapshot_id == before != moved
    assert len(table.inspect.files()) == 9
    assert contents(table) == rows
    assert undone.metrics["snapshots_taken_back"] == 3
    assert undone.verification is not None
    assert undone.verification.ok
    assert undone.verification.rows_before == 90
    assert [result.operation_id for result in lake.recorded()] == [undone.operation_id, done.operation_id]


def test_the_record_says_in_one_sentence_how_to_take_it_back(lake: Lakeside) -> None:
    _, before, done = compacted(lake, regions=3)
    (recorded,) = lake.recorded()
    assert recorded.undo == done.undo
    assert (recorded.undo or "").splitlines() == [
        f"aurum undo {done.operation_id}: main goes back to snapshot {before}, "
        "while that is not expired and nobody else has committed since"
    ]
    assert recorded.undo_data is not None
    assert recorded.undo_data["rollback_to"] == before
    assert len(recorded.undo_data["snapshots"]) == 3


def test_a_dry_run_shows_the_move_and_writes_nothing(lake: Lakeside) -> None:
    table, before, done = compacted(lake)
    stored, recorded = files_of(table), lake.recorded()
    planned = lake.undo(done.operation_id, dry_run=True)
    assert planned.status == "planned"
    assert [step.detail["to"] for step in planned.steps or ()] == [before]
    assert (files_of(table), lake.recorded()) == (stored, recorded)
    # the planner that prints is the planner that runs
    assert lake.undo(done.operation_id).plan_id == planned.plan_id


def test_what_others_committed_since_is_named_and_kept(lake: Lakeside) -> None:
    table, _, done = compacted(lake)
    append(table, 2, start=500)
    head, rows = table.metadata.current_snapshot_id, contents(table)
    refused = lake.undo(done.operation_id)
    assert refused.status == "failed"
    assert refused.problem is not None
    assert refused.problem.type == "undo-refused"
    assert refused.reason.startswith("2 snapshots were committed by others since")
    assert f"snapshot {head} (append of" in refused.reason
    assert "10 rows added" in refused.reason
    table.refresh()
    assert (table.metadata.current_snapshot_id, contents(table)) == (head, rows)


def test_a_commit_between_two_groups_is_found(lake: Lakeside) -> None:
    table = lake.table(spec=BY_REGION)
    append(table, 3, region="r0")
    first = lake.run("compaction", min_input_files=2)
    append(table.refresh(), 1, start=900, region="other")
    append(table, 3, start=200, region="r1")
    second = lake.run("compaction", min_input_files=2, partition_filter="region = 'r1'")
    assert second.status == "completed"
    table.refresh()
    # as a run would have recorded it whose groups had the append between them
    joined = first.model_copy(
        update={
            "undo_data": {
                "rollback_to": (first.undo_data or {})["rollback_to"],
                "snapshots": [*(first.undo_data or {})["snapshots"], *(second.undo_data or {})["snapshots"]],
            }
        }
    )
    from aurum_orchestration.errors import UndoRefusedError
    from aurum_orchestration.maintenance.backends.iceberg.rollback import plan_rollback

    with pytest.raises(UndoRefusedError, match="4 snapshots were committed by others"):
        plan_rollback(table, joined)


def test_where_expiry_took_a_snapshot_between_nobody_can_tell(lake: Lakeside) -> None:
    table, before, done = compacted(lake, regions=3)
    middle = (done.undo_data or {})["snapshots"][1]
    table.manage_snapshots().create_tag(before, "keep").commit()
    table.maintenance.expire_snapshots().by_id(middle).commit()
    refused = lake.undo(done.operation_id)
    assert refused.status == "failed"
    assert "nobody can tell" in refused.reason


def test_an_expired_snapshot_before_cannot_be_gone_back_to(lake: Lakeside) -> None:
    table, before, done = compacted(lake)
    table.maintenance.expire_snapshots().by_id(before).commit()
    refused = lake.undo(done.operation_id)
    assert (refused.status, refused.reason) == (
        "failed",
        f"snapshot {before}, at which main stood before, has expired",
    )


def test_a_lost_file_of_the_snapshot_before_stops_it(lake: Lakeside) -> None:
    from pathlib import Path

    table, before, done = compacted(lake)
    lost = table.inspect.files(snapshot_id=before)["file_path"][0].as_py()
    Path(lost.removeprefix("file://")).unlink()
    head = table.metadata.current_snapshot_id
    refused = lake.undo(done.operation_id)
    assert refused.status == "failed"
    assert refused.problem is not None
    assert refused.problem.type == "corrupt-table"
    assert lost in refused.reason
    assert table.refresh().metadata.current_snapshot_id == head


def test_undoing_twice_does_nothing_the_second_time(lake: Lakeside) -> None:
    _, before, done = compacted(lake)
    lake.undo(done.operation_id)
    again = lake.undo(done.operation_id)
    assert (again.status, again.reason) == (
        "skipped",
        f"nothing to undo: main stands at snapshot {before} already",
    )


def test_after_an_undo_the_operation_can_run_again(lake: Lakeside) -> None:
    table, _, done = compacted(lake)
    lake.undo(done.operation_id)
    again = lake.run("compaction", min_input_files=2)
    assert again.status == "completed"
    # the first one's snapshots are not on main any more
    late = lake.undo(done.operation_id)
    assert late.status == "failed"
    assert "committed by others" in late.reason
    assert lake.undo(again.operation_id).status == "completed"
    assert len(table.refresh().inspect.files()) == 3


def test_an_undo_is_not_undone(lake: Lakeside) -> None:
    _, _, done = compacted(lake)
    undone = lake.undo(done.operation_id)
    refused = lake.undo(undone.operation_id)
    assert refused.problem is not None
    assert refused.problem.type == "undo-refused"


def test_an_operation_that_changed_nothing_has_nothing_to_undo(lake: Lakeside) -> None:
    append(lake.table(), 1)
    skipped = lake.run("compaction")
    assert skipped.status == "skipped"
    answer = lake.undo(skipped.operation_id)
    assert (answer.status, answer.reason) == ("skipped", "nothing to undo: the operation committed nothing")


def test_an_unknown_id_is_an_error(lake: Lakeside) -> None:
    with pytest.raises(UnknownNameError, match="no operation 'nonsense'"):
        lake.undo("nonsense")


def test_a_commit_that_comes_in_between_makes_it_plan_again_and_refuse(
    lake: Lakeside, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, _, done = compacted(lake)
    real = SqlCatalog.commit_table
    interfered: list[bool] = []

    def interfering(self: SqlCatalog, *arguments: object) -> object:
        if not interfered:
            interfered.append(True)
            append(lake.catalog.load_table("ns.t"), 1, start=700)
        return real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(SqlCatalog, "commit_table", interfering)
    refused = lake.undo(done.operation_id)
    assert refused.status == "failed"
    assert "1 snapshot was committed by others since" in refused.reason
    assert contents(table.refresh())[repr({"id": 700, "region": "N", "note": "note 700"})] == 1


def test_a_run_that_was_killed_is_found_by_its_snapshots(lake: Lakeside) -> None:
    table, before, done = compacted(lake)
    from aurum_orchestration.history import History

    with History(lake.settings.history_url) as history:
        killed = done.model_copy(
            update={"status": MaintenanceStatus.FAILED, "undo_data": None, "undo": None, "steps": None}
        )
        history.record(killed, who="a process that was killed")
    assert lake.undo(done.operation_id).status == "completed"
    assert table.refresh().metadata.current_snapshot_id == before
