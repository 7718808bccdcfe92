"""What the compaction sensor requests, and what it says when it requests nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import AsyncMock, MagicMock

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData

from aurum_orchestration.dagster_edge.cursor import Cursor
from aurum_orchestration.dagster_edge.sensors import Measuring, maintenance_sensor
from aurum_orchestration.dagster_edge.tick import Tick, plan_tick
from aurum_orchestration.errors import BackendUnavailableError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.interfaces import Decision, Gain, TableHealth
from aurum_orchestration.maintenance.planner.rank import NO_BUDGET
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.maintenance.survey import Examined
from aurum_orchestration_tests.dagster.conftest import Location
from aurum_orchestration_tests.lake import FIRST, append_small_files

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


# --- on a real lake


def test_a_tick_requests_what_the_planner_wants(location: Location) -> None:
    tick = location.tick()
    (request,) = tick.run_requests
    assert request.run_config == {
        "ops": {"compaction": {"config": {"tables": ["lake.market.trades"], "respect": "decisions"}}}
    }
    assert request.tags["aurum/operation"] == "compaction"
    assert request.tags["aurum/backend"] == "lake"
    assert request.tags["aurum/table"] == "lake.market.trades"
    job = location.definitions().get_repository_def().get_job("compaction")
    assert dg.validate_run_config(job, request.run_config)
    result = job.execute_in_process(run_config=request.run_config, instance=location.instance)
    assert len(result.get_asset_observation_events()) == 1
    after = location.tick(tick.cursor)
    assert not after.run_requests
    assert after.skip_message.startswith("4 tables looked at; none needs compaction now; closest: lake.market.")


def test_nothing_to_do_names_the_closest_table_and_why(healthy_location: Location) -> None:
    tick = healthy_location.tick()
    assert not tick.run_requests
    assert tick.skip_message == (
        "4 tables looked at; none needs compaction now; "
        "closest: lake.market.curves: healthy: 5 files could be saved, acts at 20"
    )


def test_the_same_state_is_requested_once(location: Location) -> None:
    first = location.tick()
    second = location.tick(first.cursor)
    assert not second.run_requests
    assert "1 in need with a run requested or in progress, first lake.market.trades" in second.skip_message
    assert second.cursor == first.cursor
    forgotten = location.tick('{"v":999,"something":"else"}')
    assert forgotten.run_requests[0].run_key == first.run_requests[0].run_key  # Dagster then drops it


def test_a_table_with_a_run_in_progress_is_left_alone_though_it_changes(location: Location) -> None:
    job = location.definitions().get_repository_def().get_job("compaction")
    run = location.instance.create_run_for_job(
        job,
        run_config={"ops": {"compaction": {"config": {"tables": ["lake.market.t*"]}}}},
        status=dg.DagsterRunStatus.STARTED,
    )
    location.make_sick("market.trades")
    tick = location.tick()
    assert not tick.run_requests
    location.instance.report_run_canceled(run)
    assert len(location.tick(tick.cursor).run_requests) == 1


def test_a_dry_run_in_progress_is_no_reason_to_wait(location: Location) -> None:
    job = location.definitions().get_repository_def().get_job("compaction")
    config = {"ops": {"compaction": {"config": {"dry_run": True}}}}
    location.instance.create_run_for_job(job, run_config=config, status=dg.DagsterRunStatus.STARTED)
    assert len(location.tick().run_requests) == 1


def test_a_run_of_the_whole_fleet_keeps_the_sensor_quiet(location: Location) -> None:
    job = location.definitions().get_repository_def().get_job("compaction")
    location.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert not location.tick().run_requests


def test_after_a_run_the_table_cools_down(location: Location) -> None:
    cursor = location.tick().cursor
    assert location.run("compaction", tables=["lake.market.trades"]).success
    location.make_sick("market.trades")
    tick = location.tick(cursor)
    assert not tick.run_requests
    assert "closest: lake.market.trades: " in tick.skip_message
    assert "cools down until" in tick.skip_message


def test_a_backend_that_is_down_is_a_skip_with_its_problem(location: Location) -> None:
    location.run("health")
    (location.home / "catalog.db").write_bytes(b"this is no database")
    tick = location.tick()
    assert not tick.run_requests
    assert tick.skip_message.startswith("4 tables, none could be measured: ")


def test_a_lake_without_tables_is_a_skip(location: Location) -> None:
    with closing(location.catalog()) as catalog:
        for name in catalog.list_tables("market"):
            catalog.drop_table(name)
    assert location.tick().skip_message.startswith("backend lake: 'lake.**' matches no table. ")


def test_sensors_are_named_after_operation_and_backend_and_stopped(location: Location) -> None:
    sensors = [sensor for sensor in location.definitions().sensors or [] if isinstance(sensor, dg.SensorDefinition)]
    assert "compaction_lake" in {sensor.name for sensor in sensors}
    assert {sensor.default_status for sensor in sensors} == {dg.DefaultSensorStatus.STOPPED}


# --- a backend that takes its time


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    opened = threading.Event()
    yield opened
    opened.set()


def test_a_slow_measurement_goes_on_and_the_next_tick_takes_it(gate: threading.Event) -> None:
    measuring, calls = Measuring(), []

    def measure() -> list[Examined]:
        calls.append(1)
        gate.wait()
        return []

    assert measuring.outcome(measure, patience=0.01) is None
    assert measuring.outcome(measure, patience=0.01) is None
    assert len(calls) == 1  # a hung backend is asked once
    gate.set()
    assert measuring.outcome(measure, patience=30) == []
    assert len(calls) == 1
    assert measuring.outcome(measure, patience=30) == []
    assert len(calls) == 2


def test_a_late_outcome_that_is_too_old_is_not_used(gate: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring = Measuring()
    ended = threading.Event()

    def late() -> list[Examined]:
        gate.wait()
        ended.set()
        return [examined("old")]

    assert measuring.outcome(late, patience=0.01) is None
    gate.set()
    ended.wait()
    monkeypatch.setattr("aurum_orchestration.dagster_edge.sensors.STALE_SECONDS", -1)
    assert measuring.outcome(lambda: [], patience=30) == []


def test_a_failed_measurement_is_told_and_forgotten() -> None:
    measuring = Measuring()

    def fail() -> list[Examined]:
        raise BackendUnavailableError("no route")

    with pytest.raises(BackendUnavailableError, match="no route"):
        measuring.outcome(fail, patience=30)
    assert measuring.outcome(lambda: [], patience=30) == []


def test_an_impatient_sensor_skips_with_the_reason(location: Location) -> None:
    sensor = maintenance_sensor("compaction", "lake", patience=0)
    with dg.build_sensor_context(
        instance=location.instance, cursor="kept", resources=dict(location.definitions().resources or {})
    ) as context:
        tick = sensor.evaluate_tick(context)
    assert tick.skip_message is not None
    assert tick.skip_message.startswith("backend lake did not answer within 0 s; nothing is requested.")
    assert tick.cursor == "kept"


# --- many tables, without an engine


def examined(name: str, token: str = "s1", act: bool = True, gain: float = 1.0) -> Examined:
    table = TableId("lake", ("n", name))
    health = TableHealth(table, "lake", token, NOON)
    return health, gain, [Decision(table, "compaction", act, "recommended" if act else "healthy", "why", Gain(gain))]


def plan(tables: list[Examined], cursor: str | None = None, **options: object) -> Tick:
    given: dict[str, object] = {"busy": lambda _table: False, "last_end": {}, "batch_size": 50, **options}
    return plan_tick("compaction", tables, cursor=Cursor.parse(cursor), **given)  # type: ignore[arg-type]


def test_many_tables_are_requested_in_batches_best_first() -> None:
    tables = [examined(f"t{number:04}", gain=float(number)) for number in range(120)]
    tick = plan(tables)
    assert [len(batch.tables) for batch in tick.batches] == [50, 50, 20]
    assert tick.batches[0].tables[0] == "lake.n.t0119"
    requested = [table for batch in tick.batches for table in batch.tables]
    assert sorted(requested) == sorted(f"lake.n.t{number:04}" for number in range(120))
    assert len({batch.run_key for batch in tick.batches}) == 3


def test_run_keys_depend_on_tables_and_states_alone() -> None:
    one, two = examined("a", gain=1), examined("b", gain=2)
    key = plan([one, two]).batches[0].run_key
    assert plan([examined("b", gain=1), examined("a", gain=2)]).batches[0].run_key == key
    assert plan([one, examined("b", token="s2")]).batches[0].run_key != key
    assert plan([one]).batches[0].run_key != key


def test_a_table_joining_a_batch_does_not_request_the_others_again() -> None:
    first = plan([examined("a"), examined("b")])
    second = plan([examined("a"), examined("b"), examined("c")], str(first.cursor))
    assert [batch.tables for batch in second.batches] == [["lake.n.c"]]
    third = plan([examined("a", token="s2"), examined("b"), examined("c")], str(second.cursor))
    assert [batch.tables for batch in third.batches] == [["lake.n.a"]]


def test_a_table_is_requested_again_once_a_run_ended() -> None:
    """The planner's cooldown and back-off decide when; a failed run leaves the table in the same state."""
    first = plan([examined("a")])
    again = plan([examined("a")], str(first.cursor), last_end={"lake.n.a": NOON - timedelta(hours=1)})
    assert len(again.batches) == 1
    assert again.batches[0].run_key != first.batches[0].run_key


def test_a_run_that_died_without_a_trace_is_asked_for_the_next_day() -> None:
    first = plan([examined("a")])
    health, debt, decisions = examined("a")
    tomorrow = TableHealth(health.table, health.backend, health.state_token, NOON + timedelta(days=1))
    assert len(plan([(tomorrow, debt, decisions)], str(first.cursor)).batches) == 1


def test_the_cursor_forgets_tables_that_are_well_again() -> None:
    tick = plan([examined("a"), examined("b")])
    assert len(tick.cursor.requested) == 2
    assert len(plan([examined("a", act=False), examined("b")], str(tick.cursor)).cursor.requested) == 1


def test_a_busy_table_stays_remembered() -> None:
    first = plan([examined("a")])
    busy: Callable[[TableId], bool] = lambda _table: True  # noqa: E731
    second = plan([examined("a", token="s2")], str(first.cursor), busy=busy)
    assert not second.batches
    assert second.cursor == first.cursor


def test_the_cursor_of_500_tables_is_small() -> None:
    assert len(str(plan([examined(f"t{number}") for number in range(500)]).cursor)) < 16_000


@pytest.mark.parametrize(
    "text", [None, "", "no json", "[]", "3", '{"v":2,"requested":{"a":"b"}}', '{"v":1}', '{"v":1,"requested":7}']
)
def test_a_cursor_nobody_understands_counts_as_empty(text: str | None) -> None:
    assert Cursor.parse(text) == Cursor()


def test_a_cursor_survives_being_written() -> None:
    cursor = Cursor({"a": "b"})
    assert Cursor.parse(str(cursor)) == cursor


# --- retention and vacuum: the same rules, other metrics


def months_old(location: Location, table: str, snapshots: int) -> None:
    """Give a table snapshots that were written two months ago, one by one."""
    with closing(location.catalog()) as catalog:
        name = f"market.{table}"
        for _ in range(snapshots):
            append_small_files(catalog.load_table(name), [FIRST], 1)
        file = Path(catalog.load_table(name).metadata_location.removeprefix("file://"))
        metadata = json.loads(file.read_text())
        earlier = timedelta(days=60) // timedelta(milliseconds=1)
        for entry in [*metadata["snapshots"], *metadata["snapshot-log"], *metadata["metadata-log"], metadata]:
            for key in ("timestamp-ms", "last-updated-ms"):
                if key in entry:
                    entry[key] -= earlier
        file.write_text(json.dumps(metadata))


def policies(location: Location, words: str) -> None:
    text = location.settings.fleet.read_text()
    location.settings.fleet.write_text(text.replace("\npolicy:\n", f"\npolicy:\n  {words}\n"))


def test_retention_is_requested_at_its_threshold_and_rests_after_it(location: Location) -> None:
    months_old(location, "hubs", 24)
    tick = location.tick(sensor="retention_lake")
    (request,) = tick.run_requests
    config = request.run_config["ops"]["retention"]["config"]
    assert config["tables"] == ["lake.market.hubs"]
    assert request.tags["aurum/operation"] == "retention"
    assert request.tags["aurum/table"] == "lake.market.hubs"
    again = location.tick(tick.cursor, "retention_lake")
    assert not again.run_requests
    assert "1 in need with a run requested or in progress, first lake.market.hubs" in again.skip_message
    assert location.run("retention", **config).success
    with closing(location.catalog()) as catalog:
        assert len(catalog.load_table("market.hubs").metadata.snapshots) == 5  # retain_last
    months_old(location, "hubs", 24)
    rest = location.tick(tick.cursor, "retention_lake")
    assert not rest.run_requests
    assert "closest: lake.market.hubs: 24 of 29 snapshots may go; due again at " in rest.skip_message


def test_retention_below_its_threshold_says_how_far(location: Location) -> None:
    months_old(location, "hubs", 14)
    tick = location.tick(sensor="retention_lake")
    assert not tick.run_requests
    assert tick.skip_message.endswith("closest: lake.market.hubs: healthy: 10 of 15 snapshots may go, acts at 20")
    policies(location, "retention: {trigger_snapshots: 10}")
    assert len(location.tick(sensor="retention_lake").run_requests) == 1


def test_vacuum_is_requested_for_tables_old_enough_for_orphans(location: Location) -> None:
    young = location.tick(sensor="vacuum_lake")
    assert not young.run_requests
    assert "its history is 0.0 days old, so nothing can be older than 7 days" in young.skip_message
    months_old(location, "hubs", 1)
    tick = location.tick(young.cursor, "vacuum_lake")
    (request,) = tick.run_requests
    assert request.run_config["ops"]["vacuum"]["config"]["tables"] == ["lake.market.hubs"]
    assert not location.tick(tick.cursor, "vacuum_lake").run_requests
    assert location.run("vacuum", **request.run_config["ops"]["vacuum"]["config"]).success
    rest = location.tick(tick.cursor, "vacuum_lake")
    assert not rest.run_requests
    assert "none needs vacuum now" in rest.skip_message


@pytest.mark.parametrize("operation", ["retention", "vacuum"])
def test_a_window_that_is_shut_and_a_spent_budget_hold_every_sensor_back(location: Location, operation: str) -> None:
    months_old(location, "hubs", 24)
    sensor = f"{operation}_lake"
    key = location.tick(sensor=sensor).run_requests[0].run_key
    assert location.tick('{"v":0,"tables":["older"]}', sensor).run_requests[0].run_key == key  # Dagster drops it
    written = location.settings.fleet.read_text()
    policies(location, 'calendar: {blackouts: ["00:00-24:00"]}')
    assert not location.tick(sensor=sensor).run_requests
    assert "in a blackout" in location.tick(sensor=sensor).skip_message
    location.settings.fleet.write_text(written.replace("type: iceberg\n", "type: iceberg\n    budget: {tables: 0}\n"))
    assert not location.tick(sensor=sensor).run_requests
    assert "night's budget" in location.tick(sensor=sensor).skip_message


def test_an_operation_that_no_policy_enables_has_no_sensor(location: Location) -> None:
    def sensors() -> set[str]:
        return {sensor.name for sensor in location.definitions().sensors or [] if sensor.name.endswith("_lake")}

    assert sensors() == {"compaction_lake", "manifests_lake", "retention_lake", "vacuum_lake"}
    text = location.settings.fleet.read_text()
    rule = text.index("    owners:")
    location.settings.fleet.write_text(f"{text[:rule]}    policy: {{backup: {{enabled: true}}}}\n{text[rule:]}")
    assert sensors() == {"backup_lake", "compaction_lake", "manifests_lake", "retention_lake", "vacuum_lake"}
    policies(location, "vacuum: {enabled: false}")
    assert "vacuum_lake" not in sensors()


# --- 500 sick tables at once


def test_500_sick_tables_are_one_tick_of_ten_runs(instance: dg.DagsterInstance) -> None:
    service = AsyncMock(spec=MaintenanceService)
    service.health.return_value = [examined(f"t{number:03}", gain=float(number)) for number in range(500)]
    service.night_budget.return_value = NO_BUDGET
    service.history = MagicMock()
    service.history.facts.return_value = {}
    sensor = maintenance_sensor("compaction", "lake")
    resource = MagicMock(get=lambda: service)

    def tick(cursor: str | None) -> SensorExecutionData:
        with dg.build_sensor_context(
            instance=instance,
            cursor=cursor,
            resources={"aurum_service": dg.ResourceDefinition.hardcoded_resource(resource)},
        ) as context:
            return sensor.evaluate_tick(context)

    first = tick(None)
    requests = first.run_requests or []
    assert [request.tags["aurum/tables"] for request in requests] == ["50"] * 10
    named = [table for request in requests for table in request.run_config["ops"]["compaction"]["config"]["tables"]]
    assert len(set(named)) == 500
    assert named[0] == "lake.n.t499"
    assert len({request.run_key for request in requests}) == 10
    assert service.health.await_count == 1
    second = tick(first.cursor)
    assert not second.run_requests
    assert second.skip_message == (
        "500 tables looked at; 500 in need with a run requested or in progress, first lake.n.t499: why"
    )
