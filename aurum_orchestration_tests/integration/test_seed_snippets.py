"""The snippets of the document that the service's API comes from, as written there but for the import root."""

from __future__ import annotations

import ast
import inspect
import sqlite3
from contextlib import closing
from datetime import date
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from pyiceberg.utils.config import Config

from aurum_orchestration.errors import ConfigurationError
from aurum_orchestration.fleet.config import IcebergBackendConfig
from aurum_orchestration.maintenance import (
    BaseMaintenanceBackend,
    MaintenanceConfig,
    MaintenanceFactory,
    MaintenanceResult,
    MaintenanceService,
    MaintenanceStatus,
    OperationType,
)
from aurum_orchestration.settings import AurumSettings, DataBackendSettings
from aurum_orchestration_tests.lake import BY_DAY, SCHEMA, append_small_files, lake_catalog

FLEET = """\
version: 1
backends:
  iceberg:
    type: iceberg
    catalog: {type: sql, name: lake, uri: "sqlite:///${AURUM_HOME}/catalog.db", warehouse: "file://${AURUM_HOME}/wh"}
"""
TABLE = "iceberg.market.curve_observation"


@pytest.fixture(autouse=True)
def _registries(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (MaintenanceFactory._operations, MaintenanceFactory._backends):
        monkeypatch.setattr(registry, "_registered", {})


@pytest.fixture
def _lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table that the snippets name, with 24 small files, in the environment's fleet."""
    with closing(lake_catalog(tmp_path)) as catalog:
        catalog.create_namespace("market")
        table = catalog.create_table("market.curve_observation", SCHEMA, partition_spec=BY_DAY)
        append_small_files(table, [date(2026, 1, 31)], 24)
    (tmp_path / "fleet.yaml").write_text(FLEET, encoding="utf-8")
    monkeypatch.setenv("AURUM_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


async def run(snippet: str, **names: Any) -> dict[str, Any]:
    """Execute a snippet, ``await`` outside functions included, and answer its names."""
    code = compile(inspect.cleandoc(snippet), "<snippet>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(code, CodeType)
    outcome = eval(code, names)
    if inspect.iscoroutine(outcome):
        await outcome
    return names


BASIC = """
from aurum_orchestration.maintenance import MaintenanceService, OperationType

# Create service (uses AurumSettings for configuration)
service = MaintenanceService()

# Execute a single maintenance operation
result = await service.execute_maintenance(
    backend_type="iceberg",
    operation_type=OperationType.COMPACTION,
    target_table="iceberg.market.curve_observation",
    dry_run=True,
    parameters={"target_file_size_mb": 256}
)

print(f"Operation {result.operation_id} status: {result.status}")
print(f"Files rewritten: {result.metrics.get('files_rewritten', 0)}")
"""


@pytest.mark.usefixtures("_lake")
async def test_basic_usage(capsys: pytest.CaptureFixture[str]) -> None:
    names = await run(BASIC)
    result: MaintenanceResult = names["result"]
    assert capsys.readouterr().out == f"Operation {result.operation_id} status: planned\nFiles rewritten: 0\n"
    assert len(result.steps or ()) == 1
    await names["service"].close()


BATCH = """
# Execute multiple operations
operations = [
    {
        "backend_type": "iceberg",
        "operation_type": "compaction", 
        "target_table": "iceberg.market.curve_observation",
        "parameters": {"target_file_size_mb": 256}
    },
    {
        "backend_type": "iceberg",
        "operation_type": "retention",
        "target_table": "iceberg.market.curve_observation", 
        "parameters": {"retention_days": 30}
    }
]

results = await service.execute_batch_maintenance(operations)
for result in results:
    print(f"Table: {result.config.target_table}, Status: {result.status}")
"""


@pytest.mark.usefixtures("_lake")
async def test_batch_operations(capsys: pytest.CaptureFixture[str]) -> None:
    async with MaintenanceService() as service:
        names = await run(BATCH, service=service)
    compacted, retained = names["results"]
    assert (str(compacted.status), compacted.metrics["files_rewritten"]) == ("completed", 24)
    assert str(retained.status) in {"completed", "skipped"}
    assert capsys.readouterr().out.startswith(f"Table: {TABLE}, Status: completed\nTable: {TABLE}, Status: ")


CONFIGURATION = """
from aurum_orchestration.settings import AurumSettings

settings = AurumSettings(
    data_backend=DataBackendSettings(
        trino_host="localhost",
        trino_port=8080,
        iceberg_catalog="iceberg"
    )
)

service = MaintenanceService(settings=settings)
"""


async def test_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = await run(
        CONFIGURATION,
        DataBackendSettings=DataBackendSettings,
        MaintenanceService=MaintenanceService,
    )
    backend = names["service"].fleet.backends["iceberg"]
    assert (backend.host, backend.port) == ("localhost", 8080)


TESTING = """
import pytest
from unittest.mock import AsyncMock
from aurum_orchestration.maintenance import MaintenanceFactory, OperationType

@pytest.mark.asyncio
async def test_compaction_operation():
    # Create components
    operation = MaintenanceFactory.create_operation(OperationType.COMPACTION)
    backend = AsyncMock()
    backend.backend_type = "iceberg"
    backend.health_check.return_value = True
    
    # Mock backend response
    backend.execute_iceberg_operation.return_value = {
        "rewritten_files": 5,
        "added_files": 3
    }
    
    # Execute and verify
    config = MaintenanceConfig(
        operation_type=OperationType.COMPACTION,
        target_table="test_table"
    )
    
    result = await operation.execute(backend, config)
    assert result.status == MaintenanceStatus.COMPLETED
"""


async def test_testing() -> None:
    names = await run(
        TESTING + "    return result\n", MaintenanceConfig=MaintenanceConfig, MaintenanceStatus=MaintenanceStatus
    )
    result = await names["test_compaction_operation"]()
    assert (result.metrics["files_rewritten"], result.metrics["files_added"]) == (5, 3)


OPERATION = """
from aurum_orchestration.maintenance.operations.base import BaseMaintenanceOperation
from aurum_orchestration.maintenance.interfaces import OperationType

class CustomOperation(BaseMaintenanceOperation):
    def __init__(self):
        super().__init__(OperationType.CUSTOM)
    
    async def _execute_impl(self, backend, config):
        # Implementation here
        return {"custom_metric": 42}

# Register the operation
MaintenanceFactory.register_operation(OperationType.CUSTOM, CustomOperation)
"""

BACKEND = """
from aurum_orchestration.maintenance.backends.base import BaseMaintenanceBackend

class CustomBackend(BaseMaintenanceBackend):
    @property
    def backend_type(self):
        return "custom"
    
    @property 
    def supported_operations(self):
        return [OperationType.COMPACTION]
    
    async def _create_connection(self):
        # Implementation here
        return custom_connection
    
    # Implement other abstract methods...

# Register the backend
MaintenanceFactory.register_backend("custom", CustomBackend)
"""


async def test_extension_points(tmp_path: Path) -> None:
    await run(OPERATION, MaintenanceFactory=MaintenanceFactory)
    await run(BACKEND, MaintenanceFactory=MaintenanceFactory, OperationType=OperationType, custom_connection=object())

    backend = MaintenanceFactory.create_backend("custom")
    assert isinstance(backend, BaseMaintenanceBackend)
    await backend.connect()
    (tmp_path / "fleet.yaml").write_text("version: 1\nbackends: {mine: {type: custom}}\n", encoding="utf-8")
    async with MaintenanceService(AurumSettings(home=tmp_path, fleet=tmp_path / "fleet.yaml")) as service:
        done = await service.execute_maintenance("custom", OperationType.CUSTOM, "mine.a.b")
        refused = await service.execute_maintenance("mine", OperationType.COMPACTION, "mine.a.b")
        recorded = service.history.operations()
    assert (str(done.status), done.metrics) == ("completed", {"custom_metric": 42})
    assert (str(refused.status), refused.reason) == ("skipped", "a custom backend has no compaction")
    assert {one.operation_id for one in recorded} == {done.operation_id, refused.operation_id}


BRIDGE = """
# The IcebergMaintenanceBackend bridges to existing functions
from aurum_orchestration.maintenance.backends import IcebergMaintenanceBackend

backend = IcebergMaintenanceBackend({
    "host": "localhost",
    "port": 8080,
    "user": "aurum"
})

await backend.connect()
"""

BRIDGED = """
# This calls the existing aurum.iceberg.maintenance.rewrite_data_files
result = await backend.execute_iceberg_operation(
    "rewrite_data_files",
    "iceberg.market.curve_observation",
    target_file_size_mb=256,
    dry_run=True
)
"""


@pytest.mark.usefixtures("_lake")
async def test_the_bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As written, with nothing at that host; which catalog there is says PyIceberg's own configuration."""
    monkeypatch.setenv("PYICEBERG_CATALOG__ICEBERG__TYPE", "sql")
    monkeypatch.setenv("PYICEBERG_CATALOG__ICEBERG__URI", f"sqlite:///{tmp_path}/catalog.db")
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())  # which a new process reads by itself
    with closing(sqlite3.connect(tmp_path / "catalog.db")) as catalog, catalog:
        catalog.execute("UPDATE iceberg_tables SET catalog_name = 'iceberg'")
    names = await run(BRIDGE + BRIDGED)
    assert (names["result"]["rewritten_files"], names["result"]["added_files"]) == (24, 1)
    assert names["result"]["dry_run"] is True
    await names["backend"].disconnect()


async def test_the_bridge_connects_to_nothing_and_says_what_it_needs_when_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYICEBERG_HOME", str(tmp_path))
    names = await run(BRIDGE)
    assert await names["backend"].health_check()
    with pytest.raises(ConfigurationError, match="no 'catalog' in its configuration") as needed:
        await run(BRIDGED, backend=names["backend"])
    assert "PYICEBERG_CATALOG__ICEBERG__URI" in str(needed.value.hint)


BEFORE = """
from aurum_orchestration.maintenance.iceberg import rewrite_data_files

result = rewrite_data_files(
    "iceberg.market.curve_observation",
    target_file_size_mb=256,
    dry_run=True
)
"""

AFTER = """
from aurum_orchestration.maintenance import MaintenanceService, OperationType

service = MaintenanceService()
result = await service.execute_maintenance(
    backend_type="iceberg",
    operation_type=OperationType.COMPACTION,
    target_table="iceberg.market.curve_observation",
    dry_run=True,
    parameters={"target_file_size_mb": 256}
)
"""


@pytest.mark.usefixtures("_lake")
async def test_the_migration_plans_the_same_before_and_after() -> None:
    before, after = await run(BEFORE), await run(AFTER)
    await after["service"].close()
    assert before["result"]["rewritten_files"] == sum(len(step.detail["files"]) for step in after["result"].steps) == 24


ENVIRONMENT = """
AURUM_DATA_BACKEND_TRINO_HOST=localhost
AURUM_DATA_BACKEND_TRINO_PORT=8080
AURUM_DATA_BACKEND_ICEBERG_CATALOG=iceberg
"""


async def test_configuration_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for line in ENVIRONMENT.split():
        monkeypatch.setenv(*line.split("="))
    async with MaintenanceService() as service:
        backend = service.fleet.backends["iceberg"]
    assert isinstance(backend, IcebergBackendConfig)
    assert (backend.type, backend.host, backend.port) == ("iceberg", "localhost", 8080)
