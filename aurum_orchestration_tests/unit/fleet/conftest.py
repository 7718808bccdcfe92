from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from aurum_orchestration.fleet.fleet import Fleet
from aurum_orchestration.fleet.load import load_fleet
from aurum_orchestration.settings import AurumSettings

Load = Callable[[str], Fleet]


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("AURUM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def settings(tmp_path: Path) -> AurumSettings:
    return AurumSettings(home=tmp_path / "home")


@pytest.fixture
def load(tmp_path: Path, settings: AurumSettings) -> Load:
    """Loads a fleet from text; the file is fleet.yaml in tmp_path."""

    def loaded(text: str) -> Fleet:
        file = tmp_path / "fleet.yaml"
        file.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
        return load_fleet(file, settings)

    return loaded
