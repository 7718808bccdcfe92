"""Runs whose process or whose Dagster storage goes away: what was done is known, the next run carries on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy.exc import OperationalError

from aurum_orchestration.dagster_edge.notifications import NOTIFICATIONS, RUN_FAILURES
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.compact.execute import CompactionUnit
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus, RunContext
from aurum_orchestration.settings import AurumSettings
from aurum_orchestration_tests.dagster.conftest import Location
from aurum_orchestration_tests.lake import build_lake
from aurum_orchestration_tests.servers.receivers import HttpReceiver, http_receiver

TRADES = TableId("lake", ("market", "trades"))

KILLED = """
import os, signal, sys
from pathlib import Path
import dagster as dg
from aurum_orchestration.definitions import build_definitions
from aurum_orchestration.maintenance.backends.iceberg.compact.execute import CompactionUnit

staging = CompactionUnit.stage
def stage(unit, run):
    if unit.step.number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    staging(unit, run)
CompactionUnit.stage = stage
config = {"tables": ["lake.market.trades"], "parameters": {"max_concurrent_groups": 1}}
with dg.DagsterInstance.get() as instance:
    job = build_definitions().get_repository_def().get_job("compaction")
    job.execute_in_process(run_config={"ops": {"compaction": {"config": config}}}, instance=instance)
"""


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance on disk, which other processes see too."""
    folder = tmp_path / "dagster"
    folder.mkdir()
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    with dg.DagsterInstance.get() as made:
        yield made


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpReceiver]:
    with http_receiver() as running:
        monkeypatch.setenv("DESK_URL", running.url())
        yield running


@pytest.fixture
def location(tmp_path: Path, instance: dg.DagsterInstance, receiver: HttpReceiver) -> Location:
    home = tmp_path / "home"
    fleet = build_lake(home)
    fleet.write_text(fleet.read_text() + '\nnotifications: [{urls: ["${DESK_URL}"]}]\n')
    return Location(home, AurumSettings(home=home, fleet=fleet), instance)


def files_of(location: Location) -> int:
    with closing(location.catalog()) as catalog:
        return len(list(catalog.load_table("market.trades").scan().plan_files()))


def test_a_run_whose_process_was_killed_is_told_and_the_next_one_carries_on(
    location: Location, receiver: HttpReceiver
) -> None:
    cursor = location.tick(None, RUN_FAILURES).cursor
    environment = {
        **os.environ,
        "AURUM_HOME": str(location.home),
        "AURUM_FLEET": str(location.settings.fleet),
    }
    killed = subprocess.run([sys.executable, "-c", KILLED], env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    (run,) = location.instance.get_runs()
    assert run.status is dg.DagsterRunStatus.STARTED
    location.instance.report_run_failed(run, "the run worker is gone")  # what run monitoring does when it finds so
    location.tick(cursor, RUN_FAILURES)
    location.tick(sensor=NOTIFICATIONS)
    assert receiver.titles == [f"aurum: run {run.run_id[:8]}: compaction of {TRADES} failed"]

    with location.history as history:
        assert history.holder(TRADES) is not None
        assert [one.status for one in history.operations()] == [MaintenanceStatus.RUNNING]
        with history._store.writing() as connection:  # time passes
            connection.exec_driver_sql("UPDATE aurum_leases SET expires_at = '2026-01-01 00:00:00.000000'")
    assert files_of(location) == 31  # the first group stays
    assert location.run("compaction", tables=[str(TRADES)]).success
    assert files_of(location) == 2
    with location.history as history:
        newest, older = history.operations()
        assert (newest.status, older.status) == (MaintenanceStatus.COMPLETED, MaintenanceStatus.FAILED)
        assert history.holder(TRADES) is None


def test_an_operation_completes_and_is_recorded_while_dagsters_storage_is_down(
    location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = CompactionUnit.stage
    storage = location.instance.event_log_storage

    def down(*_: object, **__: object) -> None:
        raise OperationalError("INSERT INTO event_logs", {}, Exception("the server closed the connection"))

    def stage(unit: CompactionUnit, run: RunContext) -> None:
        patch.setattr(storage, "store_event", down)
        patch.setattr(storage, "store_event_batch", down, raising=False)
        staging(unit, run)

    with monkeypatch.context() as patch:
        patch.setattr(CompactionUnit, "stage", stage)
        with pytest.raises(OperationalError):
            location.run("compaction", tables=[str(TRADES)])
    assert files_of(location) == 2
    with location.history as history:
        (done,) = history.operations()
        assert done.status is MaintenanceStatus.COMPLETED
        assert history.holder(TRADES) is None


def test_two_daemons_by_mistake_do_the_work_once(location: Location) -> None:
    """Both ask for the same run: the key they ask with is the same, and so is what they find done afterwards."""
    first, second = location.tick(), location.tick()
    assert [request.run_key for request in first.run_requests] == [request.run_key for request in second.run_requests]
    for request in (*first.run_requests, *second.run_requests):  # even if both runs are started
        assert location.run("compaction", **request.run_config["ops"]["compaction"]["config"]).success
    with location.history as history:
        statuses = [one.status for one in history.operations() if one.status is MaintenanceStatus.COMPLETED]
    assert len(statuses) == 1
