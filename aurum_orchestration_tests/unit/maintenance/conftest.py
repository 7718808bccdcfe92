from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from aurum_orchestration.history import History
from aurum_orchestration.maintenance.executor import MaintenanceExecutor
from aurum_orchestration.maintenance.factory import MaintenanceFactory
from aurum_orchestration_tests.unit.maintenance.files import FilesBackend, FileTable


@pytest.fixture(autouse=True)
def _registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    for registry in (MaintenanceFactory._operations, MaintenanceFactory._backends):
        monkeypatch.setattr(registry, "_registered", {})


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with History(f"sqlite:///{tmp_path / 'history.db'}") as store:
        yield store


@pytest.fixture
def executor(history: History) -> MaintenanceExecutor:
    """Retries at once, so that tests are quick."""
    return MaintenanceExecutor(history, who="tester", lease_ttl=timedelta(seconds=30), pause=0.001)


@pytest.fixture
def backend(tmp_path: Path) -> FilesBackend:
    (tmp_path / "root").mkdir()
    return FilesBackend({"root": str(tmp_path / "root")}, name="disk")


MakeTable = Callable[..., FileTable]


@pytest.fixture
def make_table(backend: FilesBackend) -> MakeTable:
    def make(files: int, name: str = "events", backend: FilesBackend = backend) -> FileTable:
        """A table of that many files, two rows each."""
        table = FileTable(backend.root / "ns" / name).create()
        for number in range(files):
            table.append(f"row {number}", f"row {number} again")
        return table

    return make
