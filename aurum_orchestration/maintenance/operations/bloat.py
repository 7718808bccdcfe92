"""Bloat: what a table takes on storage beyond what it needs, in bytes that can be won back, and by what."""

from __future__ import annotations

from pydantic import Field

from aurum_orchestration.maintenance.interfaces import OperationType
from aurum_orchestration.maintenance.operations.base import (
    OperationParameters,
    PlannedOperation,
    TriggerPolicy,
)


class BloatParameters(OperationParameters):
    """What a report on bloat may be told."""

    target_file_size_mb: int = Field(
        default=128, ge=1, le=4096, description="Size that data files should have, in MiB; three quarters are enough."
    )
    min_input_files: int = Field(
        default=5, ge=2, le=10_000, description="In a partition with fewer small files than this they do not count."
    )
    orphans: bool = Field(
        default=True,
        description="Also list the table's folder for files that nothing refers to. On local storage only: "
        "elsewhere a dry run of vacuum does it.",
    )
    orphans_older_than_days: float = Field(
        default=3, ge=0, allow_inf_nan=False, description="Younger files may belong to a commit that is under way."
    )
    exact: bool = Field(
        default=False,
        description="PostgreSQL: read the table with the extension pgstattuple instead of estimating; as slow as "
        "reading the whole table.",
    )
    report_from_ratio: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="PostgreSQL: tables and indexes with so much of them unused are listed.",
    )


class BloatPolicy(TriggerPolicy, BloatParameters):
    """The ``bloat`` section of a policy."""

    enabled: bool = Field(default=False, description="True: the planner reports by itself, once per cooldown.")
    cooldown_minutes: int = Field(
        default=1440, ge=0, description="Minutes between two reports that the planner starts by itself."
    )


class BloatOperation(PlannedOperation):
    """Reports small files, deleted rows, old snapshots, orphans and metadata in bytes. Changes nothing."""

    operation = OperationType.BLOAT
    title = "Report bloat"
    Parameters = BloatParameters
    Policy = BloatPolicy
    only_looks = True
