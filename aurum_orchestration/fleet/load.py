"""fleet.yaml to :class:`Fleet`; everything that is wrong in it is told at once, with its line."""

from __future__ import annotations

from pathlib import Path

from aurum_orchestration.fleet.config import FleetConfig, IcebergBackendConfig
from aurum_orchestration.fleet.fleet import Fleet
from aurum_orchestration.fleet.policy import PolicyModels
from aurum_orchestration.settings import AurumSettings, DataBackendSettings


def load_fleet(
    path: Path | None = None,
    settings: AurumSettings | None = None,
    *,
    policy_models: PolicyModels | None = None,
) -> Fleet:
    """The fleet that a file describes.

    ``path`` defaults to the settings' fleet file. When nobody named a file and the default one is not
    there, the fleet is the one backend of the data-backend settings. ``policy_models`` are the Policy
    models by operation, default: those of this package.

    Raises ConfigurationError that lists every problem with file, line and key.
    """
    settings = settings or AurumSettings.from_env()
    file = path or settings.fleet
    if not file.exists():
        return Fleet(_without_file(settings.data_backend), home=settings.home, policy_models=policy_models)
    import yaml  # noqa: PLC0415

    config = FleetConfig.model_validate(yaml.safe_load(file.read_text().replace("${AURUM_HOME}", str(settings.home))))
    return Fleet(config, home=settings.home, path=file, policy_models=policy_models)


def _without_file(backend: DataBackendSettings) -> FleetConfig:
    """One backend named iceberg, through Trino when a host is set."""
    if backend.trino_host is None:
        iceberg = IcebergBackendConfig(type="iceberg", catalog={"name": backend.iceberg_catalog})
    else:
        iceberg = IcebergBackendConfig(
            type="iceberg",
            engine="trino",
            host=backend.trino_host,
            port=backend.trino_port,
            user=backend.trino_user,
            catalog={"name": backend.iceberg_catalog},
        )
    return FleetConfig(version=1, backends={"iceberg": iceberg})
