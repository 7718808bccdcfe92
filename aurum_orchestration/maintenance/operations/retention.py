"""Retention: how long old snapshots, and rows by a time column, are kept."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, OperationType
from aurum_orchestration.maintenance.operations.base import (
    BaseMaintenanceOperation,
    OperationParameters,
    TriggerPolicy,
)
from aurum_orchestration.maintenance.operations.floors import Floor, FlooredParameters


class RetentionParameters(FlooredParameters, OperationParameters):
    """What a retention may be told."""

    retention_days: Annotated[float, Floor(1, "day")] = Field(
        default=7,
        ge=0,
        allow_inf_nan=False,
        description="Snapshots younger than this many days are kept, and so are rows by time_column.",
    )
    retain_last: Annotated[int, Floor(1, "snapshot")] = Field(
        default=5, ge=0, description="At least this many snapshots are kept, whatever their age."
    )
    time_column: str | None = Field(
        default=None, description="Rows older than retention_days by this column are deleted. None: no row is."
    )


class RetentionPolicy(TriggerPolicy, RetentionParameters):
    """The ``retention`` section of a policy."""


class RetentionOperation(BaseMaintenanceOperation):
    """Expires old snapshots, deletes the files that only they held, and deletes rows past their time.

    Branches, tags, their own retention settings and the table's `history.expire.*` properties are honoured.
    """

    title = "Expire snapshots and old rows"
    Parameters = RetentionParameters
    Policy = RetentionPolicy
    planned = True

    def __init__(self) -> None:
        super().__init__(OperationType.RETENTION)

    async def _execute_impl(self, backend: Any, config: MaintenanceConfig) -> dict[str, Any]:
        answer = await backend.execute_iceberg_operation(
            "expire_snapshots", config.target_table, dry_run=config.dry_run, **config.parameters
        )
        return dict(answer)
