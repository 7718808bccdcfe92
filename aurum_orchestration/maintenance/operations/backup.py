"""Backup: a tag or branch with its own retention keeps a snapshot, and all its files, whatever expires around it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from aurum_orchestration.maintenance.interfaces import OperationType
from aurum_orchestration.maintenance.operations.base import (
    OperationParameters,
    PlannedOperation,
    TriggerPolicy,
)

TIMESTAMP = "{timestamp}"


class BackupParameters(OperationParameters):
    """What a backup may be told."""

    kind: Literal["tag", "branch"] = Field(
        default="tag", description="tag: cannot be written to. branch: can be, for trying things out on the old state."
    )
    name: str = Field(
        default="aurum_backup_{timestamp}",
        description="Name of the ref; {timestamp} becomes the time in UTC, e.g. 20260131T020000Z.",
    )
    keep_days: float | None = Field(
        default=30,
        gt=0,
        allow_inf_nan=False,
        description="Days from now after which the ref may expire. None: never by age.",
    )
    keep_last: int = Field(
        default=3,
        ge=1,
        description="Older backups under this name beyond so many are removed, once a newer one is verified.",
    )

    path: str | None = Field(
        default=None,
        description="PostgreSQL and SQLite: folder or URL (s3://bucket/prefix) that backups are written to. "
        "None: no backup is made.",
    )
    file_name: str = Field(
        default="backup_{db}_{timestamp}",
        description="PostgreSQL and SQLite: name of a backup, without its ending; {db} becomes the database's name.",
    )
    format: Literal["directory", "custom", "plain"] = Field(
        default="custom",
        description="PostgreSQL: format of pg_dump; directory is written by several jobs, plain is SQL.",
    )
    jobs: int = Field(default=2, ge=1, le=64, description="PostgreSQL: tables dumped at once, with format directory.")
    compress: int = Field(
        default=5, ge=0, le=9, description="PostgreSQL: level of compression, of custom and directory; 0: none."
    )
    verify: Literal["list", "restore"] = Field(
        default="list",
        description="PostgreSQL: list: read the backup whole. restore: also restore it into a scratch database and "
        "compare the row counts of its tables.",
    )

    @field_validator("name", "file_name")
    @classmethod
    def _has_a_timestamp(cls, name: str) -> str:
        if name.count(TIMESTAMP) != 1:
            raise ValueError(f"{name!r} needs {TIMESTAMP} once, so that backups can be told apart and put in order")
        return name


class BackupPolicy(TriggerPolicy, BackupParameters):
    """The ``backup`` section of a policy."""

    enabled: bool = Field(
        default=False, description="True: the planner backs the table up by itself, once per cooldown."
    )
    cooldown_minutes: int = Field(
        default=1440, ge=0, description="Minutes between two backups that the planner starts by itself."
    )


class BackupOperation(PlannedOperation):
    """Keeps the current snapshot under a tag or branch of its own, and proves that every file of it is there."""

    operation = OperationType.BACKUP
    title = "Back up by a tag"
    Parameters = BackupParameters
    Policy = BackupPolicy
