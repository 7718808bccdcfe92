"""Reindex: indexes that grew far beyond what they hold are built anew beside the old ones, writers not locked out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from aurum_orchestration.maintenance.interfaces import OperationType
from aurum_orchestration.maintenance.operations.base import (
    OperationParameters,
    PlannedOperation,
    TriggerPolicy,
)


class ReindexParameters(OperationParameters):
    """What a reindex may be told."""

    scope: Literal["bloated", "table", "database"] = Field(
        default="bloated",
        description="bloated: indexes from min_bloat_ratio and min_bloat_mb on, and invalid ones a killed run left. "
        "table: every index of the table. database: every index of every table; ask for it on the database.",
    )
    indexes: list[str] = Field(
        default_factory=list, description="Only these indexes, by name, whatever their bloat. None: those of scope."
    )
    min_bloat_ratio: float = Field(
        default=0.3, ge=0, le=1, description="An index is bloated from this share of unused space on."
    )
    min_bloat_mb: float = Field(
        default=100, ge=0, allow_inf_nan=False, description="And from so many MiB of unused space on."
    )
    free_space_factor: float = Field(
        default=1.2,
        ge=1,
        allow_inf_nan=False,
        description="The new index stands beside the old one: refuse unless so many times its size are free, where the "
        "server tells.",
    )
    unknown_space_limit_mb: float | None = Field(
        default=10 * 1024,
        ge=0,
        allow_inf_nan=False,
        description="Where free space cannot be known (a server elsewhere), a larger index is left alone; in MiB. "
        "None: no limit.",
    )
    wait_timeout_seconds: int = Field(
        default=600,
        ge=1,
        le=86_400,
        description="How long to wait for transactions that were open when the build began; nobody queues behind it.",
    )


class ReindexPolicy(TriggerPolicy, ReindexParameters):
    """The ``reindex`` section of a policy."""

    cooldown_minutes: int = Field(
        default=7 * 24 * 60, ge=0, description="Minutes after a reindex of the table before the planner repeats it."
    )


class ReindexOperation(PlannedOperation):
    """Builds bloated and invalid indexes anew, one at a time, beside the old ones."""

    operation = OperationType.REINDEX
    title = "Reindex database"
    Parameters = ReindexParameters
    Policy = ReindexPolicy
