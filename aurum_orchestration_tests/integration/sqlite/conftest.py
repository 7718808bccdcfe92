"""A file for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from aurum_orchestration_tests.integration.sqlite.support import SCHEMA, File


@pytest.fixture
def file(tmp_path: Path) -> File:
    """A database with logs, sessions and failed tasks."""
    (tmp_path / "data").mkdir()
    made = File(tmp_path / "data" / "app.db", tmp_path / "home")
    made.script(SCHEMA)
    return made
