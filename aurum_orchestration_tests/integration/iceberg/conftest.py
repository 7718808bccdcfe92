"""The catalog that the Iceberg tests work on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyiceberg.catalog.sql import SqlCatalog

from aurum_orchestration_tests.integration.iceberg.support import sql_catalog


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[SqlCatalog]:
    """A SQLite catalog with the namespace ``ns`` and its warehouse under ``tmp_path``."""
    with sql_catalog(tmp_path) as made:
        yield made
