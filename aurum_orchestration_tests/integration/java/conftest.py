"""One Spark for all tests of this folder, and a lake that it shares with the engine under test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from aurum_orchestration_tests.engines import missing
from aurum_orchestration_tests.integration.iceberg.support import Rows, sql_catalog
from aurum_orchestration_tests.servers.spark import ENGINE, Spark, SparkCatalog, running


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spark]:
    """A Spark with Apache Iceberg's library, skipped with the reason where it is not provisioned."""
    if ENGINE.find() is None:
        missing(ENGINE.name, ENGINE.absence)
    with running(tmp_path_factory.mktemp("spark")) as started:
        yield started


@dataclass
class SharedLake:
    """The same tables through PyIceberg (``catalog``) and through Spark (``java``), in ``home``."""

    home: Path
    catalog: SqlCatalog
    java: SparkCatalog

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
def lake(tmp_path: Path, spark: Spark) -> Iterator[SharedLake]:
    """A lake in a folder of its own."""
    with sql_catalog(tmp_path) as catalog:
        yield SharedLake(tmp_path, catalog, spark.catalog(tmp_path))
