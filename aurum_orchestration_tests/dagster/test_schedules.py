"""The schedules: when they tick in the fleet's time zone, what they launch, what switches them on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.types import DaemonHeartbeat
from dagster._utils.schedules import schedule_execution_time_iterator

from aurum_orchestration.dagster_edge.schedules import TIMETABLES
from aurum_orchestration.dagster_edge.switches import switched_on
from aurum_orchestration.errors import ConfigurationError
from aurum_orchestration.fleet.automation import AutomationConfig
from aurum_orchestration_tests.dagster.conftest import Location
from aurum_orchestration_tests.dagster.test_jobs import output_metadata

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """One that a schedule's context can open, in place of the one in memory."""
    (tmp_path / "dagster").mkdir()
    with dg.instance_for_test(temp_dir=str(tmp_path / "dagster")) as made:
        yield made


def change_fleet(location: Location, **changes: Any) -> None:
    fleet = yaml.safe_load(location.settings.fleet.read_text())
    location.settings.fleet.write_text(yaml.safe_dump({**fleet, **changes}))


def tick(location: Location, schedule: str) -> tuple[dict[str, Any] | None, str]:
    """The config that a tick launches ``maintenance`` with, or None and why it launches nothing."""
    repository = location.definitions().get_repository_def()
    with dg.build_schedule_context(
        instance=location.instance,
        repository_def=repository,
        resources=repository.get_top_level_resources(),
        scheduled_execution_time=datetime(2026, 11, 22, 3, tzinfo=BERLIN),
    ) as context:
        data = repository.get_schedule_def(schedule).evaluate_tick(context)
    if not data.run_requests:
        return None, data.skip_message or ""
    (request,) = data.run_requests
    assert dg.validate_run_config(repository.get_job("maintenance"), request.run_config)
    return request.run_config["ops"]["maintenance"]["config"], ""


def times(location: Location, schedule: str, start: datetime, count: int) -> list[str]:
    found = location.definitions().get_repository_def().get_schedule_def(schedule)
    assert isinstance(found.cron_schedule, str)
    ticks = schedule_execution_time_iterator(start.timestamp(), found.cron_schedule, found.execution_timezone)
    return [one.astimezone(BERLIN).strftime("%a %d %b %H:%M %Z") for one in islice(ticks, count)]


# --- when


def test_they_tick_in_the_fleets_time_zone(healthy_location: Location) -> None:
    change_fleet(healthy_location, time_zone="Europe/Berlin")
    start = datetime(2026, 11, 21, 12, tzinfo=BERLIN)
    told = {name: times(healthy_location, name, start, 2) for name in TIMETABLES}
    assert told == {
        "daily_light": ["Sun 22 Nov 02:00 CET", "Mon 23 Nov 02:00 CET"],
        "nightly": ["Sun 22 Nov 01:00 CET", "Mon 23 Nov 01:00 CET"],
        "weekly_full": ["Sun 22 Nov 03:00 CET", "Sun 29 Nov 03:00 CET"],
        "monthly_reindex": ["Sun 06 Dec 04:00 CET", "Sun 03 Jan 04:00 CET"],
    }


def test_each_night_has_one_tick_also_when_the_clocks_change(healthy_location: Location) -> None:
    change_fleet(healthy_location, time_zone="Europe/Berlin")
    spring, autumn = datetime(2026, 3, 28, 12, tzinfo=BERLIN), datetime(2026, 10, 24, 12, tzinfo=BERLIN)
    # 02:00 does not exist on 29 March, and comes twice on 25 October
    assert times(healthy_location, "daily_light", spring, 2) == ["Sun 29 Mar 03:00 CEST", "Mon 30 Mar 02:00 CEST"]
    assert [one[:6] for one in times(healthy_location, "daily_light", autumn, 3)] == ["Sun 25", "Mon 26", "Tue 27"]
    assert times(healthy_location, "weekly_full", spring, 1) == ["Sun 29 Mar 03:00 CEST"]
    assert times(healthy_location, "nightly", autumn, 2) == ["Sun 25 Oct 01:00 CEST", "Mon 26 Oct 01:00 CET"]


# --- what


def test_what_a_lake_has_is_launched_and_what_it_lacks_is_skipped_with_the_reason(healthy_location: Location) -> None:
    assert tick(healthy_location, "nightly") == ({"respect": "decisions"}, "")
    assert tick(healthy_location, "weekly_full") == (
        {
            "operations": ["compaction", "manifests", "retention", "vacuum", "stats", "bloat", "backup"],
            "respect": "calendar",
        },
        "",
    )
    config, why = tick(healthy_location, "daily_light")
    assert (config, why) == (None, "no backend of the fleet has logs or sessions; there is lake (iceberg)")
    assert tick(healthy_location, "monthly_reindex") == (
        None,
        "no backend of the fleet has reindex; there is lake (iceberg)",
    )


def test_only_backends_that_have_the_operations_are_named(healthy_location: Location) -> None:
    fleet = yaml.safe_load(healthy_location.settings.fleet.read_text())
    backends = {**fleet["backends"], "shop.db": {"type": "sqlite", "path": "/nowhere/shop.db"}}
    change_fleet(healthy_location, backends=backends)
    expected = {"operations": ["logs", "sessions"], "respect": "calendar", "tables": ['"shop.db".**']}
    assert tick(healthy_location, "daily_light") == (expected, "")
    assert tick(healthy_location, "monthly_reindex") == ({**expected, "operations": ["reindex"]}, "")
    config, _ = tick(healthy_location, "weekly_full")
    assert config is not None
    assert "tables" not in config
    assert {"logs", "reindex", "vacuum"} < set(config["operations"])


def test_what_is_switched_off_everywhere_is_not_launched(healthy_location: Location) -> None:
    healthy_location.run("health")
    config, _ = tick(healthy_location, "weekly_full")
    assert config is not None
    assert config["operations"] == [
        "compaction",
        "manifests",
        "retention",
        "vacuum",
    ]  # stats and so on are off by default
    change_fleet(healthy_location, policy={name: {"enabled": False} for name in config["operations"]})
    assert tick(healthy_location, "weekly_full") == (
        None,
        "the policies of all tables say enabled: false for compaction, manifests, retention, vacuum, stats, "
        "bloat, backup",
    )


def test_a_launched_run_does_the_work_and_keeps_out_of_windows(location: Location) -> None:
    location.run("health")
    config, _ = tick(location, "weekly_full")
    assert config is not None
    result = location.run("maintenance", **config)
    assert result.success
    assert "| lake.market.trades | compaction | completed |" in output_metadata(result)["report"]
    change_fleet(location, policy={"calendar": {"blackouts": ["00:00-24:00"]}})
    held = location.run("maintenance", **config)
    assert held.success
    assert "tables_completed" not in output_metadata(held)


def test_a_schedule_waits_for_the_run_that_it_launched_before(healthy_location: Location) -> None:
    job = healthy_location.definitions().get_repository_def().get_job("maintenance")
    run = healthy_location.instance.create_run_for_job(
        job, status=dg.DagsterRunStatus.STARTED, tags={"dagster/schedule_name": "nightly"}
    )
    config, why = tick(healthy_location, "nightly")
    assert (config, why) == (None, f"the run that nightly launched before, {run.run_id}, has not ended")
    assert tick(healthy_location, "weekly_full")[0]


# --- which are on


def statuses(definitions: dg.Definitions) -> dict[str, str]:
    every = [*(definitions.schedules or []), *(definitions.sensors or [])]
    return {one.name: one.default_status.value for one in every}


def test_everything_is_off_until_the_fleet_says_otherwise(healthy_location: Location) -> None:
    assert set(statuses(healthy_location.definitions()).values()) == {"STOPPED"}
    change_fleet(healthy_location, automation={"schedules": ["nightly"], "sensors": ["vacuum_lake", "compaction_lake"]})
    definitions = healthy_location.definitions()
    dg.Definitions.validate_loadable(definitions)
    on = [name for name, status in statuses(definitions).items() if status == "RUNNING"]
    assert sorted(on) == ["compaction_lake", "nightly", "vacuum_lake"]


@pytest.mark.parametrize(
    ("automation", "place", "told"),
    [
        ({"schedules": ["nightly", "weekly"]}, "automation.schedules[1]", "no schedule is named 'weekly'"),
        ({"sensors": ["compaction_lak"]}, "automation.sensors[0]", "no sensor is named 'compaction_lak'"),
    ],
)
def test_a_name_that_nothing_has_is_an_error_with_place_and_nearest(
    healthy_location: Location, automation: dict[str, list[str]], place: str, told: str
) -> None:
    change_fleet(healthy_location, automation=automation)
    with pytest.raises(ConfigurationError) as raised:
        healthy_location.definitions()
    assert raised.value.detail.endswith(f" ({place}): {told}")
    assert f"{healthy_location.settings.fleet}:" in raised.value.detail
    assert (raised.value.hint or "").startswith(("Did you mean 'weekly_full'?", "Did you mean 'compaction_lake'?"))


def test_an_unknown_key_of_automation_is_an_error(healthy_location: Location) -> None:
    change_fleet(healthy_location, automation={"schedule": ["nightly"]})
    with pytest.raises(ConfigurationError, match="unknown key"):
        healthy_location.definitions()


# --- what the doctor tells of them


@pytest.fixture
def dagster_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "instance"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return home


def told(**automation: list[str]) -> dict[str, tuple[str, str]]:
    return {one.check: (one.status.value, one.detail) for one in switched_on(AutomationConfig(**automation))}


@pytest.mark.usefixtures("dagster_home")
def test_doctor_tells_what_is_on_and_whether_anybody_starts_it() -> None:
    assert told()["switches"][0] == "warning"
    # what fleet.yaml switches on is on from the daemon's first look, and nobody has looked yet
    fresh = told(schedules=["nightly"], sensors=["compaction_lake"])
    assert fresh["switches"] == ("ok", "2 on: compaction_lake, nightly")
    assert fresh["daemon"][0] == "warning"
    assert fresh["daemon"][1].startswith("no daemon has run")
    with dg.DagsterInstance.get() as instance:
        for ago, status in ((3600, "warning"), (1, "ok")):
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - ago, "SENSOR", "tests", None))
            assert told(schedules=["nightly"])["daemon"][0] == status


@pytest.mark.usefixtures("dagster_home")
def test_doctor_knows_what_a_person_switched_off() -> None:
    target = LoadableTargetOrigin(module_name="aurum_orchestration.definitions")
    location = ManagedGrpcPythonEnvCodeLocationOrigin(target, "aurum")
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), "nightly")
    data = ScheduleInstigatorData(TIMETABLES["nightly"].cron)
    with dg.DagsterInstance.get() as instance:
        instance.add_instigator_state(InstigatorState(origin, InstigatorType.SCHEDULE, InstigatorStatus.STOPPED, data))
    assert told(schedules=["nightly"])["switches"][0] == "warning"
