"""Stats: what a table holds, by column, and distinct values stored for those who plan queries."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from aurum_orchestration.maintenance.interfaces import OperationType
from aurum_orchestration.maintenance.operations.base import (
    OperationParameters,
    PlannedOperation,
    TriggerPolicy,
)


class StatsParameters(OperationParameters):
    """What statistics may be told, and which are stored."""

    columns: list[str] = Field(
        default_factory=list, description="Only these columns, nested ones with dots, e.g. address.city. None: all."
    )
    sample_rows: int = Field(
        default=100_000,
        ge=0,
        le=10_000_000,
        description="Rows read to estimate how many distinct values each column has. 0: none.",
    )
    ndv: bool = Field(
        default=False,
        description="Read all rows and store how many distinct values each top-level column has as table statistics "
        "(theta sketches in a Puffin file), which Trino and Spark plan joins by.",
    )
    drop_ndv: bool = Field(
        default=False,
        description="Trino: first remove what is stored of all columns (drop_extended_stats), which it needs before "
        "other columns are counted. The embedded engine counts column by column and ignores this.",
    )
    top: int = Field(default=20, ge=1, le=1000, description="PostgreSQL: so many of the largest tables are listed.")
    analyze: Literal["stale", "all", "none"] = Field(
        default="stale",
        description="PostgreSQL: which tables are analyzed: those whose statistics are stale, all, or none.",
    )
    stale_ratio: float = Field(
        default=0.1,
        gt=0,
        allow_inf_nan=False,
        description="PostgreSQL: statistics are stale when so large a share of the rows changed since (and 50 rows).",
    )


class StatsPolicy(TriggerPolicy, StatsParameters):
    """The ``stats`` section of a policy."""

    enabled: bool = Field(default=False, description="True: the planner reports by itself, once per cooldown.")
    cooldown_minutes: int = Field(
        default=1440, ge=0, description="Minutes between two reports that the planner starts by itself."
    )


class StatsOperation(PlannedOperation):
    """Reports rows, bytes, nulls, bounds and distinct values by column; with ``ndv`` also stores the latter."""

    operation = OperationType.STATS
    title = "Report statistics"
    Parameters = StatsParameters
    Policy = StatsPolicy
