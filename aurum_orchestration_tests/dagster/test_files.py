"""The files a user finds: dagster.yaml, workspace.yaml, examples, and the commands with them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.instance import InstanceRef

from aurum_orchestration.definitions import build_definitions
from aurum_orchestration.fleet import load_fleet
from aurum_orchestration.settings import AurumSettings
from aurum_orchestration_tests.lake import FIRST, SCHEMA, append_small_files, lake_catalog

ROOT = Path(__file__).parents[2]
NEEDED_BY_NO_TABLE = {
    "manifests",
    "partition_evolution",
    "purge",
    "retention",
    "vacuum",
    "reindex",
    "views",
    "cleanup",
    "logs",
    "sessions",
}
"""Examples that skip both tables of this lake, or are for databases."""

EXAMPLES = sorted((ROOT / "examples" / "run").glob("*.yaml"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """AURUM_HOME with a lake as the fleet.yaml at the root describes it."""
    home = tmp_path / "home"
    home.mkdir()
    with closing(lake_catalog(home)) as catalog:
        catalog.create_namespace("flights")
        append_small_files(catalog.create_table("flights.flights", SCHEMA), [FIRST], 30)
        append_small_files(catalog.create_table("flights.weather", SCHEMA), [FIRST], 1)
    return home


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """An instance as dagster.yaml at the root describes it."""
    folder = str(tmp_path_factory.mktemp("dagster"))
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(folder, config_dir=str(ROOT))) as made:
        yield made


def test_dagster_yaml_holds_what_the_design_asks(instance: dg.DagsterInstance) -> None:
    assert instance.is_persistent
    assert instance.run_monitoring_enabled
    assert instance.get_settings("sensors")["use_threads"] is True
    assert instance.get_settings("run_retries")["retry_on_asset_or_op_failure"] is False
    queue = instance.get_concurrency_config()
    assert queue.pool_config.pool_granularity is not None
    assert queue.pool_config.pool_granularity.value == "op"
    assert queue.pool_config.default_pool_limit == 4
    limits = {limit["key"]: limit for limit in queue.run_queue_config.tag_concurrency_limits}  # type: ignore[union-attr]
    assert limits["aurum/table"]["limit"] == 1
    assert limits["aurum/table"]["value"] == {"applyLimitPerUniqueValue": True}


def test_dagster_yaml_needs_no_environment() -> None:
    assert "env:" not in (ROOT / "dagster.yaml").read_text()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_runs_as_it_is(path: Path, home: Path, instance: dg.DagsterInstance) -> None:
    settings = AurumSettings(home=home, fleet=ROOT / "fleet.yaml")
    job = build_definitions(load_fleet(settings.fleet, settings), settings).get_repository_def().get_job(path.stem)
    result = job.execute_in_process(run_config=yaml.safe_load(path.read_text()), instance=instance)
    assert bool(result.get_asset_observation_events()) is (path.stem not in NEEDED_BY_NO_TABLE)


def dagster(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """The command, from a folder with the project's files and no DAGSTER_HOME."""
    here = home.parent / "here"
    here.mkdir(exist_ok=True)
    for name in ("dagster.yaml", "workspace.yaml", "fleet.yaml"):
        (here / name).write_text((ROOT / name).read_text())
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DAGSTER", "AURUM"))}
    return subprocess.run(
        [str(Path(sys.executable).parent / "dagster"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=here,
        env={**environment, "AURUM_HOME": str(home)},
    )


def test_the_command_fails_when_a_table_did_and_the_others_are_done(home: Path) -> None:
    with closing(lake_catalog(home)) as catalog:
        broken = catalog.create_table("flights.broken", SCHEMA)
        append_small_files(broken, [FIRST], 30)
        lost = next(iter(broken.refresh().scan().plan_files())).file.file_path
    Path(lost.removeprefix("file://")).unlink()
    example = ROOT / "examples/run/compaction.yaml"
    ran = dagster(
        "job", "execute", "-m", "aurum_orchestration.definitions", "-j", "compaction", "-c", str(example), home=home
    )
    assert ran.returncode == 1
    assert "lake.flights.flights completed" in ran.stderr
    assert "1 of 3 tables went wrong, the others are done. lake.flights.broken: " in ran.stderr
    assert not list((home.parent / "here").glob(".tmp_dagster_home_*"))


def test_the_workspace_validates_with_no_database_up(tmp_path: Path) -> None:
    ran = dagster("definitions", "validate", "-w", "workspace.yaml", home=tmp_path / "home")
    assert ran.returncode == 0, ran.stderr
    assert "All code locations passed validation" in ran.stdout + ran.stderr
    assert not (tmp_path / "home").exists()
