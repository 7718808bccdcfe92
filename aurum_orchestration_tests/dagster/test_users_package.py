"""An installed package brings an operation and a backend: every way in has them, nothing here is changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aurum_orchestration_tests.command import SCRIPT, Outcome
from aurum_orchestration_tests.lake import build_lake

ROOT = Path(__file__).parents[2]

MODULE = """\
from pydantic import Field

from aurum_orchestration.maintenance.backends.base import BaseMaintenanceBackend
from aurum_orchestration.maintenance.operations.base import (
    BaseMaintenanceOperation, OperationParameters, TriggerPolicy
)


class TidyParameters(OperationParameters):
    shelves: int = Field(default=3, ge=1, description="Shelves to tidy.")


class TidyPolicy(TidyParameters, TriggerPolicy):
    pass


class Tidy(BaseMaintenanceOperation):
    title = "Tidy the shelves"
    Parameters = TidyParameters
    Policy = TidyPolicy

    def __init__(self):
        super().__init__("tidy")

    async def _execute_impl(self, backend, config):
        return {"shelves_tidied": 42}


class Shelf(BaseMaintenanceBackend):
    backend_type = "shelf"
    supported_operations = ("tidy",)

    async def _create_connection(self):
        return self.config["where"]
"""

POINTS = """\
[aurum_orchestration.operations]
tidy = tidy_package:Tidy

[aurum_orchestration.backends]
shelf = tidy_package:Shelf
"""

FLEET = """\
  shelf: {type: shelf, where: cellar}
policy:
  tidy: {shelves: 7}
"""

SEVERAL = """\
import json, sys
from dataclasses import astuple
from aurum_orchestration_tests.command import aurum
print(json.dumps([astuple(aurum(*words)) for words in json.loads(sys.argv[1])]))
"""

CODE_LOCATION = """\
import json
import dagster as dg
from aurum_orchestration.definitions import defs
job = defs.resolve_job_def("tidy")
fields = job.get_node_named("tidy").definition.config_schema.config_type.fields["parameters"].config_type.fields
run = job.execute_in_process(run_config={"ops": {"tidy": {"config": {"tables": ["lake.market.hubs"]}}}})
print(json.dumps({"fields": {name: field.description for name, field in fields.items()}, "done": run.success}))
"""


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment of a process in which the package is installed, beside a lake."""
    site = tmp_path / "site"
    announce(site, "tidy_package", POINTS)
    (site / "tidy_package.py").write_text(MODULE)
    home = tmp_path / "home"
    fleet = build_lake(home)
    fleet.write_text(fleet.read_text().replace("policy:\n", FLEET))
    return {
        **os.environ,
        "PYTHONPATH": str(site),
        "AURUM_HOME": str(home),
        "AURUM_FLEET": str(fleet),
        "DAGSTER_HOME": str(home),
    }


def announce(site: Path, package: str, points: str) -> None:
    """What a package manager leaves of a package that announces entry points."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)


def call(environment: dict[str, str], *program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        program,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=environment["AURUM_HOME"],
    )


def aurum(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return call(environment, str(SCRIPT), *arguments)


def several(environment: dict[str, str], *commands: list[str]) -> list[Outcome]:
    """One process of its own for several commands: a start costs more than most of them."""
    found = {**environment, "PYTHONPATH": f"{environment['PYTHONPATH']}{os.pathsep}{ROOT}"}
    done = call(found, sys.executable, "-c", SEVERAL, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    return [Outcome(*outcome) for outcome in json.loads(done.stdout)]


def test_the_command_has_it(installed: dict[str, str]) -> None:
    run = ["run", "--operation", "tidy", "--output", "json", "--table", "lake.market.hubs"]
    (done,) = json.loads(aurum(installed, *run).stdout)
    assert (done["operation"], done["status"], done["metrics"]) == ("tidy", "completed", {"shelves_tidied": 42})
    *helps, planned, wrong, recorded = several(
        installed,
        *(["--help"], ["run", "--help"], ["plan", "--help"]),
        [*run, "--dry-run"],
        [*run, "--parameter", "shelfs=2"],
        ["history", "--output", "json"],
    )
    for one in helps:
        assert "tidy                 Tidy the shelves" in one.out
    assert [one["status"] for one in planned.json] == ["planned"]
    assert wrong.code == 2
    assert json.loads(wrong.err.splitlines()[-1])["hint"] == "Did you mean 'shelves'?"
    assert [one["operation_id"] for one in recorded.json] == [done["operation_id"]]


def test_the_fleet_file_has_it(installed: dict[str, str]) -> None:
    explained, examined, status = several(
        installed,
        ["explain", "lake.market.hubs", "--output", "json"],
        ["doctor", "--output", "json"],
        ["status"],
    )
    (tidy,) = [one for one in explained.json["operations"] if one["operation"] == "tidy"]
    (shelves,) = [one for one in tidy["policy"] if one["key"] == "shelves"]
    assert (shelves["value"], "fleet.yaml" in shelves["source"]) == (7, True)
    # it lists no tables, which is nothing wrong with it
    assert {target["target"]: target["status"] for target in examined.json["targets"]}["shelf"] == "ok"
    assert status.code == 0
    schema = json.loads(call(installed, sys.executable, "-m", "aurum_orchestration.fleet.schema").stdout)
    section = schema["$defs"]["Policies"]["properties"]["tidy"]["$ref"].rpartition("/")[2]
    assert schema["$defs"][section]["properties"]["shelves"]["description"] == "Shelves to tidy."
    fleet = Path(installed["AURUM_FLEET"])
    fleet.write_text(fleet.read_text().replace("shelves: 7", "shelves: 0"))
    refused = aurum(installed, "status")
    assert (refused.returncode, "policy.tidy.shelves" in refused.stderr) == (2, True)


def test_the_code_location_has_its_job_and_form(installed: dict[str, str]) -> None:
    loaded = call(installed, sys.executable, "-c", CODE_LOCATION)
    assert json.loads(loaded.stdout) == {
        "fields": {"shelves": "Shelves to tidy. At least 1. Left out: the table's policy (default 3)."},
        "done": True,
    }


def test_the_code_location_validates(installed: dict[str, str]) -> None:
    dagster = SCRIPT.with_name("dagster")
    validated = call(installed, str(dagster), "definitions", "validate", "-m", "aurum_orchestration.definitions")
    assert validated.returncode == 0, validated.stderr


@pytest.mark.parametrize(
    ("points", "taken"),
    [
        ("[aurum_orchestration.operations]\ntidy = other:Tidy\n", "operation 'tidy'"),
        ("[aurum_orchestration.operations]\ncompaction = other:Tidy\n", "operation 'compaction'"),
        ("[aurum_orchestration.backends]\nshelf = other:Shelf\n", "backend type 'shelf'"),
    ],
)
def test_a_name_that_two_packages_bring_is_an_error(installed: dict[str, str], points: str, taken: str) -> None:
    announce(Path(installed["PYTHONPATH"]), "other", points)
    refused = aurum(installed, "status", "--output", "json")
    assert refused.returncode == 2
    problem = json.loads(refused.stderr.splitlines()[-1])
    assert problem["type"] == "already-registered"
    assert taken in problem["detail"]
    assert "already registered" in problem["detail"]
