"""The sensors that tell people, on a real instance with real runs and a real receiver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from aurum_orchestration.dagster_edge.notifications import NOTIFICATIONS, RUN_FAILURES
from aurum_orchestration_tests.dagster.conftest import Location
from aurum_orchestration_tests.servers.receivers import HttpReceiver, http_receiver

TRADES = "lake.market.trades"


@pytest.fixture
def receiver(location: Location, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpReceiver]:
    with http_receiver() as running:
        monkeypatch.setenv("DESK_URL", running.url())
        rule = '\nnotifications: [{urls: ["${DESK_URL}"], on: [failed, completed]}]\n'
        location.settings.fleet.write_text(location.settings.fleet.read_text() + rule)
        yield running


def react(location: Location, cursor: str | None) -> str | None:
    """A tick of the run-failure sensor; its new cursor."""
    return location.tick(cursor, RUN_FAILURES).cursor


def killed_run(location: Location, job: str = "compaction", **config: object) -> dg.DagsterRun:
    """A run as run monitoring leaves it behind: started, then failed by an engine event, with no step's word."""
    definition = location.definitions().get_repository_def().get_job(job)
    run = location.instance.create_run_for_job(definition, run_config={"ops": {job: {"config": config}}})
    location.instance.report_run_failed(run, "Run timed out due to taking longer than 3 minutes to start.")
    return run


def test_both_are_there_and_stopped_only_where_somebody_is_told(location: Location, tmp_path: Path) -> None:
    names = {sensor.name for sensor in location.definitions().sensors or []}
    assert not names & {NOTIFICATIONS, RUN_FAILURES}


def test_both_are_stopped(location: Location, receiver: HttpReceiver) -> None:
    sensors = {
        sensor.name: sensor
        for sensor in location.definitions().sensors or []
        if isinstance(sensor, dg.SensorDefinition)
    }
    for name in (NOTIFICATIONS, RUN_FAILURES):
        assert sensors[name].default_status is dg.DefaultSensorStatus.STOPPED


def test_a_job_tells_what_it_did_and_names_the_run(location: Location, receiver: HttpReceiver) -> None:
    result = location.run("compaction", tables=[TRADES])
    assert result.success
    assert receiver.titles == [f"aurum: compaction of {TRADES} completed"]
    assert f"Dagster run {result.run_id} of the job compaction" in receiver.bodies[0]


def test_several_operations_of_one_run_are_one_message(location: Location, receiver: HttpReceiver) -> None:
    assert location.run("maintenance", tables=[TRADES], operations=["compaction", "stats"]).success
    assert receiver.titles == ["aurum: 2 completed"]


def test_a_run_that_was_killed_is_told_with_what_to_do(location: Location, receiver: HttpReceiver) -> None:
    cursor = react(location, None)
    run = killed_run(location, tables=[TRADES])
    cursor = react(location, cursor)
    assert receiver.messages == []
    assert "1 sent" in location.tick(sensor=NOTIFICATIONS).skip_message
    assert receiver.titles == [f"aurum: run {run.run_id[:8]}: compaction of {TRADES} failed"]
    assert f"Dagster run {run.run_id} of the job compaction" in receiver.bodies[0]
    assert "to do: Nobody said why" in receiver.bodies[0]
    react(location, cursor)
    assert "nothing to send" in location.tick(sensor=NOTIFICATIONS).skip_message


def test_many_killed_runs_are_one_message(location: Location, receiver: HttpReceiver) -> None:
    cursor = react(location, None)
    for _ in range(3):
        killed_run(location, tables=[TRADES])
    for _ in range(3):
        cursor = react(location, cursor)
    location.tick(sensor=NOTIFICATIONS)
    assert receiver.titles == ["aurum: 3 failed"]


def test_a_run_whose_tables_were_told_is_not_told_again(location: Location, receiver: HttpReceiver) -> None:
    cursor = react(location, None)
    for file in (location.home / "warehouse" / "market" / "trades" / "data").rglob("*.parquet"):
        file.unlink()
    assert not location.run("compaction", tables=[TRADES]).success
    assert receiver.titles == [f"aurum: compaction of {TRADES} failed"]
    react(location, cursor)
    assert "nothing to send" in location.tick(sensor=NOTIFICATIONS).skip_message


def test_a_run_refused_before_it_began_is_told_with_its_problem(location: Location, receiver: HttpReceiver) -> None:
    cursor = react(location, None)
    assert not location.run("maintenance", tables=[TRADES], operations=["compactoin"]).success
    react(location, cursor)
    location.tick(sensor=NOTIFICATIONS)
    (body,) = receiver.bodies
    assert "compactoin" in body
    assert "to do: Did you mean 'compaction'?" in body


def test_a_receiver_that_is_down_is_said_in_the_tick(location: Location, receiver: HttpReceiver) -> None:
    receiver.status = 500
    assert location.run("compaction", tables=[TRADES]).success  # a run never fails for a message
    killed_run(location, tables=[TRADES])
    assert "nothing to send" in location.tick(sensor=NOTIFICATIONS).skip_message  # it waits a minute first
    assert receiver.messages == []
