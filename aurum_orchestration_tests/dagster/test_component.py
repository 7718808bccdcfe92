"""The fleet as a component of somebody else's project: the example loads, scaffolding makes one that loads."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster.components.component_scaffolding import scaffold_object
from dagster.components.core.component_tree import ComponentTreeException
from dagster.components.core.package_entry import discover_entry_point_package_objects

import aurum_orchestration
from aurum_orchestration.errors import ConfigurationError
from aurum_orchestration.maintenance.checks import NAMES
from aurum_orchestration_tests.lake import build_lake

ROOT = Path(__file__).parents[2]
TRADES = dg.AssetKey(["lake", "market", "trades"])
pytestmark = pytest.mark.filterwarnings("ignore:.*is currently in beta")  # Dagster's own use of its parameters


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the example, importable, with a real lake where it expects one."""
    build_lake(tmp_path / "lights")
    copy = tmp_path / "foreign_project"
    shutil.copytree(ROOT / "examples" / "foreign_project", copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("LIGHTS_HOME", str(tmp_path / "lights"))
    monkeypatch.syspath_prepend(str(copy / "src"))
    monkeypatch.chdir(tmp_path)
    yield copy
    for name in [name for name in sys.modules if name.split(".")[0] == "lights"]:
        del sys.modules[name]


def loaded(project: Path) -> dg.RepositoryDefinition:
    return dg.load_from_defs_folder(path_within_project=project).get_repository_def()


def test_the_example_brings_jobs_before_any_table_is_known_and_assets_after(project: Path) -> None:
    before = loaded(project)
    assert TRADES not in before.asset_graph.executable_asset_keys
    with dg.DagsterInstance.ephemeral() as instance:
        assert before.get_job("health").execute_in_process(instance=instance).success
        after = loaded(project)
        assert {key.name for key in after.asset_graph.asset_check_keys if key.asset_key == TRADES} == set(NAMES)
        assert after.asset_graph.get(TRADES).owners == ["team:lights"]
        assert after.asset_graph.get(TRADES).child_keys == {dg.AssetKey("lit_streets")}
        config = {"ops": {"compaction": {"config": {"tables": ["lake.market.trades"]}}}}
        assert after.get_job("compaction").execute_in_process(config, instance=instance).success
    assert after.has_sensor_def("compaction_lake")


def test_no_other_fleet_is_loaded_with_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "aurum_orchestration.definitions", raising=False)
    assert loaded(project).has_sensor_def("compaction_lake")
    assert "aurum_orchestration.definitions" not in sys.modules


def test_the_examples_module_is_valid(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process what the command of the example's README does in two of its own."""
    monkeypatch.setenv("DAGSTER_IS_DEFS_VALIDATION_CLI", "1")
    definitions = importlib.import_module("lights.definitions").defs()
    dg.Definitions.validate_loadable(definitions)
    assert definitions.get_repository_def().has_job("compaction")
    (project / "src/lights/defs/lake_maintenance/fleet.yaml").write_text("version: 2\n")
    with pytest.raises(ComponentTreeException):
        importlib.import_module("lights.definitions").defs()


@pytest.mark.thorough
def test_the_command_of_the_examples_readme_validates_it(project: Path) -> None:
    command = "dagster definitions validate -m lights.definitions"
    assert command in (project / "README.md").read_text()
    words = [str(Path(sys.executable).parent / "dagster"), *command.split()[1:]]
    ran = subprocess.run(words, capture_output=True, text=True, check=False, cwd=project / "src")
    assert ran.returncode == 0, ran.stderr
    assert "does not match" not in ran.stderr


def test_scaffolding_makes_a_component_that_loads(project: Path) -> None:
    folder = project / "src/lights/defs/second"
    params = json.dumps({"fleet": "tables.yaml"})
    scaffold_object(folder, "aurum_orchestration.AurumFleetComponent", params, "yaml", project)
    assert yaml.safe_load((folder / "defs.yaml").read_text()) == {
        "type": "aurum_orchestration.AurumFleetComponent",
        "attributes": {"fleet": "tables.yaml"},
    }
    assert yaml.safe_load((folder / "tables.yaml").read_text())["version"] == 1
    shutil.rmtree(project / "src/lights/defs/lake_maintenance")
    assert loaded(project).has_job("compaction")


def test_scaffolding_keeps_a_fleet_file_that_is_there(project: Path) -> None:
    folder = project / "src/lights/defs/lake_maintenance"
    written = (folder / "fleet.yaml").read_text()
    scaffold_object(folder, "aurum_orchestration.AurumFleetComponent", None, "yaml", project)
    assert (folder / "fleet.yaml").read_text() == written


def test_dagster_finds_it_by_the_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [f"{name} = {where}" for name, where in groups["dagster_dg_cli.registry_modules"].items()]
    described = tmp_path / "as_installed-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: as-installed\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("\n".join(["[dagster_dg_cli.registry_modules]", *lines]))
    monkeypatch.syspath_prepend(str(tmp_path))
    found = {key.to_typename(): value for key, value in discover_entry_point_package_objects().items()}
    assert found["aurum_orchestration.AurumFleetComponent"] is aurum_orchestration.AurumFleetComponent


def test_a_fleet_file_that_is_not_there_is_named(project: Path) -> None:
    defs = project / "src/lights/defs/lake_maintenance/defs.yaml"
    defs.write_text(defs.read_text().replace("fleet: fleet.yaml", "fleet: lost.yaml"))
    with pytest.raises(ComponentTreeException) as failed:
        loaded(project)
    assert isinstance(failed.value.__cause__, ConfigurationError)
    assert "lost.yaml" in str(failed.value.__cause__)


def test_a_wrong_attribute_is_named_with_its_line(project: Path) -> None:
    defs = project / "src/lights/defs/lake_maintenance/defs.yaml"
    defs.write_text(defs.read_text().replace("fleet: fleet.yaml", "fleets: fleet.yaml"))
    with pytest.raises(ComponentTreeException) as failed:
        loaded(project)
    assert re.search(r"attributes\.fleets at .*defs\.yaml:\d+", str(failed.value.__cause__))
