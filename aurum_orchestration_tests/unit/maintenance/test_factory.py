"""Registries, entry points, lazy exports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import aurum_orchestration.maintenance as maintenance
from aurum_orchestration.errors import (
    AlreadyRegisteredError,
    ConfigurationError,
    RequestError,
    UnknownNameError,
    UnsupportedError,
    nearest,
)
from aurum_orchestration.maintenance import backends, operations
from aurum_orchestration.maintenance.backends.base import BaseMaintenanceBackend
from aurum_orchestration.maintenance.factory import MaintenanceFactory
from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, OperationType
from aurum_orchestration.maintenance.operations.base import BaseMaintenanceOperation
from aurum_orchestration.maintenance.operations.compaction import CompactionOperation
from aurum_orchestration_tests.unit.maintenance.files import FilesBackend


class Polish(BaseMaintenanceOperation):
    """A user's own."""

    def __init__(self) -> None:
        super().__init__("polish")

    async def _execute_impl(self, backend: Any, config: MaintenanceConfig) -> dict[str, Any]:
        return {"shine": 1, "colour": "brown"}


def test_what_is_built_in() -> None:
    assert isinstance(MaintenanceFactory.create_operation(OperationType.COMPACTION), CompactionOperation)
    assert isinstance(MaintenanceFactory.create_operation("compaction"), CompactionOperation)
    assert dict(MaintenanceFactory.operations())["compaction"] is CompactionOperation
    assert "iceberg" in MaintenanceFactory.backends()


def test_registered_names_are_made_and_listed(tmp_path: Path) -> None:
    MaintenanceFactory.register_operation("polish", Polish)
    MaintenanceFactory.register_backend("files", FilesBackend)
    assert isinstance(MaintenanceFactory.create_operation("polish"), Polish)
    backend = MaintenanceFactory.create_backend("files", {"root": str(tmp_path)}, name="disk")
    assert (backend.name, backend.backend_type) == ("disk", "files")
    assert MaintenanceFactory.create_backend("files", {"root": str(tmp_path)}).name == "files"
    assert "polish" in MaintenanceFactory.operations()
    assert "files" in MaintenanceFactory.backends()


def test_a_name_is_registered_once() -> None:
    MaintenanceFactory.register_operation(OperationType.CUSTOM, Polish)
    with pytest.raises(ValueError, match="already registered"):
        MaintenanceFactory.register_operation("custom", Polish)
    with pytest.raises(AlreadyRegisteredError, match="'compaction' is already registered"):
        MaintenanceFactory.register_operation(OperationType.COMPACTION, Polish)
    with pytest.raises(AlreadyRegisteredError, match="'iceberg' is already registered"):
        MaintenanceFactory.register_backend("iceberg", FilesBackend)


def test_what_is_no_operation_is_not_registered() -> None:
    with pytest.raises(ConfigurationError, match="not a subclass of BaseMaintenanceOperation"):
        MaintenanceFactory.register_operation("polish", FilesBackend)  # type: ignore[arg-type]


def test_unlike_names_are_offered_all_unless_they_are_many() -> None:
    assert nearest("x", ["b", "a"]) == "Known: a, b."
    names = [f"name{number:02d}" for number in range(30)]
    assert nearest("x", names[:13]) == f"Known: {', '.join(names[:13])}."
    assert nearest("x", names) == f"Known: {', '.join(names[:12])} and 18 more."
    assert nearest("x", MaintenanceFactory.operations()).count(",") == len(MaintenanceFactory.operations()) - 1


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        MaintenanceFactory.create_operation("compact")
    assert caught.value.hint == "Did you mean 'compaction'?"
    with pytest.raises(UnknownNameError, match="no backend type is named 'icebreg'"):
        MaintenanceFactory.create_backend("icebreg")


def test_a_kind_that_nothing_implements_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="custom is not available"):
        MaintenanceFactory.create_operation(OperationType.CUSTOM)


# --- entry points


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, group: str, **points: str) -> None:
    """A package on the path that announces entry points."""
    info = folder / "plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[aurum_orchestration.{group}]\n{lines}")
    monkeypatch.syspath_prepend(str(folder))
    for registry in (MaintenanceFactory._operations, MaintenanceFactory._backends):
        monkeypatch.setattr(registry, "_announced", None)


HERE = "aurum_orchestration_tests.unit.maintenance"


def test_installed_packages_bring_operations_and_backends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "operations", shine=f"{HERE}.test_factory:Polish")
    assert isinstance(MaintenanceFactory.create_operation("shine"), BaseMaintenanceOperation)
    assert "shine" in MaintenanceFactory.operations()
    with pytest.raises(AlreadyRegisteredError):
        MaintenanceFactory.register_operation("shine", Polish)


def test_a_backend_is_announced_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "backends", files=f"{HERE}.files:FilesBackend", broken="nowhere.at_all:Backend")
    assert {"files", "broken"} <= set(MaintenanceFactory.backends())
    assert MaintenanceFactory.create_backend("files", {"root": str(tmp_path)}).backend_type == "files"
    with pytest.raises(ConfigurationError, match=r"entry point 'nowhere\.at_all:Backend' cannot be imported"):
        MaintenanceFactory.create_backend("broken")


def test_a_broken_plugin_is_left_out_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(tmp_path, monkeypatch, "operations", broken="nowhere.at_all:Thing", wrong="pathlib:Path")
    assert not {"broken", "wrong"} & set(MaintenanceFactory.operations())
    assert "nowhere.at_all:Thing" in caplog.text
    assert "'pathlib:Path' is not a BaseMaintenanceOperation" in caplog.text


def test_a_plugin_may_not_take_a_name_that_is_built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "operations", compaction=f"{HERE}.test_factory:Polish")
    with pytest.raises(AlreadyRegisteredError, match="'compaction' of entry point"):
        MaintenanceFactory.operations()


# --- operations outside the flow


async def test_only_numbers_become_metrics(tmp_path: Path) -> None:
    config = MaintenanceConfig(operation_type="polish", target_table="files.a.b")
    result = await Polish().execute(FilesBackend({"root": str(tmp_path)}), config)
    assert (str(result.status), result.metrics) == ("completed", {"shine": 1})
    planned = await Polish().execute(FilesBackend({"root": str(tmp_path)}), config.model_copy(update={"dry_run": True}))
    assert str(planned.status) == "planned"


async def test_an_operation_executed_on_a_backend_that_is_down_is_a_failed_result(tmp_path: Path) -> None:
    config = MaintenanceConfig(operation_type="polish", target_table="files.a.b")
    result = await Polish().execute(FilesBackend({"root": str(tmp_path / "gone")}), config)
    assert result.problem is not None
    assert (str(result.status), result.problem.type) == ("failed", "backend-unavailable")


def test_the_first_wrong_parameter_is_named() -> None:
    operation = CompactionOperation()
    with pytest.raises(RequestError, match="'target_file_size_mb' of compaction") as caught:
        operation.parameters({"target_file_size_mb": "many"})
    assert caught.value.hint is None


# --- exports


@pytest.mark.parametrize("package", [maintenance, backends, operations])
def test_everything_exported_can_be_imported(package: Any) -> None:
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        package.Nonsense  # noqa: B018


def test_importing_the_service_imports_nothing_heavy() -> None:
    program = (
        "import sys; from aurum_orchestration.maintenance import MaintenanceService, MaintenanceFactory; "
        "MaintenanceFactory.backends(); "
        "print([name for name in ('pyiceberg', 'pyarrow', 'sqlalchemy', 'dagster', 'numpy') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_backend_has_the_base() -> None:
    assert issubclass(backends.IcebergMaintenanceBackend, BaseMaintenanceBackend)
