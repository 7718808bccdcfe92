"""Manifests: the lists of files that every query plan reads, few and clustered instead of one per commit."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, OperationType
from aurum_orchestration.maintenance.operations.base import (
    OperationParameters,
    PlannedOperation,
    TriggerPolicy,
)


class ManifestsParameters(OperationParameters):
    """What a rewrite of manifests may be told."""

    target_manifest_size_mb: float | None = Field(
        default=None,
        gt=0,
        le=1024,
        allow_inf_nan=False,
        description="Size that manifests aim at, in MiB. None: the table's commit.manifest.target-size-bytes, else 8.",
    )
    everything: bool = Field(
        default=False,
        description="True: also rewrite manifests that have a good size, so that all are clustered by partition.",
    )
    max_group_size_mb: int = Field(
        default=64, ge=1, description="Manifests rewritten in one commit at most, in MiB on storage; bounds the memory."
    )


class ManifestsPolicy(TriggerPolicy, ManifestsParameters):
    """The ``manifests`` section of a policy."""

    trigger_excess_manifests: int = Field(
        default=50, ge=1, description="Rewrite when at least this many manifests could be saved."
    )


class ManifestsOperation(PlannedOperation):
    """Rewrites small manifests into few, clustered by partition. Data files are neither read nor changed."""

    operation = OperationType.MANIFESTS
    title = "Rewrite manifests"
    Parameters = ManifestsParameters
    Policy = ManifestsPolicy

    async def _execute_impl(self, backend: Any, config: MaintenanceConfig) -> dict[str, Any]:
        return dict(
            await backend.execute_iceberg_operation(
                "rewrite_manifests", config.target_table, dry_run=config.dry_run, **config.parameters
            )
        )
