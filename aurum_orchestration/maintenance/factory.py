"""Makes operations and backends by name, and takes new ones in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.maintenance.backends.base import BaseMaintenanceBackend
from aurum_orchestration.maintenance.interfaces import OperationType
from aurum_orchestration.maintenance.operations.base import BaseMaintenanceOperation
from aurum_orchestration.maintenance.registry import Registry

_HERE = "aurum_orchestration.maintenance"


class MaintenanceFactory:
    """The registries of operations and backends.

    They belong to the process, not to a service, on purpose: code and packages that are installed are the
    process's too. Everything else (settings, fleet, connections, history) belongs to one service.
    """

    _operations: ClassVar[Registry[BaseMaintenanceOperation]] = Registry(
        "operation",
        f"{_HERE}.operations.base:BaseMaintenanceOperation",
        {
            "backup": f"{_HERE}.operations.backup:BackupOperation",
            "bloat": f"{_HERE}.operations.bloat:BloatOperation",
            "cleanup": f"{_HERE}.operations.cleanup:CleanupOperation",
            "compaction": f"{_HERE}.operations.compaction:CompactionOperation",
            "logs": f"{_HERE}.operations.logs:LogsOperation",
            "manifests": f"{_HERE}.operations.manifests:ManifestsOperation",
            "partition_evolution": f"{_HERE}.operations.partition_evolution:PartitionEvolutionOperation",
            "reindex": f"{_HERE}.operations.reindex:ReindexOperation",
            "retention": f"{_HERE}.operations.retention:RetentionOperation",
            "sessions": f"{_HERE}.operations.sessions:SessionsOperation",
            "stats": f"{_HERE}.operations.stats:StatsOperation",
            "vacuum": f"{_HERE}.operations.vacuum:VacuumOperation",
            "views": f"{_HERE}.operations.views:ViewsOperation",
        },
        "aurum_orchestration.operations",
    )
    _backends: ClassVar[Registry[BaseMaintenanceBackend]] = Registry(
        "backend type",
        f"{_HERE}.backends.base:BaseMaintenanceBackend",
        {
            "iceberg": f"{_HERE}.backends.iceberg.backend:IcebergMaintenanceBackend",
            "postgres": f"{_HERE}.backends.postgres.backend:PostgresMaintenanceBackend",
            "sqlite": f"{_HERE}.backends.sqlite.backend:SqliteMaintenanceBackend",
            "timescale": f"{_HERE}.backends.timescale.backend:TimescaleMaintenanceBackend",
        },
        "aurum_orchestration.backends",
    )

    @classmethod
    def register_operation(cls, operation_type: OperationType | str, operation: type[BaseMaintenanceOperation]) -> None:
        """Make an operation known by its type or by a name of its own. Raises AlreadyRegisteredError."""
        cls._operations.register(operation_type, operation)

    @classmethod
    def register_backend(cls, backend_type: str, backend: type[BaseMaintenanceBackend]) -> None:
        """Make a backend type known to fleet.yaml. Raises AlreadyRegisteredError."""
        cls._backends.register(backend_type, backend)

    @classmethod
    def create_operation(cls, operation_type: OperationType | str) -> BaseMaintenanceOperation:
        """The operation of that type or name.

        Raises UnknownNameError with the nearest name, UnsupportedError for an :class:`OperationType`
        that nothing implements here.
        """
        name = str(operation_type)
        if name in set(OperationType) and name not in cls._operations.names():
            raise UnsupportedError(f"{name} is not available in this version", operation=name)
        made: Any = cls._operations.get(name)
        operation: BaseMaintenanceOperation = made()
        return operation

    @classmethod
    def create_backend(
        cls, backend_type: str, config: Mapping[str, Any] | None = None, *, name: str | None = None
    ) -> BaseMaintenanceBackend:
        """A backend of that type, not connected yet. ``name`` is its name in the fleet (default: the type)."""
        return cls._backends.get(backend_type)(config, name=name)

    @classmethod
    def operations(cls) -> Mapping[str, type[BaseMaintenanceOperation]]:
        """Every known operation by name."""
        return cls._operations.all()

    @classmethod
    def policies(cls) -> Mapping[str, type[BaseModel]]:
        """The model of every known operation's section in fleet.yaml."""
        return {name: operation.Policy for name, operation in cls.operations().items()}

    @classmethod
    def backends(cls) -> tuple[str, ...]:
        """Every known backend type; none is imported."""
        return cls._backends.names()
