"""Secrets planted wherever one can be given, and looked for in everything that is printed, logged or kept."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value

from aurum_orchestration.definitions import build_definitions
from aurum_orchestration.local.engines.background import free_port
from aurum_orchestration.settings import AurumSettings
from aurum_orchestration_tests.command import aurum
from aurum_orchestration_tests.lake import build_lake

SECRETS = {
    "LAKE_TOKEN": "Lq7token41",
    "LAKE_PASSWORD": "Lq7password42",
    "S3_SECRET": "Lq7s3secret43",
    "S3_SESSION": "Lq7s3session44",
    "PG_PASSWORD": "Lq7pgpass%2F45",
    "REST_TOKEN": "Lq7resttoken46",
    "REST_CREDENTIAL": "client:Lq7credential47",
    "REST_PASSWORD": "Lq7restpass48",
    "HISTORY_PASSWORD": "Lq7history49",
    "NOTIFY_PASSWORD": "Lq7notify50",
    "NOTIFY_PATH": "Lq7notifypath51",
}
WORDS = [value.replace("client:", "").replace("%2F", "/") for value in SECRETS.values()] + ["Lq7"]

FLEET = """\
version: 1
backends:
  lake:
    type: iceberg
    catalog:
      type: sql
      uri: "sqlite:///${AURUM_HOME}/catalog.db"
      warehouse: "file://${AURUM_HOME}/warehouse"
      token: "${LAKE_TOKEN}"
      password: "${LAKE_PASSWORD}"
      s3.secret-access-key: "${S3_SECRET}"
      s3.session-token: "${S3_SESSION}"
  pg:
    type: iceberg
    catalog: {type: sql, uri: "postgresql://maria:${PG_PASSWORD}@127.0.0.1:${CLOSED}/lake"}
  rest:
    type: iceberg
    catalog:
      type: rest
      uri: "http://maria:${REST_PASSWORD}@127.0.0.1:${CLOSED}/"
      token: "${REST_TOKEN}"
      credential: "${REST_CREDENTIAL}"
notifications:
  - urls: "json://maria:${NOTIFY_PASSWORD}@127.0.0.1:${CLOSED}/${NOTIFY_PATH}"
    on: [failed, completed, skipped]
"""


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AurumSettings:
    """A lake and two catalogs that do not answer, told of with secrets that only the environment has."""
    home = tmp_path / "home"
    build_lake(home).write_text(FLEET)
    for name, value in {**SECRETS, "CLOSED": str(free_port()), "AURUM_HOME": str(home)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AURUM_FLEET", str(home / "fleet.yaml"))
    return AurumSettings(home=home, fleet=home / "fleet.yaml")


def expect_none(told: Mapping[str, str]) -> None:
    leaks = {where: [word for word in WORDS if word in text] for where, text in told.items()}
    assert not {where: found for where, found in leaks.items() if found}


def files(folder: Path) -> dict[str, str]:
    """Everything that is kept, as text."""
    return {str(path): path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()}


COMMANDS = [
    ["discover"],
    ["status"],
    ["explain", "lake.market.trades"],
    ["plan"],
    ["run", "-vv"],
    ["run", "--operation", "vacuum", "-vv"],
    ["doctor", "-vv"],
    ["history"],
]


def test_the_command_its_log_and_what_it_keeps(planted: AurumSettings) -> None:
    told = {}
    for command in COMMANDS:
        for output in ("text", "json"):
            outcome = aurum(*command, "--output", output)
            told[f"{command} {output}"] = outcome.out + outcome.err
    assert "backend-unavailable" in told["['status'] json"]
    assert "127.0.0.1" in told["['doctor', '-vv'] json"]
    expect_none(told)
    expect_none(files(planted.home))


def test_a_history_with_a_password_that_does_not_answer(
    planted: AurumSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {}
    url = f"postgresql://maria:{SECRETS['HISTORY_PASSWORD']}@127.0.0.1:{free_port()}/history"
    for command in (["history"], ["run", "-vv"], ["doctor"], ["status", "-vv"]):
        for output in ("text", "json"):
            outcome = aurum(*command, "--output", output, AURUM_HISTORY_URL=url)
            told[f"{command} {output}"] = outcome.out + outcome.err
    assert "history-unavailable" in told["['history'] json"]
    expect_none(told)
    expect_none(files(planted.home))


@pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars`")  # by the snapshot itself
def test_dagster_its_events_cursors_and_definitions(
    planted: AurumSettings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = io.StringIO()
    logging.getLogger().addHandler(handler := logging.StreamHandler(log))
    (storage := tmp_path / "dagster").mkdir()
    repository = build_definitions(settings=planted).get_repository_def()
    told = {"definitions": serialize_value(RepositorySnap.from_def(repository))}
    with dg.DagsterInstance.local_temp(str(storage)) as instance:
        for job, config in (("compaction", {}), ("health", {"discover": True})):
            run = repository.get_job(job).execute_in_process(
                run_config={"ops": {job: {"config": config}}}, instance=instance, raise_on_error=False
            )
            events = instance.all_logs(run.run_id)
            told[f"{job} events"] = "\n".join(map(str, events))
            told[f"{job} run"] = serialize_value(instance.get_run_by_id(run.run_id))
            assert len(events) > 5
        for sensor in repository.sensor_defs:
            with dg.build_sensor_context(
                instance=instance, repository_def=repository, resources=repository.get_top_level_resources()
            ) as context:
                tick = sensor.evaluate_tick(context)
            told[sensor.name] = f"{tick.skip_message} {tick.cursor} {tick.run_requests}"
    logging.getLogger().removeHandler(handler)
    told["log"] = log.getvalue()
    told["terminal"] = "".join(capfd.readouterr())
    assert "127.0.0.1" in "".join(told.values())
    expect_none(told)
    expect_none(files(storage))
    expect_none(files(planted.home))
