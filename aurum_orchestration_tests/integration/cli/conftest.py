from __future__ import annotations

from pathlib import Path

import pytest

from aurum_orchestration_tests.lake import build_lake


def _live_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AURUM_HOME", str(home))
    monkeypatch.setenv("AURUM_FLEET", str(home / "fleet.yaml"))
    for name in ("AURUM_HISTORY_URL", "AURUM_LOG_LEVEL", "NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """AURUM_HOME with a lake of its own in it, described by its fleet.yaml."""
    build_lake(tmp_path / "home")
    return _live_in(tmp_path / "home", monkeypatch)


@pytest.fixture(scope="session")
def _unchanged_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("unchanged")
    build_lake(home)
    return home


@pytest.fixture
def shared_home(_unchanged_lake: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As ``home``, but one for all tests that change nothing in it."""
    return _live_in(_unchanged_lake, monkeypatch)
