"""What ops and sensors are handed: connects when first used, lets go at the end of a run, may be replaced."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from aurum_orchestration.dagster_edge.resources import service_resources
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration_tests.dagster.conftest import Location


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Connections opened and closed, in order."""
    seen: list[str] = []
    opening, closing = IcebergMaintenanceBackend._create_connection, IcebergMaintenanceBackend._close_connection

    async def opened(backend: IcebergMaintenanceBackend) -> Any:
        seen.append("open")
        return await opening(backend)

    async def closed(backend: IcebergMaintenanceBackend, connection: Any) -> None:
        seen.append("close")
        await closing(backend, connection)

    monkeypatch.setattr(IcebergMaintenanceBackend, "_create_connection", opened)
    monkeypatch.setattr(IcebergMaintenanceBackend, "_close_connection", closed)
    return seen


def test_a_run_connects_once_and_lets_go(location: Location, calls: list[str]) -> None:
    definitions = location.definitions()
    definitions.get_repository_def()
    assert calls == []
    assert location.run("compaction").success
    assert calls == ["open", "close"]


def test_ticks_share_a_connection(location: Location, calls: list[str]) -> None:
    """What the backend remembers of a measurement makes the next one cheap."""
    repository = location.definitions().get_repository_def()
    sensor, resources = repository.get_sensor_def("compaction_lake"), repository.get_top_level_resources()
    for _ in range(2):
        with dg.build_sensor_context(location.instance, resources=resources) as context:
            sensor.evaluate_tick(context)
    assert calls == ["open"]


def test_an_op_of_somebody_else_uses_the_resources(location: Location) -> None:
    seen: dict[str, Any] = {}

    @dg.op(required_resource_keys={"aurum_service", "aurum_history", "aurum_settings"})
    def own(context) -> None:  # type: ignore[no-untyped-def]
        seen["home"] = context.resources.aurum_settings.get().home
        seen["operations"] = context.resources.aurum_history.get().operations()
        seen["backends"] = list(context.resources.aurum_service.get().fleet.backends)

    @dg.job(resource_defs=dict(service_resources(MaintenanceService(location.settings))))
    def job() -> None:
        own()

    assert job.execute_in_process(instance=location.instance).success
    assert seen == {"home": location.home, "operations": [], "backends": ["lake"]}
    assert not (location.home / "history.db").exists()


def test_a_torn_down_resource_works_again(location: Location) -> None:
    definitions = location.definitions()
    job = definitions.get_repository_def().get_job("health")
    for _ in range(2):
        assert job.execute_in_process(instance=location.instance).success


def test_no_secret_of_the_settings_is_shown(location: Location) -> None:
    settings = location.settings.model_copy(update={"history_url": "postgresql+psycopg://me:hunter2@nowhere/aurum"})
    resources = service_resources(MaintenanceService(settings))
    assert "hunter2" not in repr(resources)
    for resource in resources.values():
        assert isinstance(resource, dg.ConfigurableResource)
        assert "hunter2" not in str(
            resource.get_resource_definition().config_schema.as_field().default_value_as_json_str
        )
