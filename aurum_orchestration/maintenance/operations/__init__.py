"""One module per operation: its parameters, its policy, what it promises. Names are imported when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurum_orchestration.lazy import lazy_exports

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.operations.backup import BackupOperation
    from aurum_orchestration.maintenance.operations.base import BaseMaintenanceOperation
    from aurum_orchestration.maintenance.operations.bloat import BloatOperation
    from aurum_orchestration.maintenance.operations.cleanup import CleanupOperation
    from aurum_orchestration.maintenance.operations.compaction import CompactionOperation
    from aurum_orchestration.maintenance.operations.logs import LogsOperation
    from aurum_orchestration.maintenance.operations.manifests import ManifestsOperation
    from aurum_orchestration.maintenance.operations.partition_evolution import PartitionEvolutionOperation
    from aurum_orchestration.maintenance.operations.reindex import ReindexOperation
    from aurum_orchestration.maintenance.operations.retention import RetentionOperation
    from aurum_orchestration.maintenance.operations.sessions import SessionsOperation
    from aurum_orchestration.maintenance.operations.stats import StatsOperation
    from aurum_orchestration.maintenance.operations.vacuum import VacuumOperation
    from aurum_orchestration.maintenance.operations.views import ViewsOperation

_WHERE = {
    "BackupOperation": "backup",
    "BaseMaintenanceOperation": "base",
    "BloatOperation": "bloat",
    "CleanupOperation": "cleanup",
    "CompactionOperation": "compaction",
    "LogsOperation": "logs",
    "ManifestsOperation": "manifests",
    "PartitionEvolutionOperation": "partition_evolution",
    "ReindexOperation": "reindex",
    "RetentionOperation": "retention",
    "SessionsOperation": "sessions",
    "StatsOperation": "stats",
    "VacuumOperation": "vacuum",
    "ViewsOperation": "views",
}

__all__ = [
    "BackupOperation",
    "BaseMaintenanceOperation",
    "BloatOperation",
    "CleanupOperation",
    "CompactionOperation",
    "LogsOperation",
    "ManifestsOperation",
    "PartitionEvolutionOperation",
    "ReindexOperation",
    "RetentionOperation",
    "SessionsOperation",
    "StatsOperation",
    "VacuumOperation",
    "ViewsOperation",
]

__getattr__ = lazy_exports(__name__, _WHERE)
