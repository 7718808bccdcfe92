"""The service over a fleet of real file backends."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from aurum_orchestration.errors import BackendUnavailableError, RequestError, UnknownNameError
from aurum_orchestration.fleet.config import FleetConfig
from aurum_orchestration.fleet.fleet import Fleet
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.history import History
from aurum_orchestration.maintenance import (
    BaseMaintenanceOperation,
    MaintenanceConfig,
    MaintenanceExecutor,
    MaintenanceFactory,
    MaintenanceResult,
    MaintenanceService,
    MaintenanceStatus,
    OperationType,
    create_maintenance_service,
)
from aurum_orchestration.maintenance.interfaces import PolicyLookup, RunContext, TableHealth
from aurum_orchestration.maintenance.planner.rank import Budget
from aurum_orchestration.maintenance.rounds import Respect
from aurum_orchestration.maintenance.threads import run_sync
from aurum_orchestration.settings import AurumSettings
from aurum_orchestration_tests.unit.maintenance.files import FilesBackend, FileTable
from aurum_orchestration_tests.unit.maintenance.test_executor import SOON, snapshot

EAGER = {"compaction": {"trigger_excess_files": 3, "clear_excess_files": 1}}


class Lake:
    """A fleet of two file backends in a folder, and the service over it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.config: dict[str, Any] = {
            "version": 1,
            "policy": EAGER,
            "backends": {
                name: {"type": "files", "root": str(folder / name), "max_parallel": 2} for name in ("disk", "tape")
            },
        }
        self.service = self.make(**settings)

    def make(self, **settings: Any) -> MaintenanceService:
        fleet = Fleet(FleetConfig.model_validate(self.config), home=self.home)
        return MaintenanceService(AurumSettings(home=self.home), fleet=fleet, who="tester", **settings)

    def backend(self, name: str = "disk") -> FilesBackend:
        backend = self.service.backends.get(name)
        assert isinstance(backend, FilesBackend)
        return backend

    def table(self, name: str, files: int, backend: str = "disk") -> FileTable:
        table = FileTable(self.folder / backend / "ns" / name).create()
        for number in range(files):
            table.append(f"{name} {number}")
        return table


@pytest.fixture
async def lake(tmp_path: Path) -> AsyncIterator[Lake]:
    MaintenanceFactory.register_backend("files", FilesBackend)
    for name in ("disk", "tape"):
        (tmp_path / name).mkdir()
    lake = Lake(tmp_path)
    async with lake.service:
        yield lake


def down(_: int, __: RunContext) -> None:
    raise BackendUnavailableError("the disk does not answer")


def statuses(results: list[MaintenanceResult]) -> list[tuple[str, str]]:
    return [(result.config.target_table, str(result.status)) for result in results]


# --- one request


async def test_one_operation_by_name_type_or_table_id(lake: Lake) -> None:
    for number, (backend, target) in enumerate(
        [("disk", "disk.ns.a"), ("disk", "ns.b"), (None, "disk.ns.c"), ("disk", "files.ns.d")]
    ):
        name = "abcd"[number]
        table = lake.table(name, 8)
        result = await lake.service.execute_maintenance(backend, OperationType.COMPACTION, target)
        assert result.status is MaintenanceStatus.COMPLETED, result.problem
        assert (result.backend, result.config.target_table) == ("disk", f"disk.ns.{name}")
        assert len(table.files) == 2


async def test_a_type_that_several_backends_have_is_not_guessed(lake: Lake) -> None:
    with pytest.raises(RequestError, match="disk, tape"):
        await lake.service.execute_maintenance("files", "compaction", "ns.a")


@pytest.mark.parametrize(
    ("backend", "operation", "table", "hint"),
    [
        ("disc", "compaction", "disk.ns.a", "'disk'"),
        (None, "compaction", "tap.ns.a", "'tape'"),
        ("disk", "compactoin", "disk.ns.a", "'compaction'"),
        ("iceberg", "compaction", "disk.ns.a", "Known: disk, files, tape."),
    ],
)
async def test_an_unknown_name_raises_with_the_nearest(
    lake: Lake, backend: str | None, operation: str, table: str, hint: str
) -> None:
    with pytest.raises(UnknownNameError) as caught:
        await lake.service.execute_maintenance(backend, operation, table)
    assert hint in (caught.value.hint or "")


async def test_the_policy_gives_what_the_request_does_not(lake: Lake) -> None:
    lake.config["policy"] = {"compaction": {"target_file_size_mb": 64, "min_input_files": 7}}
    lake.table("a", 8)
    async with lake.make() as service:
        planned = await service.execute_maintenance(
            "disk", "compaction", "ns.a", dry_run=True, parameters={"min_input_files": 3}
        )
        plan = service.backends.get("disk").plan(
            TableId("disk", ("ns", "a")),
            "compaction",
            MaintenanceFactory.create_operation("compaction").parameters(
                {"min_input_files": 3}, service.fleet.policy(TableId("disk", ("ns", "a")), "compaction")
            ),
        )
    assert (plan.parameters["target_file_size_mb"], plan.parameters["min_input_files"]) == (64, 3)
    assert planned.plan_id == plan.plan_id


async def test_an_operation_type_without_implementation_is_skipped(lake: Lake) -> None:
    result = await lake.service.execute_maintenance("disk", OperationType.CUSTOM, "ns.a")
    assert (result.status, result.reason) == (MaintenanceStatus.SKIPPED, "custom is not available in this version")


# --- batches


async def test_a_batch_answers_in_the_order_asked_with_failures_as_results(lake: Lake) -> None:
    for name in "abc":
        lake.table(name, 8)
    lake.table("t", 8, backend="tape")
    results = await lake.service.execute_batch_maintenance(
        [
            {"backend_type": "disk", "operation_type": "compaction", "target_table": "ns.c"},
            {"operation_type": "compaction", "target_table": "disk.ns.gone"},
            MaintenanceConfig(operation_type=OperationType.COMPACTION, target_table="tape.ns.t", dry_run=True),
            {"operation_type": OperationType.COMPACTION, "target_table": "disk.ns.a"},
        ]
    )
    assert statuses(results) == [
        ("disk.ns.c", "completed"),
        ("disk.ns.gone", "failed"),
        ("tape.ns.t", "planned"),
        ("disk.ns.a", "completed"),
    ]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"operation_type": "compaction"}, "target_table"),
        ({"operation_type": "compaction", "target_table": "disk.ns.b", "dryrun": True}, "'dryrun'"),
        ({"operation_type": "compaction", "target_table": "disk.ns.b", "parameters": {"x": 1}}, "'x'"),
    ],
)
async def test_a_batch_with_a_request_nobody_understands_starts_nothing(
    lake: Lake, bad: dict[str, Any], said: str
) -> None:
    table = lake.table("a", 8)
    with pytest.raises(RequestError, match=said):
        await lake.service.execute_batch_maintenance(
            [{"operation_type": "compaction", "target_table": "disk.ns.a"}, bad]
        )
    assert (len(table.files), lake.service.history.operations()) == (8, [])


async def test_a_batch_runs_so_many_at_once_per_backend_and_one_at_a_time_per_table(lake: Lake) -> None:
    for name in "abcd":
        lake.table(name, 4)
    together = threading.Barrier(2, timeout=SOON)
    backend = lake.backend()

    def hold(_: int, __: RunContext) -> None:
        together.wait()  # two are at work at once
        threading.Event().wait(0.05)  # and a third would show up

    backend.hooks["stage"] = hold
    requests = [{"operation_type": "compaction", "target_table": f"disk.ns.{name}"} for name in "aabbccdd"]
    results = await lake.service.execute_batch_maintenance(requests)
    assert backend.busiest == 2
    assert [str(result.status) for result in results] == ["completed", "skipped"] * 4


async def test_a_stream_yields_results_as_they_end(lake: Lake) -> None:
    lake.table("slow", 4)
    lake.table("quick", 4)
    go = threading.Event()
    lake.backend().hooks["commit"] = lambda _, run: go.wait(SOON) if run.operation_id == slow else None
    slow = ""

    def first(_: int, run: RunContext) -> None:
        nonlocal slow
        lake.backend().hooks.pop("open")
        slow = run.operation_id

    lake.backend().hooks["open"] = first
    ended = []
    requests = [{"operation_type": "compaction", "target_table": f"disk.ns.{name}"} for name in ("slow", "quick")]
    async for result in lake.service.stream_batch_maintenance(requests):
        ended.append(result)
        go.set()
    assert len(ended) == 2
    assert ended[1].operation_id == slow


async def test_leaving_a_stream_early_cancels_the_rest(lake: Lake) -> None:
    for name in "abc":
        lake.table(name, 4)

    def hold(_: int, run: RunContext) -> None:
        if not one_done.is_set():
            one_done.set()
            return
        assert run.cancelled.wait(SOON), "nobody stopped the stage"
        run.check()

    one_done = threading.Event()
    lake.backend().hooks["stage"] = hold
    requests = [{"operation_type": "compaction", "target_table": f"disk.ns.{name}"} for name in "abc"]
    async with aclosing(lake.service.stream_batch_maintenance(requests)) as results:
        async for result in results:
            assert result.status is MaintenanceStatus.COMPLETED
            break
    assert {str(one.status) for one in lake.service.history.operations()} <= {"completed", "cancelled"}
    assert len(lake.backend().commits) == 1
    assert lake.backend().busiest <= 2


# --- what is there and how it is


async def test_status_and_health_write_nothing(lake: Lake) -> None:
    lake.table("a", 8)
    before = snapshot(lake.folder)
    (status,) = await lake.service.status(["disk.**"])
    assert (status.table, status.healthy, status.decision.operation) == ("disk.ns.a", False, "compaction")
    (await lake.service.maintain(dry_run=True))
    assert snapshot(lake.folder) == before
    assert not lake.home.exists()


@pytest.mark.parametrize("point", ["discover", "measure"])
async def test_one_bad_backend_stops_no_other_and_is_not_hidden(lake: Lake, point: str) -> None:
    lake.table("a", 8)
    lake.table("b", 1)
    lake.table("t", 1, backend="tape")
    await lake.service.discover()
    lake.backend().hooks[point] = down

    states = {status.table: status for status in await lake.service.status()}

    assert sorted(states) == ["disk.ns.a", "disk.ns.b", "tape.ns.t"]
    assert states["tape.ns.t"].healthy
    for name in ("disk.ns.a", "disk.ns.b"):
        problem = states[name].problem
        assert problem is not None
        assert (problem.type, problem.table) == ("backend-unavailable", name)
        assert not states[name].healthy


async def test_a_bad_backend_of_which_nothing_is_known_has_one_entry(lake: Lake) -> None:
    lake.table("t", 1, backend="tape")
    lake.backend().hooks["discover"] = down
    assert [status.table for status in await lake.service.status()] == ['disk."*"', "tape.ns.t"]
    assert [status.table for status in await lake.service.status(["disk.ns.*"])] == ['disk."*"']
    assert [str(table) for table in await lake.service.tables()] == ["tape.ns.t"]
    with pytest.raises(BackendUnavailableError):
        await lake.service.tables(["disk.ns.*"])
    results = await lake.service.maintain()
    assert statuses(results) == [('disk."*"', "failed")]
    assert lake.service.history.operations() == []


async def test_a_backend_that_hangs_is_given_up(lake: Lake) -> None:
    lake.table("t", 1, backend="tape")
    over = threading.Event()
    async with lake.make(patience=timedelta(seconds=0.2)) as service:
        backend = service.backends.get("disk")
        assert isinstance(backend, FilesBackend)
        backend.hooks["discover"] = lambda _, __: over.wait(SOON)
        states = await service.status()
        over.set()
    assert states[0].problem is not None
    assert "did not answer within 0.2 s" in (states[0].problem.detail or "")
    assert states[1].problem is None


async def test_a_table_the_backend_says_nothing_about_has_a_problem(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.table("a", 1)
    monkeypatch.setattr(lake.backend(), "measure", lambda _tables, _policy: [])
    (status,) = await lake.service.status(["disk.**"])
    assert status.problem is not None
    assert status.problem.type == "internal-error"


async def test_tables_follow_globs_and_an_unmatched_one_raises(lake: Lake) -> None:
    lake.table("a", 1)
    lake.table("b", 1)
    assert [str(table) for table in await lake.service.tables(["disk.*.b"])] == ["disk.ns.b"]
    with pytest.raises(UnknownNameError, match=r"disk\.ns\.c"):
        await lake.service.tables(["disk.ns.a", "disk.ns.c"])


async def test_discover_remembers_and_keeps_what_is_remembered_of_a_backend_that_is_down(lake: Lake) -> None:
    lake.table("a", 1)
    assert [str(one.table) for one in await lake.service.discover()] == ["disk.ns.a"]
    lake.backend().hooks["discover"] = down
    assert [str(one.table) for one in await lake.service.discover()] == ["disk.ns.a"]
    assert [str(one.table) for one in lake.service.fleet.tables()] == ["disk.ns.a"]


# --- a round


async def test_a_round_does_what_the_planner_wants_best_first(lake: Lake) -> None:
    lake.table("few", 4)
    lake.table("many", 20)
    lake.table("fine", 1)
    told: list[MaintenanceResult] = []

    results = await lake.service.maintain(on_result=told.append)

    assert statuses(results) == [("disk.ns.many", "completed"), ("disk.ns.few", "completed")]
    assert {one.operation_id for one in told} == {one.operation_id for one in results}
    assert [str(one.table) for one in lake.service.fleet.tables()] == ["disk.ns.few", "disk.ns.fine", "disk.ns.many"]


async def test_without_names_a_round_waits_for_the_cooldown_with_names_it_does_not(lake: Lake) -> None:
    table = lake.table("a", 8)
    assert statuses(await lake.service.maintain()) == [("disk.ns.a", "completed")]
    for number in range(8):
        table.append(f"later {number}")
    assert await lake.service.maintain() == []
    assert statuses(await lake.service.maintain(operations=["compaction"])) == [("disk.ns.a", "completed")]


async def test_a_named_operation_is_not_run_below_its_threshold(lake: Lake) -> None:
    table = lake.table("a", 3)
    (result,) = await lake.service.maintain(operations=[OperationType.COMPACTION])
    assert (result.status, len(table.files)) == (MaintenanceStatus.SKIPPED, 3)
    assert "2 files could be saved" in result.reason
    assert lake.service.history.operations() == []


async def test_a_named_operation_is_run_though_the_planner_may_not_start_it(lake: Lake) -> None:
    lake.config["policy"] = {"compaction": {**EAGER["compaction"], "enabled": False}}
    lake.table("a", 8)
    lake.table("b", 2)
    async with lake.make() as service:
        assert await service.maintain() == []
        results = await service.maintain(operations=["compaction"])
    assert statuses(results) == [("disk.ns.a", "completed"), ("disk.ns.b", "skipped")]


async def test_parameters_go_before_the_policy_when_deciding_too(lake: Lake) -> None:
    lake.table("a", 8)
    seen = []
    measure = lake.backend().measure

    def watch(tables: Any, policy: Callable[..., Any]) -> Any:
        seen.append(policy(tables[0], "compaction").target_file_size_mb)
        return measure(tables, policy)

    lake.backend().measure = watch  # type: ignore[method-assign]
    (result,) = await lake.service.maintain(
        ["disk.**"], ["compaction"], dry_run=True, parameters={"target_file_size_mb": 7}
    )
    assert seen == [7]
    assert result.config.parameters == {"target_file_size_mb": 7}
    with pytest.raises(RequestError, match="target"):
        await lake.service.maintain(operations=["compaction"], parameters={"target": 7})


async def test_a_named_operation_that_nothing_implements_is_skipped_for_each_table(lake: Lake) -> None:
    lake.table("a", 8)
    lake.table("b", 8)
    results = await lake.service.maintain(["disk.**"], ["custom"])
    assert statuses(results) == [("disk.ns.a", "skipped"), ("disk.ns.b", "skipped")]
    assert results[0].reason == "custom is not available in this version"
    with pytest.raises(UnknownNameError):
        await lake.service.maintain(operations=["reindx"])


async def test_what_the_budget_cuts_is_skipped_with_the_reason(lake: Lake) -> None:
    lake.table("a", 8)
    lake.table("b", 20)
    results = await lake.service.maintain(budget=Budget(tables=1))
    assert statuses(results) == [("disk.ns.b", "completed"), ("disk.ns.a", "skipped")]
    assert "budget of 1 table" in results[1].reason


async def test_in_a_round_one_bad_table_stops_no_other_and_is_named(lake: Lake) -> None:
    for name in "abc":
        lake.table(name, 8)
    lake.table("t", 8, backend="tape")
    await lake.service.discover()
    lake.backend("tape").hooks["measure"] = down
    (next((lake.folder / "disk" / "ns" / "b").glob("*.txt"))).write_bytes(b"\xff")  # unreadable rows

    found = dict(statuses(await lake.service.maintain()))

    assert found == {
        "disk.ns.a": "completed",
        "disk.ns.b": "failed",
        "disk.ns.c": "completed",
        "tape.ns.t": "failed",
    }
    assert statuses(await lake.service.maintain(["tape.**"], ["compaction"])) == [("tape.ns.t", "failed")]


async def test_without_a_readable_history_decisions_are_made_and_applies_refused(
    lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    lake.table("a", 8)
    lake.home.mkdir()
    (lake.home / "history.db").write_text("this is no database, whatever it is called" * 50)
    assert [status.decision.operation for status in await lake.service.status(["disk.**"])] == ["compaction"]
    assert statuses(await lake.service.maintain(dry_run=True)) == [("disk.ns.a", "planned")]
    assert "without the history" in caplog.text
    (result,) = await lake.service.maintain()
    assert result.problem is not None
    assert result.problem.type == "history-unusable"


async def test_cancelling_a_round_ends_everything_and_tells_what_was_cancelled(lake: Lake) -> None:
    tables = [lake.table(name, 8) for name in "abcd"]
    rows = [table.rows() for table in tables]
    started = threading.Semaphore(0)

    def hold(_: int, run: RunContext) -> None:
        started.release()
        assert run.cancelled.wait(SOON), "nobody stopped the stage"
        run.check()

    lake.backend().hooks["stage"] = hold
    told: list[MaintenanceResult] = []
    task = asyncio.create_task(lake.service.maintain(on_result=told.append))
    for _ in range(2):
        await asyncio.to_thread(started.acquire)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [str(one.status) for one in told] == ["cancelled", "cancelled"]
    assert [table.rows() for table in tables] == rows
    assert all(not table.leftovers() for table in tables)


async def test_a_hooks_own_fault_is_raised_instead_of_waiting_for_ever(lake: Lake) -> None:
    lake.table("a", 8)

    def broken(_: MaintenanceResult) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(lake.service.maintain(on_result=broken), SOON)


# --- users' own operations


class Count(BaseMaintenanceOperation):
    """Counts the rows, under the lease."""

    seen: dict[str, Any] = {}  # noqa: RUF012 - shared with the test

    def __init__(self) -> None:
        super().__init__(OperationType.CUSTOM)

    async def _execute_impl(self, backend: Any, config: MaintenanceConfig) -> dict[str, Any]:
        table = TableId.parse(config.target_table)
        self.seen["lease"] = self.seen["history"].holder(table)
        if wait := self.seen.get("wait"):
            await wait()
        return {"rows": len(backend.table(table).rows()), "note": "text is no metric"}


@pytest.fixture
def counting(lake: Lake) -> dict[str, Any]:
    MaintenanceFactory.register_operation(OperationType.CUSTOM, Count)
    Count.seen = {"history": lake.service.history}
    return Count.seen


async def test_a_custom_operation_runs_under_the_lease_and_is_recorded(lake: Lake, counting: dict[str, Any]) -> None:
    lake.table("a", 8)
    result = await lake.service.execute_maintenance("disk", OperationType.CUSTOM, "ns.a")
    assert (result.status, result.metrics) == (MaintenanceStatus.COMPLETED, {"rows": 8})
    assert counting["lease"].holder == "tester"
    assert [one.operation_id for one in lake.service.history.operations()] == [result.operation_id]
    assert lake.service.history.holder(TableId("disk", ("ns", "a"))) is None


async def test_a_dry_run_does_not_call_a_custom_operation(lake: Lake, counting: dict[str, Any]) -> None:
    lake.table("a", 8)
    result = await lake.service.execute_maintenance("disk", "custom", "ns.a", dry_run=True)
    assert result.status is MaintenanceStatus.PLANNED
    assert "cannot be looked into" in result.reason
    assert "lease" not in counting


async def test_a_named_round_runs_a_custom_operation(lake: Lake, counting: dict[str, Any]) -> None:
    lake.table("a", 8)
    assert statuses(await lake.service.maintain(operations=["custom"])) == [("disk.ns.a", "completed")]


async def test_a_custom_operation_that_loses_its_lease_is_stopped(lake: Lake, counting: dict[str, Any]) -> None:
    lake.table("a", 8)

    async def lose() -> None:
        with sqlite3.connect(lake.home / "history.db") as store:
            store.execute("update aurum_leases set token = token + 1, holder = 'thief'")
        store.close()
        await asyncio.sleep(SOON)
        raise AssertionError("nobody stopped it")

    counting["wait"] = lose
    executor = MaintenanceExecutor(lake.service.history, lease_ttl=timedelta(seconds=0.3))
    config = MaintenanceConfig(operation_type="custom", target_table="disk.ns.a")
    result = await executor.execute(lake.backend(), Count(), config)
    assert result.problem is not None
    assert (result.status, result.problem.type) == (MaintenanceStatus.FAILED, "lease-lost")


async def test_a_cancelled_custom_operation_is_recorded(lake: Lake, counting: dict[str, Any]) -> None:
    lake.table("a", 8)
    reached = asyncio.Event()

    async def hold() -> None:
        reached.set()
        await asyncio.sleep(SOON)

    counting["wait"] = hold
    task = asyncio.create_task(lake.service.execute_maintenance("disk", "custom", "ns.a"))
    await asyncio.wait_for(reached.wait(), SOON)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [str(one.status) for one in lake.service.history.operations()] == ["cancelled"]


# --- life of a service


async def test_backends_connect_when_first_used_and_again_after_a_disconnect(lake: Lake) -> None:
    lake.table("a", 1)
    assert lake.backend().connections == 0
    await lake.service.status()
    await lake.service.status()
    backend = lake.backend()
    assert backend.connections == 1
    await lake.service.disconnect()
    await lake.service.disconnect()
    await lake.service.status()
    await lake.service.connect()
    assert lake.backend().connections == 1
    assert lake.backend() is not backend


async def test_a_backend_that_cannot_be_closed_stops_no_other_from_closing(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[object] = []

    async def bad(_: object) -> None:
        raise BackendUnavailableError("stuck")

    async def good(connection: object) -> None:
        closed.append(connection)

    await lake.service.connect()
    monkeypatch.setattr(lake.backend("disk"), "_close_connection", bad)
    monkeypatch.setattr(lake.backend("tape"), "_close_connection", good)
    with pytest.raises(BackendUnavailableError, match="stuck"):
        await lake.service.disconnect()
    assert len(closed) == 1


async def test_services_with_different_settings_live_side_by_side(
    tmp_path: Path,
) -> None:
    MaintenanceFactory.register_backend("files", FilesBackend)
    services = []
    for name in ("one", "two"):
        (tmp_path / name / "root").mkdir(parents=True)
        table = FileTable(tmp_path / name / "root" / "ns" / name).create()
        for number in range(8):
            table.append(f"{name} {number}")
        fleet = tmp_path / name / "fleet.yaml"
        fleet.write_text(
            f"version: 1\nbackends: {{store: {{type: files, root: '{tmp_path / name / 'root'}'}}}}\n"
            "policy: {compaction: {trigger_excess_files: 3, clear_excess_files: 1}}\n"
        )
        services.append(create_maintenance_service(AurumSettings(home=tmp_path / name / "home", fleet=fleet)))
    results = await asyncio.gather(*(service.maintain() for service in services))
    assert [statuses(found) for found in results] == [
        [("store.ns.one", "completed")],
        [("store.ns.two", "completed")],
    ]
    for service, found in zip(services, results, strict=True):
        assert [one.operation_id for one in service.history.operations()] == [found[0].operation_id]
        await service.close()


def test_threads_that_each_run_a_loop_share_a_service(tmp_path: Path) -> None:
    MaintenanceFactory.register_backend("files", FilesBackend)
    for name in ("disk", "tape"):
        (tmp_path / name).mkdir()
    lake = Lake(tmp_path)
    lake.table("a", 8)
    together = threading.Barrier(4, timeout=SOON)

    def ask() -> list[str]:
        together.wait()
        return [status.table for status in run_sync(lake.service.status())]

    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask) for _ in range(4)]
        assert [answer.result(SOON) for answer in answers] == [["disk.ns.a"]] * 4
    assert lake.backend().connections == 1
    run_sync(lake.service.close())


def test_a_service_comes_from_the_environment_and_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AURUM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AURUM_HISTORY_URL", f"sqlite:///{tmp_path / 'log.db'}")
    monkeypatch.chdir(tmp_path)
    service = MaintenanceService()
    assert list(service.fleet.backends) == ["iceberg"]
    assert isinstance(service.history, History)
    assert service.history.operations() == []
    assert list(tmp_path.iterdir()) == []


# --- calendar and nights


def with_rules(lake: Lake, **backend: Any) -> MaintenanceService:
    lake.config["backends"]["disk"] |= backend
    return lake.make()


async def test_a_round_respects_blackouts_and_a_person_passes_over_them(lake: Lake) -> None:
    lake.table("a", 8)
    closed = with_rules(lake, policy={"calendar": {"blackouts": ["00:00-24:00"]}})
    assert statuses(await closed.maintain()) == []
    ((_, _, decisions),) = [one for one in await closed.health() if one[0].table.name == "a"]
    assert decisions[0].code == "blackout"
    assert statuses(await closed.maintain(operations=["compaction"])) == [("disk.ns.a", "completed")]


async def test_a_night_spends_its_budget_once(lake: Lake) -> None:
    lake.table("a", 9)
    lake.table("b", 6)
    service = with_rules(lake, budget={"tables": 1})
    first = await service.maintain()
    assert statuses(first) == [("disk.ns.a", "completed"), ("disk.ns.b", "skipped")]
    again = await service.maintain()
    assert statuses(again) == [("disk.ns.b", "skipped")]
    assert "the night's budget of 1 table is used up" in again[0].reason
    # the budget caps the planner, not a person
    assert statuses(await service.maintain(["disk.ns.b"], ["compaction"])) == [("disk.ns.b", "completed")]


async def test_dry_runs_and_skipped_operations_spend_nothing(lake: Lake) -> None:
    lake.table("a", 9)
    service = with_rules(lake, budget={"tables": 1})
    await service.maintain(dry_run=True)
    lake.table("idle", 1)
    await service.maintain(["disk.ns.idle"], ["compaction"])
    assert (await service.night_budget("disk")).spent.tables == frozenset()
    await service.maintain()
    spent = (await service.night_budget("disk")).spent
    assert spent.tables == {"disk.ns.a"}
    assert spent.seconds > 0


async def test_without_caps_the_history_is_not_asked(lake: Lake) -> None:
    assert await lake.service.night_budget("disk") == Budget()


async def test_explain_tells_every_value_with_its_source(lake: Lake) -> None:
    lake.table("a", 8)
    service = with_rules(lake, policy={"calendar": {"windows": ["2020-01-01/2020-01-02"]}}, budget={"minutes": 30})
    told = await service.explain("disk.ns.a")
    (compaction,) = [one for one in told.operations if one.operation == "compaction"]
    values = {entry.key: (entry.value, entry.source) for entry in compaction.policy}
    assert values["trigger_excess_files"] == (3, "fleet")
    assert values["verify"] == (True, "default")
    assert compaction.decision is not None
    assert compaction.decision.code == "window"
    assert told.closed == "outside its maintenance windows, with no end in sight"
    assert {entry.key: entry.source for entry in told.calendar}["windows"] == "backend disk"
    assert told.budget == {"minutes": 30}


async def test_explain_takes_one_table(lake: Lake) -> None:
    lake.table("a", 1)
    lake.table("b", 1)
    with pytest.raises(RequestError, match="2 tables"):
        await lake.service.explain("disk.ns.*")
    with pytest.raises(UnknownNameError):
        await lake.service.explain("disk.ns.c")


async def test_a_schedule_passes_over_cooldown_alone(lake: Lake) -> None:
    table = lake.table("a", 8)
    assert statuses(await lake.service.maintain()) == [("disk.ns.a", "completed")]
    for number in range(8):
        table.append(f"again {number}")
    held = await lake.service.maintain(operations=["compaction"], respect=Respect.DECISIONS)
    assert statuses(held) == [("disk.ns.a", "skipped")]
    assert "cools down until" in held[0].reason
    off = with_rules(lake, policy={"compaction": {"enabled": False}})
    assert statuses(await off.maintain(operations=["compaction"], respect=Respect.CALENDAR)) == [
        ("disk.ns.a", "skipped")
    ]
    spent = with_rules(lake, policy={}, budget={"minutes": 0})
    assert statuses(await spent.maintain(operations=["compaction"], respect=Respect.CALENDAR)) == [
        ("disk.ns.a", "skipped")
    ]
    done = await lake.service.maintain(operations=["compaction"], respect=Respect.CALENDAR)
    assert statuses(done) == [("disk.ns.a", "completed")]


async def test_which_backends_have_an_operation(lake: Lake) -> None:
    assert lake.service.backends_with("compaction") == ["disk", "tape"]
    assert lake.service.backends_with("reindex") == []
    lake.config["backends"]["tape"] = {"type": "of a package that is gone"}
    assert lake.make().backends_with("compaction") == ["disk"]


# --- several rounds that share what was measured


def asked_of(backend: FilesBackend, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The tables of each call of the backend's ``measure``, by name; it measures as ever."""
    calls: list[list[str]] = []
    measure = backend.measure

    def counted(tables: Sequence[TableId], policy: PolicyLookup) -> list[TableHealth]:
        calls.append([table.name for table in tables])
        return measure(tables, policy)

    monkeypatch.setattr(backend, "measure", counted)
    return calls


async def test_rounds_that_share_measure_once_and_again_what_changed(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.table("sick", 9)
    lake.table("fine", 2)
    calls = asked_of(lake.backend(), monkeypatch)
    shared = lake.service.sharing(["compaction"])
    rounds = [await lake.service.maintain(["disk.**"], ["compaction"], shared=shared) for _ in range(3)]
    assert [[(one.config.target_table[-4:], str(one.status)) for one in done] for done in rounds] == [
        [("sick", "completed"), ("fine", "skipped")],
        [("fine", "skipped"), ("sick", "skipped")],
        [("fine", "skipped"), ("sick", "skipped")],
    ]
    assert calls == [["fine", "sick"], ["sick"]]


async def test_what_is_shared_is_measured_by_the_parameters_of_all_operations(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.table("a", 9)
    seen: list[tuple[Any, Any]] = []
    measure = lake.backend().measure

    def looking(tables: Sequence[TableId], policy: PolicyLookup) -> list[TableHealth]:
        rules: Any = policy(tables[0], "compaction")
        seen.append((rules.min_input_files, rules.enabled))
        return measure(tables, policy)

    monkeypatch.setattr(lake.backend(), "measure", looking)
    lake.config["policy"] = {"compaction": {"enabled": False}}
    shared = lake.service.sharing(["stats", "compaction"], {"compaction": {"min_input_files": 7}})
    assert not shared.plain
    await lake.service.maintain(["disk.**"], ["stats"], shared=shared)
    assert seen == [(7, True)]
    with pytest.raises(RequestError, match="min_input"):
        lake.service.sharing(["compaction"], {"compaction": {"min_input": 7}})


async def test_a_dry_run_changes_nothing_that_was_measured(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.table("sick", 9)
    calls = asked_of(lake.backend(), monkeypatch)
    shared = lake.service.sharing(["compaction"])
    for _ in range(2):
        (planned,) = await lake.service.maintain(["disk.**"], ["compaction"], dry_run=True, shared=shared)
        assert planned.status is MaintenanceStatus.PLANNED
    assert len(calls) == 1


async def test_a_table_that_could_not_be_measured_is_tried_again_by_the_next_round(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.table("sick", 9)
    measure = lake.backend().measure
    shared = lake.service.sharing(["compaction"])

    def refused(tables: Sequence[TableId], policy: PolicyLookup) -> list[TableHealth]:
        raise BackendUnavailableError("the disk does not answer")

    monkeypatch.setattr(lake.backend(), "measure", refused)
    (failed,) = await lake.service.maintain(["disk.**"], ["compaction"], shared=shared)
    monkeypatch.setattr(lake.backend(), "measure", measure)
    (done,) = await lake.service.maintain(["disk.**"], ["compaction"], shared=shared)
    assert (failed.status, done.status) == (MaintenanceStatus.FAILED, MaintenanceStatus.COMPLETED)
