"""One package or module per storage family. Names are imported when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurum_orchestration.lazy import lazy_exports

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.base import BaseMaintenanceBackend
    from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
    from aurum_orchestration.maintenance.backends.postgres.backend import PostgresMaintenanceBackend
    from aurum_orchestration.maintenance.backends.sqlite.backend import SqliteMaintenanceBackend
    from aurum_orchestration.maintenance.backends.timescale.backend import TimescaleMaintenanceBackend

_WHERE = {
    "BaseMaintenanceBackend": "base",
    "IcebergMaintenanceBackend": "iceberg.backend",
    "PostgresMaintenanceBackend": "postgres.backend",
    "SqliteMaintenanceBackend": "sqlite.backend",
    "TimescaleMaintenanceBackend": "timescale.backend",
}

__all__ = [
    "BaseMaintenanceBackend",
    "IcebergMaintenanceBackend",
    "PostgresMaintenanceBackend",
    "SqliteMaintenanceBackend",
    "TimescaleMaintenanceBackend",
]

__getattr__ = lazy_exports(__name__, _WHERE)
