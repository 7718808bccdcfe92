"""Retention: how long old snapshots, and rows by a time column, are kept."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from aurum_orchestration.maintenance.operations.base import OperationParameters, TriggerPolicy
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
