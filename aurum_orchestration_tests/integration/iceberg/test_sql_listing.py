"""Listing and measuring a SQL catalog need neither PyIceberg's catalog nor a second look at a file."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from aurum_orchestration.fleet.policy import builtin_policy_models
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.backends.iceberg.files import Files
from aurum_orchestration.maintenance.backends.iceberg.sql_listing import open_listing
from aurum_orchestration.maintenance.threads import run_sync
from aurum_orchestration_tests.lake import build_lake

MEASURED = """
import sys
from aurum_orchestration.fleet.policy import builtin_policy_models
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.threads import run_sync
policies = {name: model() for name, model in builtin_policy_models().items()}
backend = IcebergMaintenanceBackend({"catalog": {"type": "sql", "uri": sys.argv[1]}}, name="lake")
run_sync(backend.connect())
found = backend.measure([one.table for one in backend.names([])], lambda _table, name: policies[name])
assert len(found) == 4 and not any(one.problem for one in found), found
heavy = {"pyiceberg.catalog", "pyiceberg.table", "sqlalchemy.orm", "pyarrow"} & sys.modules.keys()
assert not heavy, heavy
"""


def lake(home: Path) -> dict[str, Any]:
    build_lake(home, sick=False)
    return {"type": "sql", "uri": f"sqlite:///{home}/catalog.db"}


def test_measuring_does_not_import_what_only_maintenance_needs(tmp_path: Path) -> None:
    words = [sys.executable, "-c", MEASURED, lake(tmp_path)["uri"]]
    ran = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr


def test_metadata_is_read_once_for_listing_and_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = IcebergMaintenanceBackend({"catalog": lake(tmp_path)}, name="lake")
    run_sync(backend.connect())
    policies = {name: model() for name, model in builtin_policy_models().items()}
    reads: Counter[str] = Counter()
    read = Files.read

    def counted(self: Files, location: str) -> bytes:
        reads[location] += location.endswith(".json")
        return read(self, location)

    monkeypatch.setattr(Files, "read", counted)
    names = [one.table for one in backend.names([])]
    assert not reads
    assert [one.table for one in backend.discover([])] == names
    measured = backend.measure(names, lambda _table, operation: policies[operation])
    assert not any(one.problem for one in measured)
    again = backend.measure(names, lambda _table, operation: policies[operation])
    assert [one.state_token for one in again] == [one.state_token for one in measured]
    assert +reads
    assert max(reads.values()) == 1
    run_sync(backend.disconnect())


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "rest"},
        {"py-catalog-impl": "a.B"},
        {"schema_version": "v1"},
        {"init_catalog_tables": True},
        {"uri": "sqlite:///:memory:"},
        {"uri": "sqlite:////nowhere/catalog.db"},
        {"uri": "mysql://127.0.0.1/x"},
        {"uri": "no uri"},
        {"uri": None},
    ],
)
def test_whatever_is_unusual_is_left_to_pyiceberg(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert open_listing("lake", {**lake(tmp_path), **changes}) is None
    assert not Path("/nowhere").exists()


def test_a_configuration_of_pyicebergs_own_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    properties = lake(tmp_path)
    monkeypatch.chdir(tmp_path)
    listing = open_listing("lake", {**properties, "name": "prod"})
    assert listing is not None
    assert (listing.name, listing.properties["uri"]) == ("prod", properties["uri"])
    listing.close()
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__S3__REGION", "eu")
    assert open_listing("lake", properties) is None
    monkeypatch.delenv("PYICEBERG_CATALOG__LAKE__S3__REGION")
    (tmp_path / ".pyiceberg.yaml").write_text("catalog: {}\n")
    assert open_listing("lake", properties) is None
