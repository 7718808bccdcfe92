"""Maintenance of tables: the service, its factory and executor, and the words they use.

Names are imported when first used, so importing this package costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurum_orchestration.lazy import lazy_exports

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.base import BaseMaintenanceBackend
    from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
    from aurum_orchestration.maintenance.backends.postgres.backend import PostgresMaintenanceBackend
    from aurum_orchestration.maintenance.backends.sqlite.backend import SqliteMaintenanceBackend
    from aurum_orchestration.maintenance.backends.timescale.backend import TimescaleMaintenanceBackend
    from aurum_orchestration.maintenance.executor import MaintenanceExecutor
    from aurum_orchestration.maintenance.factory import MaintenanceFactory
    from aurum_orchestration.maintenance.health_checks import HealthCheckProvider, HealthCheckResult
    from aurum_orchestration.maintenance.interfaces import (
        MaintenanceConfig,
        MaintenanceResult,
        MaintenanceStatus,
        OperationType,
    )
    from aurum_orchestration.maintenance.operations.base import BaseMaintenanceOperation
    from aurum_orchestration.maintenance.service import MaintenanceService, create_maintenance_service

_WHERE = {
    "BaseMaintenanceBackend": "backends.base",
    "BaseMaintenanceOperation": "operations.base",
    "HealthCheckProvider": "health_checks",
    "HealthCheckResult": "health_checks",
    "IcebergMaintenanceBackend": "backends.iceberg.backend",
    "MaintenanceConfig": "interfaces",
    "MaintenanceExecutor": "executor",
    "MaintenanceFactory": "factory",
    "MaintenanceResult": "interfaces",
    "MaintenanceService": "service",
    "MaintenanceStatus": "interfaces",
    "OperationType": "interfaces",
    "PostgresMaintenanceBackend": "backends.postgres.backend",
    "SqliteMaintenanceBackend": "backends.sqlite.backend",
    "TimescaleMaintenanceBackend": "backends.timescale.backend",
    "create_maintenance_service": "service",
}

__all__ = [
    "BaseMaintenanceBackend",
    "BaseMaintenanceOperation",
    "HealthCheckProvider",
    "HealthCheckResult",
    "IcebergMaintenanceBackend",
    "MaintenanceConfig",
    "MaintenanceExecutor",
    "MaintenanceFactory",
    "MaintenanceResult",
    "MaintenanceService",
    "MaintenanceStatus",
    "OperationType",
    "PostgresMaintenanceBackend",
    "SqliteMaintenanceBackend",
    "TimescaleMaintenanceBackend",
    "create_maintenance_service",
]

__getattr__ = lazy_exports(__name__, _WHERE)
