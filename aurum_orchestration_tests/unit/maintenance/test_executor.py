"""The flow of one operation, on a real engine of files."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from aurum_orchestration.errors import (
    BackendUnavailableError,
    CommitStateUnknownError,
    RequestError,
    UnsupportedError,
)
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.history import History
from aurum_orchestration.maintenance.executor import MaintenanceExecutor, default_holder
from aurum_orchestration.maintenance.flow import Tally
from aurum_orchestration.maintenance.interfaces import (
    MaintenanceConfig,
    MaintenanceResult,
    MaintenanceStatus,
    OperationType,
    RunContext,
)
from aurum_orchestration.maintenance.operations.compaction import CompactionOperation
from aurum_orchestration_tests.unit.maintenance.conftest import MakeTable
from aurum_orchestration_tests.unit.maintenance.files import FilesBackend

TABLE = TableId("disk", ("ns", "events"))
SOON = 20.0
"""Seconds after which a test gives up waiting for something that must happen."""


def compact(dry_run: bool = False, **parameters: object) -> MaintenanceConfig:
    return MaintenanceConfig(
        operation_type=OperationType.COMPACTION, target_table=str(TABLE), dry_run=dry_run, parameters=parameters
    )


async def run(
    executor: MaintenanceExecutor, backend: FilesBackend, config: MaintenanceConfig | None = None
) -> MaintenanceResult:
    return await executor.execute(backend, CompactionOperation(), config or compact())


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


async def test_a_run_merges_files_keeps_every_row_and_is_recorded(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable, history: History
) -> None:
    table = make_table(10)
    rows = table.rows()

    result = await run(executor, backend)

    assert result.status is MaintenanceStatus.COMPLETED, result.problem
    assert result.metrics == {
        "files_rewritten": 10,
        "files_added": 3,
        "rows_rewritten": 20,
        "conflicts_retried": 0,
        "groups_left": 0,
    }
    assert result.verification is not None
    assert (result.verification.rows_before, result.verification.ok) == (20, True)
    assert sorted((result.undo or "").splitlines()) == ["put 2 files back", "put 4 files back"]
    assert [step.number for step in result.steps or ()] == backend.commits
    assert len(table.files) == 3
    assert table.rows() == rows
    assert [one.model_dump() for one in history.operations()] == [result.model_dump()]
    assert history.holder(TABLE) is None


async def test_while_it_runs_the_log_says_so_and_the_lease_names_the_holder(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable, history: History
) -> None:
    make_table(4)
    seen: list[object] = []

    def look(_: int, run: RunContext) -> None:
        lease = history.holder(TABLE)
        assert lease is not None
        seen.extend([lease.holder, lease.operation_id == run.operation_id])
        seen.extend(one.status for one in history.operations())

    backend.hooks["commit"] = look
    assert (await run(executor, backend)).status is MaintenanceStatus.COMPLETED
    assert seen == ["tester", True, MaintenanceStatus.RUNNING]


async def test_a_dry_run_prints_the_plan_that_a_run_executes_and_writes_nothing(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable, tmp_path: Path
) -> None:
    make_table(10)
    before = snapshot(tmp_path)

    planned = await run(executor, backend, compact(dry_run=True))

    assert snapshot(tmp_path) == before
    assert planned.status is MaintenanceStatus.PLANNED
    assert [step.number for step in planned.steps or ()] == [1, 2, 3]
    assert planned.metrics == {}
    done = await run(executor, backend)
    assert done.plan_id == planned.plan_id
    assert sorted(done.steps or (), key=lambda step: step.number) == planned.steps


@pytest.mark.parametrize("dry_run", [False, True])
async def test_nothing_to_do_is_skipped_with_the_plans_reason(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable, history: History, dry_run: bool
) -> None:
    make_table(1)
    result = await run(executor, backend, compact(dry_run=dry_run))
    assert (result.status, result.reason) == (MaintenanceStatus.SKIPPED, "1 files, 0 groups to merge")
    assert len(history.operations()) == (0 if dry_run else 1)


async def test_what_the_engine_cannot_do_is_skipped_with_the_reason(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable
) -> None:
    make_table(4)

    def refuse(_: int, __: RunContext) -> None:
        raise UnsupportedError("this edition cannot", hint="Upgrade it.")

    backend.hooks["plan"] = refuse
    result = await run(executor, backend)
    assert (result.status, result.reason, result.problem) == (
        MaintenanceStatus.SKIPPED,
        "this edition cannot Upgrade it.",
        None,
    )


async def test_a_wrong_parameter_raises_before_anything_is_done(
    executor: MaintenanceExecutor, backend: FilesBackend, history: History
) -> None:
    with pytest.raises(RequestError, match="target_file_size") as caught:
        await run(executor, backend, compact(target_file_size=1))
    assert caught.value.hint == "Did you mean 'target_file_size_mb'?"
    assert (backend.planned, history.operations()) == (0, [])


async def test_a_missing_table_is_a_failed_result(executor: MaintenanceExecutor, backend: FilesBackend) -> None:
    result = await run(executor, backend)
    assert result.status is MaintenanceStatus.FAILED
    assert result.problem is not None
    assert (result.problem.type, result.problem.instance) == ("table-not-found", result.operation_id)


async def test_an_unknown_exception_is_an_internal_error_with_the_stack_in_the_log_only(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable, caplog: pytest.LogCaptureFixture
) -> None:
    make_table(4)

    def break_down(_: int, __: RunContext) -> None:
        raise KeyError("password=hunter2")

    backend.hooks["stage"] = break_down
    with caplog.at_level(logging.ERROR):
        result = await run(executor, backend)
    assert result.status is MaintenanceStatus.FAILED
    assert result.problem is not None
    assert result.problem.type == "internal-error"
    assert "hunter2" not in result.model_dump_json()
    assert "Traceback" not in result.model_dump_json()
    assert "break_down" in caplog.text


# --- leases


async def test_a_lease_held_by_another_fails_naming_the_holder_and_is_not_retried(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable, history: History
) -> None:
    table = make_table(8)
    lease = history.acquire(TABLE, holder="ann@box:7", operation_id="other", ttl=timedelta(minutes=5))

    result = await run(executor, backend)

    assert result.status is MaintenanceStatus.FAILED
    assert result.problem is not None
    assert result.problem.type == "lease-held"
    assert "ann@box:7" in (result.problem.detail or "")
    assert (backend.planned, len(table.files), result.warnings) == (1, 8, [])
    history.check(lease)


def steal(tmp_path: Path) -> None:
    """Another process takes the lease over, as after it had expired."""
    with sqlite3.connect(tmp_path / "history.db") as store:
        store.execute("update aurum_leases set token = token + 1, holder = 'thief'")
    store.close()


async def test_a_lease_lost_in_the_middle_commits_nothing_more(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable, history: History, tmp_path: Path
) -> None:
    table = make_table(24)
    rows = table.rows()
    backend.hooks["committed"] = lambda number, _: steal(tmp_path) if len(backend.commits) == 1 else None

    result = await run(executor, backend)

    assert result.problem is not None
    assert (result.status, result.problem.type) == (MaintenanceStatus.FAILED, "lease-lost")
    assert "thief" in (result.problem.detail or "")
    assert len(backend.commits) == 2  # the one before, and the one during which it was lost
    assert result.metrics["files_rewritten"] == 8
    assert result.metrics["groups_left"] == 4
    assert "2 steps committed before stay" in result.reason
    assert table.leftovers() == set()
    assert table.rows() == rows
    assert backend.planned == 1
    holder = history.holder(TABLE)
    assert holder is not None
    assert holder.holder == "thief"


async def test_the_heartbeat_notices_a_lost_lease_and_stops_a_long_stage(
    history: History, backend: FilesBackend, make_table: MakeTable, tmp_path: Path
) -> None:
    table = make_table(8)
    executor = MaintenanceExecutor(history, who="tester", lease_ttl=timedelta(seconds=0.3))

    def long_stage(number: int, run: RunContext) -> None:
        if number == 1:
            steal(tmp_path)
        assert run.cancelled.wait(SOON), "nobody stopped the stage"
        run.check()

    backend.hooks["stage"] = long_stage
    result = await run(executor, backend)
    assert result.problem is not None
    assert result.problem.type == "lease-lost"
    assert (backend.commits, table.leftovers()) == ([], set())


async def test_the_heartbeat_keeps_a_short_lease_through_a_long_stage(
    history: History, backend: FilesBackend, make_table: MakeTable
) -> None:
    make_table(4)
    executor = MaintenanceExecutor(history, who="tester", lease_ttl=timedelta(seconds=0.3))
    expiries: set[object] = set()

    def long_stage(_: int, __: RunContext) -> None:
        waited = threading.Event()
        while len(expiries) < 4:  # renewed three times: longer than the lease lives
            lease = history.holder(TABLE)
            assert lease is not None
            expiries.add(lease.expires_at)
            waited.wait(0.02)

    backend.hooks["stage"] = long_stage
    assert (await run(executor, backend)).status is MaintenanceStatus.COMPLETED


async def test_without_a_history_an_apply_refuses_and_a_dry_run_works(
    backend: FilesBackend, make_table: MakeTable, tmp_path: Path
) -> None:
    table = make_table(4)
    (tmp_path / "blocked").write_text("")
    for history in (None, History(f"sqlite:///{tmp_path / 'blocked' / 'history.db'}")):
        executor = MaintenanceExecutor(history, pause=0.001)
        assert (await run(executor, backend, compact(dry_run=True))).status is MaintenanceStatus.PLANNED
        planned = backend.planned
        result = await run(executor, backend)
        assert result.problem is not None
        assert (result.status, result.problem.type) == (MaintenanceStatus.FAILED, "history-unavailable")
        assert backend.planned == planned + 1
    assert len(table.files) == 4


async def test_a_result_that_cannot_be_recorded_says_so(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable, tmp_path: Path
) -> None:
    make_table(4)

    def break_store(_: int, __: RunContext) -> None:
        with sqlite3.connect(tmp_path / "history.db") as store:
            store.execute("alter table aurum_operations rename to elsewhere")
        store.close()

    backend.hooks["committed"] = break_store
    result = await run(executor, backend)
    assert result.status is MaintenanceStatus.COMPLETED
    assert any("not recorded" in warning for warning in result.warnings)


async def test_a_store_that_is_away_for_a_while_stops_commits_until_it_is_back(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable, tmp_path: Path
) -> None:
    table = make_table(12)
    rows = table.rows()

    store, kept = tmp_path / "history.db", tmp_path / "kept"

    def take_away(_: int, __: RunContext) -> None:
        if not backend.commits:
            kept.mkdir()
            for file in tmp_path.glob("history.db*"):
                file.rename(kept / file.name)
            store.mkdir()  # which is there and cannot be opened

    def bring_back(number: int, _: RunContext) -> None:
        if number == 2:
            assert backend.commits == [1]
            store.rmdir()
            for file in kept.iterdir():
                file.rename(tmp_path / file.name)

    backend.hooks.update(committed=take_away, plan=bring_back)
    result = await run(executor, backend, compact(max_concurrent_groups=1))
    assert result.status is MaintenanceStatus.COMPLETED, result.problem
    assert (result.metrics["files_rewritten"], table.rows()) == (12, rows)
    assert "history-unavailable" in result.warnings[0]


async def test_a_lease_that_cannot_be_given_back_is_left_to_expire(
    executor: MaintenanceExecutor,
    backend: FilesBackend,
    make_table: MakeTable,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_table(4)

    def take_away(_: int, __: RunContext) -> None:
        with sqlite3.connect(tmp_path / "history.db") as store:
            store.execute("alter table aurum_leases rename to elsewhere")
        store.close()

    backend.hooks["committed"] = take_away
    assert (await run(executor, backend)).status is MaintenanceStatus.COMPLETED
    assert "it expires by itself" in caplog.text


# --- units


def test_the_undo_of_many_commits_is_told_in_few_lines() -> None:
    tally = Tally(undo=[f"undo {number}" for number in range(1, 8)])
    assert tally.undo_text() == "undo 7\nundo 6\nundo 5\n(3 more, one per step)\nundo 1"


async def test_what_cannot_be_discarded_is_logged_and_hides_nothing(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable, caplog: pytest.LogCaptureFixture
) -> None:
    table = make_table(4)

    def bad(_: int, __: RunContext) -> None:
        table.folder.joinpath("CURRENT").rename(table.folder / "elsewhere")
        table.folder.rename(table.folder.with_name("moved"))
        table.folder.write_text("a file where the folder was")
        raise OSError("disk on fire")

    backend.hooks["stage"] = bad
    result = await run(executor, backend)
    assert "disk on fire" in result.reason
    assert "could not be removed" in caplog.text


async def test_one_bad_unit_among_many_stops_the_run_and_leaves_what_was_committed(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable, history: History
) -> None:
    table = make_table(40)
    rows = table.rows()

    def bad(number: int, _: RunContext) -> None:
        if number == 6:
            raise OSError("disk on fire")

    backend.hooks["stage"] = bad
    result = await run(executor, backend)

    assert result.status is MaintenanceStatus.FAILED
    assert "disk on fire" in result.reason
    committed = len(backend.commits)
    assert 1 <= committed <= 5
    assert result.metrics["files_rewritten"] == 4 * committed
    assert result.metrics["groups_left"] == 10 - committed
    assert 6 in backend.discarded
    assert not set(backend.discarded) & set(backend.commits)
    assert table.leftovers() == set()
    assert table.rows() == rows
    assert history.operations()[0].metrics == result.metrics


async def test_a_failure_stops_what_stages_at_the_same_time(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable
) -> None:
    make_table(8)
    together = threading.Barrier(2, timeout=SOON)
    stopped: list[bool] = []

    def stage(number: int, run: RunContext) -> None:
        together.wait()
        if number == 1:
            raise OSError("disk on fire")
        stopped.append(run.cancelled.wait(SOON))
        run.check()

    backend.hooks["stage"] = stage
    result = await run(executor, backend)
    assert stopped == [True]
    assert result.status is MaintenanceStatus.FAILED
    assert "disk on fire" in result.reason


@pytest.mark.parametrize("workers", [1, 3])
async def test_units_stage_at_once_up_to_the_workers_with_bounded_lookahead(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable, workers: int
) -> None:
    make_table(60)
    together = threading.Barrier(workers, timeout=SOON)
    guard = threading.Lock()
    uncommitted: set[int] = set()
    most = 0

    def staged(number: int, _: RunContext) -> None:
        nonlocal most
        if number <= workers:
            together.wait()  # only passes when so many are at work
        with guard:
            uncommitted.add(number)
            most = max(most, len(uncommitted))

    def committed(number: int, _: RunContext) -> None:
        with guard:
            uncommitted.remove(number)

    backend.hooks.update(stage=staged, committed=committed)
    result = await run(executor, backend, compact(max_concurrent_groups=workers))
    assert result.status is MaintenanceStatus.COMPLETED
    assert backend.busiest == workers
    assert most <= (1 if workers == 1 else 2 * workers)


async def test_a_failed_verification_commits_nothing_and_is_never_retried(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable
) -> None:
    table = make_table(4)

    def corrupt(_: int, __: RunContext) -> None:
        (staged,) = table.folder.glob("staged-*")
        staged.write_text(staged.read_text().replace("row 0\n", "row 9\n"))

    backend.hooks["stage"] = corrupt
    result = await run(executor, backend)
    assert result.problem is not None
    assert (result.status, result.problem.type) == (MaintenanceStatus.FAILED, "verification-failed")
    assert result.verification is not None
    assert (result.verification.rows_before, result.verification.rows_after) == (8, 8)
    assert not result.verification.ok
    assert (backend.planned, backend.commits, table.leftovers()) == (1, [], set())
    assert len(table.files) == 4


@pytest.mark.parametrize("way_back", [True, False])
async def test_where_the_check_comes_after_the_commit_a_failed_one_is_taken_back(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable, way_back: bool
) -> None:
    table = make_table(8)
    files, rows = table.files, table.rows()
    backend.verify_first = False

    def corrupt(number: int, _: RunContext) -> None:
        if number == 2:
            (staged,) = set(table.files) - set(files) - corrupt.before  # type: ignore[attr-defined]
            (table.folder / staged).write_text("lost\n")
        corrupt.before = set(table.files)  # type: ignore[attr-defined]

    def no_way_back(_: int, __: RunContext) -> None:
        raise OSError("gone")

    backend.hooks["committed"] = corrupt
    if not way_back:
        backend.hooks["take_back"] = no_way_back
    result = await run(executor, backend, compact(max_concurrent_groups=1))

    assert result.problem is not None
    assert (result.status, result.problem.type) == (MaintenanceStatus.FAILED, "verification-failed")
    if way_back:
        assert result.metrics["files_rewritten"] == 4
        assert "step 2 had been committed, and was taken back because its check failed" in (result.problem.detail or "")
        assert table.rows() == rows
        assert len(table.files) == 5
    else:
        assert result.metrics["files_rewritten"] == 8  # it stays, so it counts
        assert result.undo == "put 4 files back"
        assert "could not be taken back: gone" in (result.problem.detail or "")
        assert "restore" in (result.problem.hint or "")


async def test_a_backend_that_goes_between_the_commit_and_its_check(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable
) -> None:
    """No row was seen to be wrong: that is not said, and not tried again."""
    table = make_table(8)
    rows = table.rows()
    backend.verify_first = False

    def gone(_: int, __: RunContext) -> None:
        raise BackendUnavailableError("gone")

    backend.hooks["verify"] = backend.hooks["take_back"] = gone
    result = await run(executor, backend, compact(max_concurrent_groups=1))
    assert result.problem is not None
    assert (result.status, result.problem.type) == (MaintenanceStatus.FAILED, "commit-state-unknown")
    assert "neither checked nor taken back: gone" in (result.problem.detail or "")
    assert result.undo == "put 4 files back"
    assert len(backend.commits) == 1
    assert table.rows() == rows


@pytest.mark.parametrize("comes_back", [True, False])
async def test_a_backend_that_goes_after_the_commit_and_is_reached_for_the_way_back(
    comes_back: bool, executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable
) -> None:
    """That a commit was there for a while is told, whatever the run ends with."""
    table = make_table(8)
    rows, files = table.rows(), table.files
    backend.verify_first = False

    def gone(_: int, __: RunContext) -> None:
        if comes_back:
            backend.hooks.clear()
        else:
            backend.hooks["plan"] = gone
        raise BackendUnavailableError("gone")

    backend.hooks["verify"] = gone
    result = await run(executor, backend, compact(max_concurrent_groups=1))
    told = "step 1 had been committed, and was taken back because it could not be checked"
    assert table.rows() == rows
    if comes_back:
        assert result.status is MaintenanceStatus.COMPLETED
        assert told in result.warnings
        return
    assert result.problem is not None
    assert (result.status, result.problem.type) == (MaintenanceStatus.FAILED, "backend-unavailable")
    assert result.problem.detail == f"gone; {told}"
    assert result.reason == result.problem.detail
    assert (result.undo, sorted(table.files)) == (None, sorted(files))


@pytest.mark.parametrize(
    "error", [CommitStateUnknownError("the catalog hung up"), RuntimeError("what?")], ids=["unknown", "unforeseen"]
)
async def test_files_of_a_commit_that_may_have_taken_place_are_not_deleted(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable, error: Exception
) -> None:
    table = make_table(4)
    rows = table.rows()

    def lose_the_answer(_: int, __: RunContext) -> None:
        raise error

    backend.hooks["committed"] = lose_the_answer  # after the swap: it did take place
    result = await run(executor, backend)
    assert result.status is MaintenanceStatus.FAILED
    assert (backend.planned, backend.discarded) == (1, [])
    assert table.rows() == rows


# --- retries


async def test_a_conflict_is_planned_again_and_never_undoes_the_other_writer(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable
) -> None:
    table = make_table(12)
    doomed = table.files[4]
    kept = [row for row in table.rows() if row not in (table.folder / doomed).read_text().splitlines()]

    def delete_meanwhile(number: int, _: RunContext) -> None:
        if number == 2 and doomed in table.files:
            table.replace([doomed], [])

    planned = await run(executor, backend, compact(dry_run=True, max_concurrent_groups=1))
    backend.hooks["commit"] = delete_meanwhile
    result = await run(executor, backend, compact(max_concurrent_groups=1))

    assert result.plan_id == planned.plan_id
    assert result.status is MaintenanceStatus.COMPLETED, result.problem
    assert table.rows() == kept
    assert table.leftovers() == set()
    assert backend.planned == 3
    assert result.metrics["conflicts_retried"] == 1
    assert result.metrics["files_rewritten"] == 11
    assert result.verification is not None
    assert (result.verification.rows_before, result.verification.ok) == (22, True)
    assert any("commit-conflict" in warning for warning in result.warnings)


async def test_attempts_are_bounded(
    history: History, backend: FilesBackend, make_table: MakeTable, caplog: pytest.LogCaptureFixture
) -> None:
    make_table(4)
    executor = MaintenanceExecutor(history, attempts=3, pause=0.001)

    def down(_: int, __: RunContext) -> None:
        raise BackendUnavailableError("no answer")

    backend.hooks["plan"] = down
    result = await run(executor, backend)
    assert result.problem is not None
    assert (result.status, result.problem.type) == (MaintenanceStatus.FAILED, "backend-unavailable")
    assert result.problem.transient
    assert backend.planned == 3


async def test_a_backend_that_comes_back_is_used(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable, tmp_path: Path
) -> None:
    make_table(4)

    def hiccup(number: int, _: RunContext) -> None:
        if number == 1:
            raise BackendUnavailableError("no answer")

    backend.hooks["plan"] = hiccup
    result = await run(executor, backend)
    assert result.status is MaintenanceStatus.COMPLETED
    assert result.metrics["conflicts_retried"] == 0


# --- cancellation


async def test_cancelled_in_the_middle_it_ends_its_threads_records_and_gives_the_lease_back(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable, history: History
) -> None:
    table = make_table(24)
    rows = table.rows()
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait_to_be_stopped(number: int, run: RunContext) -> None:
        if number == 3:
            loop.call_soon_threadsafe(reached.set)
            assert run.cancelled.wait(SOON), "nobody stopped the stage"
            run.check()

    backend.hooks["stage"] = wait_to_be_stopped
    told: list[MaintenanceResult] = []
    task = asyncio.create_task(executor.execute(backend, CompactionOperation(), compact(), on_result=told.append))
    await asyncio.wait_for(reached.wait(), SOON)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    (result,) = told
    assert result.status is MaintenanceStatus.CANCELLED
    assert result.problem is not None
    assert result.problem.type == "cancelled"
    assert [one.status for one in history.operations()] == [MaintenanceStatus.CANCELLED]
    assert history.holder(TABLE) is None
    assert table.leftovers() == set()
    assert table.rows() == rows
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("stage", "lease"))]


async def test_a_cancel_that_comes_too_late_does_not_hide_that_the_work_is_done(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable, history: History
) -> None:
    make_table(4)
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    def finish(_: int, run: RunContext) -> None:
        loop.call_soon_threadsafe(reached.set)
        assert run.cancelled.wait(SOON)

    backend.hooks["committed"] = finish
    task = asyncio.create_task(run(executor, backend))
    await asyncio.wait_for(reached.wait(), SOON)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [one.status for one in history.operations()] == [MaintenanceStatus.COMPLETED]


async def test_what_was_staged_when_the_cancel_came_is_not_committed(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable
) -> None:
    table = make_table(4)
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end_well(_: int, run: RunContext) -> None:
        loop.call_soon_threadsafe(reached.set)
        assert run.cancelled.wait(SOON)

    backend.hooks["verify"] = end_well
    task = asyncio.create_task(run(executor, backend))
    await asyncio.wait_for(reached.wait(), SOON)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (backend.commits, backend.discarded, table.leftovers()) == ([], [1], set())


async def test_a_cancel_while_recording_waits_for_the_record(
    executor: MaintenanceExecutor,
    backend: FilesBackend,
    make_table: MakeTable,
    history: History,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_table(1)
    reached, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    record = history.record

    def slow(result: MaintenanceResult, *, who: str, notices: object) -> None:
        loop.call_soon_threadsafe(reached.set)
        assert go.wait(SOON)
        record(result, who=who)

    monkeypatch.setattr(history, "record", slow)
    task = asyncio.create_task(run(executor, backend))
    await asyncio.wait_for(reached.wait(), SOON)
    task.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [str(one.status) for one in history.operations()] == ["skipped"]


def test_who_names_user_host_and_process() -> None:
    user, _, rest = default_holder().partition("@")
    host, _, process = rest.partition(":")
    assert user
    assert host
    assert process.isdigit()


async def test_progress_counts_the_steps(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable
) -> None:
    make_table(12)
    told: list[tuple[str, float, float, str]] = []
    await executor.execute(
        backend,
        CompactionOperation(),
        compact(),
        progress=lambda config, done, total, unit: told.append((config.target_table, done, total, unit)),
    )
    assert told == [(str(TABLE), done, 3, "steps") for done in range(4)]
