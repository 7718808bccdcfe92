"""A fleet file that is broken, or loses a backend, while the code location is in use."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import ModuleTarget

from aurum_orchestration.definitions import build_definitions
from aurum_orchestration.errors import ConfigurationError
from aurum_orchestration.settings import AurumSettings
from aurum_orchestration_tests.lake import build_lake

BROKEN = "version: 1\nbackends:\n  lake: {type: icebreg}\n"


@pytest.fixture
def settings(tmp_path: Path) -> AurumSettings:
    home = tmp_path / "home"
    return AurumSettings(home=home, fleet=build_lake(home))


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as made:
        yield made


def names(definitions: dg.Definitions) -> set[str]:
    repository = definitions.get_repository_def()
    jobs = {job.name for job in repository.get_all_jobs()}
    return jobs | {one.name for one in repository.schedule_defs} | {one.name for one in repository.sensor_defs}


def test_the_last_right_file_goes_on_and_the_mistake_is_told(
    settings: AurumSettings, caplog: pytest.LogCaptureFixture
) -> None:
    right = settings.fleet.read_text()
    before = build_definitions(settings=settings)
    settings.fleet.write_text(BROKEN)
    with caplog.at_level(logging.ERROR):
        during = build_definitions(settings=settings)
    assert names(during) == names(before)
    assert "icebreg" in str(during.metadata["fleet_file_is_broken"])
    assert "the fleet file is broken" in caplog.text
    settings.fleet.write_text(right)
    assert not build_definitions(settings=settings).metadata
    (kept,) = (settings.home / "fleet").iterdir()
    assert kept.stat().st_mode & 0o077 == 0


def test_a_file_that_was_never_right_does_not_load(settings: AurumSettings) -> None:
    settings.fleet.write_text(BROKEN)
    with pytest.raises(ConfigurationError, match="icebreg"):
        build_definitions(settings=settings)


def test_what_was_right_is_no_excuse_while_dagster_validates(
    settings: AurumSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_definitions(settings=settings)
    settings.fleet.write_text(BROKEN)
    build_definitions(settings=settings)  # goes on with what was right
    monkeypatch.setenv("DAGSTER_IS_DEFS_VALIDATION_CLI", "1")
    with pytest.raises(ConfigurationError, match="icebreg"):
        build_definitions(settings=settings)


@pytest.mark.thorough
def test_who_validates_is_told_that_the_file_is_wrong_whatever_was_right_before(
    settings: AurumSettings, tmp_path: Path
) -> None:
    build_definitions(settings=settings)
    settings.fleet.write_text(BROKEN)
    build_definitions(settings=settings)  # goes on with what was right
    program = Path(sys.executable).parent / "dagster"
    done = subprocess.run(
        [str(program), "definitions", "validate", "-m", "aurum_orchestration.definitions"],
        env={**os.environ, "AURUM_HOME": str(settings.home), "AURUM_FLEET": str(settings.fleet)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "icebreg" in done.stdout  # where Dagster logs


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Dagster's own, in its workspace
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_reload_in_dagster(
    settings: AurumSettings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AURUM_HOME", str(settings.home))
    monkeypatch.setenv("AURUM_FLEET", str(settings.fleet))
    target = ModuleTarget("aurum_orchestration.definitions", None, None, "aurum")
    with WorkspaceProcessContext(instance, target) as process:
        loaded = jobs(process.create_request_context())
        assert "compaction" in loaded
        settings.fleet.write_text(BROKEN)
        process.reload_code_location("aurum")
        request = process.create_request_context()
        assert not request.code_location_errors()
        assert jobs(request) == loaded
        metadata = request.get_code_location("aurum").get_repository("__repository__").repository_snap.metadata
        assert metadata
        assert "icebreg" in str(metadata["fleet_file_is_broken"])


def jobs(request: WorkspaceRequestContext) -> set[str]:
    repository = request.get_code_location("aurum").get_repository("__repository__")
    return {job.name for job in repository.get_all_jobs()}


def test_runs_that_waited_while_their_backend_was_removed(
    settings: AurumSettings, instance: dg.DagsterInstance
) -> None:
    """The fleet's file as it is when they start: a backend ``old`` that they were queued for is not in it any more."""
    repository = build_definitions(settings=settings).get_repository_def()

    def run(*tables: str) -> tuple[dg.ExecuteInProcessResult, str]:
        done = repository.get_job("compaction").execute_in_process(
            run_config={"ops": {"compaction": {"config": {"tables": list(tables)}}}},
            instance=instance,
            raise_on_error=False,
        )
        return done, "\n".join(str(event) for event in instance.all_logs(done.run_id))

    alone, told = run("old.market.trades")
    assert alone.get_asset_observation_events() == []
    assert "matches no table" in told
    both, told = run("old.market.trades", "lake.market.trades")
    assert "matches no table" in told
    (observed,) = both.get_asset_observation_events()
    assert observed.asset_key == dg.AssetKey(["lake", "market", "trades"])
