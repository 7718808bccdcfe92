"""One Spark for all tests of this folder, and a lake that it shares with the engine under test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from aurum_orchestration.maintenance.interfaces import MaintenanceResult
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.settings import AurumSettings
from aurum_orchestration_tests.engines import missing
from aurum_orchestration_tests.integration.iceberg.support import Rows, sql_catalog
from aurum_orchestration_tests.lake import FLEET
from aurum_orchestration_tests.servers import absence
from aurum_orchestration_tests.servers.spark import ENGINE, QUICK_START, Spark, SparkCatalog, running

PARAMETERS: dict[str, dict[str, Any]] = {
    "compaction": {"min_input_files": 2},
    "partition_evolution": {"spec": ["bucket(2, id)"]},
    "retention": {"retention_days": 0, "retain_last": 1, "override_floor": True, "override_reason": "judged by Java"},
    "stats": {"ndv": True},
    "vacuum": {"older_than_days": 0, "override_floor": True, "override_reason": "judged by Java"},
}
"""What lets each operation do something on a table that was made just now."""


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spark]:
    """A Spark with Apache Iceberg's library, skipped with the reason where it is not provisioned."""
    if ENGINE.find() is None:
        missing(ENGINE.name, absence(ENGINE))
    if "CI" in os.environ and ENGINE.name not in os.environ.get("AURUM_REQUIRE_ENGINES", ""):
        pytest.skip("takes minutes, so CI runs it only where AURUM_REQUIRE_ENGINES lists spark")
    with running(tmp_path_factory.mktemp("spark"), settings=QUICK_START) as started:
        yield started


@dataclass
class SharedLake:
    """The same tables through PyIceberg (``catalog``) and through Spark (``java``), in ``home``."""

    home: Path
    catalog: SqlCatalog
    java: SparkCatalog
    service: MaintenanceService

    async def maintain(self, operation: str, *, name: str = "ns.t", **parameters: Any) -> MaintenanceResult:
        """Run an operation of ours through the service."""
        given = {**PARAMETERS.get(operation, {}), **parameters}
        return await self.service.execute_maintenance(
            backend_type="lake", operation_type=operation, target_table=f"lake.{name}", parameters=given
        )

    def sql(self, text: str) -> list[dict[str, Any]]:
        """The rows that Spark answers; tables are named ``lake.ns.t``."""
        return self.java.sql(text)

    def load(self, name: str = "ns.t") -> Table:
        """The table as PyIceberg reads it now."""
        return self.catalog.load_table(name)

    def rows(self, name: str = "ns.t", columns: str = "*") -> Rows:
        """The table's rows as Spark reads them, a multiset."""
        return Rows(map(repr, self.sql(f"SELECT {columns} FROM lake.{name}")))

    def generic_rows(self, name: str = "ns.t") -> Rows:
        """The table's rows as Iceberg's generic reader prints them."""
        return Rows(self.java.records(f"lake.{name}"))

    def names(self) -> set[str]:
        """Every file of the warehouse but the checksums that Hadoop's local file system leaves beside its own."""
        root = self.home / "warehouse"
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.suffix != ".crc"}


@pytest.fixture
async def lake(tmp_path: Path, spark: Spark) -> AsyncIterator[SharedLake]:
    """A lake in a folder of its own."""
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(FLEET)
    settings = AurumSettings(home=tmp_path, fleet=fleet, history_url=f"sqlite:///{tmp_path}/history.db")
    with sql_catalog(tmp_path) as catalog:
        async with MaintenanceService(settings) as service:
            yield SharedLake(tmp_path, catalog, spark.catalog(tmp_path), service)
