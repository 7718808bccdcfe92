"""Retention: how long old snapshots, and rows by a time column, are kept."""

from __future__ import annotations

from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator

from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, OperationType
from aurum_orchestration.maintenance.operations.base import (
    OperationParameters,
    PlannedOperation,
    TriggerPolicy,
)
from aurum_orchestration.maintenance.operations.floors import Floor, FlooredParameters


class RetentionParameters(FlooredParameters, OperationParameters):
    """What a retention may be told."""

    retention_days: Annotated[float, Floor(1, "day")] = Field(
        default=7,
        ge=0,
        allow_inf_nan=False,
        description="Snapshots younger than this many days are kept; in Iceberg so are rows unless row_days says "
        "otherwise.",
    )
    retain_last: Annotated[int, Floor(1, "snapshot")] = Field(
        default=5, ge=0, description="At least this many snapshots are kept, whatever their age."
    )
    time_column: str | None = Field(
        default=None,
        description="Column (timestamp or date, a.b inside a struct) whose old rows are deleted. None: no row is.",
    )
    row_days: Annotated[float | None, Floor(1, "day")] = Field(
        default=None,
        ge=0,
        le=365_000,
        allow_inf_nan=False,
        description="Rows older than this many days by time_column are deleted. None: retention_days; databases delete "
        "no row then.",
    )
    rewrite_files: bool = Field(
        default=False,
        description="True: files that hold both old and younger rows are rewritten without the old ones. "
        "False: only files that are old as a whole leave the table; no data is written. PostgreSQL: the same for "
        "partitions by time; in other tables every old row goes.",
    )
    time_zone: str = Field(
        default="UTC", description="IANA zone in which a time_column without zone was written, e.g. Europe/Berlin."
    )
    verify: bool = Field(
        default=True,
        description="Read the time column of every file that leaves, and read rewritten files back, before the commit. "
        "PostgreSQL: a detached partition is looked through for younger rows before it is dropped.",
    )

    batch_size: int = Field(default=10_000, ge=1, le=1_000_000, description="PostgreSQL: rows deleted per transaction.")
    pause_ms: float = Field(
        default=50,
        ge=0,
        le=60_000,
        description="PostgreSQL: pause between two batches at least; it grows with their latency.",
    )
    max_rows: int | None = Field(
        default=None, ge=1, description="PostgreSQL: stop after so many rows; the next run carries on. None: all."
    )
    cascade: bool = Field(
        default=False,
        description="PostgreSQL: rows of other tables may go or change along, by ON DELETE CASCADE or SET NULL.",
    )
    drop_after_hours: float = Field(
        default=24,
        ge=0,
        le=87_600,
        description="PostgreSQL: a partition that is old as a whole is detached, and dropped so many hours later.",
    )

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ValueError, OSError, ZoneInfoNotFoundError) as error:
            raise ValueError(f"no time zone {name!r}: write a name like Europe/Berlin") from error
        return name


class RetentionPolicy(TriggerPolicy, RetentionParameters):
    """The ``retention`` section of a policy."""

    trigger_snapshots: int = Field(
        default=20,
        ge=1,
        description="The planner starts it when at least this many snapshots may go; a person need not wait.",
    )
    clear_snapshots: int = Field(
        default=5,
        ge=0,
        description="After a run that failed or was stopped, carry on until fewer snapshots than this may go.",
    )
    cooldown_minutes: int = Field(
        default=24 * 60,
        ge=0,
        description="Minutes after a retention of the table before the planner expires or looks for old rows again.",
    )


class RetentionOperation(PlannedOperation):
    """Expires old snapshots, deletes the files that only they held, and deletes rows past their time.

    Branches, tags, their own retention settings and the table's `history.expire.*` properties are honoured.
    """

    operation = OperationType.RETENTION
    title = "Expire snapshots and old rows"
    Parameters = RetentionParameters
    Policy = RetentionPolicy

    async def _execute_impl(self, backend: Any, config: MaintenanceConfig) -> dict[str, Any]:
        answer = await backend.execute_iceberg_operation(
            "expire_snapshots", config.target_table, dry_run=config.dry_run, **config.parameters
        )
        return dict(answer)
