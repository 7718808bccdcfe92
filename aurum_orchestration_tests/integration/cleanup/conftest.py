"""A lake of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aurum_orchestration_tests.integration.upkeep.lakeside import Lakeside


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lakeside]:
    """An empty lake under ``tmp_path``: catalog, warehouse, fleet file, history."""
    with Lakeside.at(tmp_path) as made:
        yield made
