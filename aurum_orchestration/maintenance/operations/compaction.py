"""Compaction: few files of a good size instead of many small ones. Rows, snapshots and refs stay."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, OperationType
from aurum_orchestration.maintenance.operations.base import (
    OperationParameters,
    PlannedOperation,
    TriggerPolicy,
)

MIB = 1024 * 1024


class CompactionParameters(OperationParameters):
    """What a compaction may be told."""

    target_file_size_mb: int = Field(default=128, ge=1, le=4096, description="Size the written files aim at, in MiB.")
    min_input_files: int = Field(
        default=5, ge=2, le=10_000, description="A partition with fewer small files than this is left alone."
    )
    strategy: Literal["binpack", "sort", "zorder"] = Field(
        default="binpack",
        description="How rows are laid out: binpack keeps their order, sort puts them into the table's sort order or "
        "that of sort_columns, zorder clusters them by all zorder_columns alike.",
    )
    sort_columns: str | None = Field(
        default=None,
        description="What strategy sort sorts by, most significant first, instead of the table's own sort order, e.g. "
        '"id, ts desc nulls last".',
    )
    zorder_columns: str | None = Field(
        default=None, description='What strategy zorder clusters by, e.g. "longitude, latitude".'
    )
    rewrite_all: bool = Field(
        default=False,
        description="Rewrite every file of the partitions, whatever its size: for sorting files that are large already "
        "by columns that are not the table's own sort order (files in that order say so).",
    )
    partition_filter: str | None = Field(
        default=None,
        description="Only partitions where this holds, e.g. \"day = '2026-01-31' and region in ('N','S')\".",
    )
    old_specs: Literal["as_needed", "all", "leave"] = Field(
        default="as_needed",
        description="Files of older partition specs. as_needed: those that would be compacted anyway are rewritten "
        "into the current spec. all: every one is. leave: none is touched.",
    )
    max_concurrent_groups: int = Field(default=2, ge=1, le=64, description="Groups rewritten at the same time.")
    max_group_size_mb: int = Field(
        default=2048, ge=1, description="Input of one group (one commit) at most, in MiB on storage."
    )
    max_deleted_ratio: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="A data file is rewritten, whatever its size, when delete files take out at least this share of "
        "its rows. Positions are counted; each equality delete is taken to hit one row.",
    )
    max_delete_files: int = Field(
        default=100,
        ge=1,
        description="A table with at least this many delete files gets every data file rewritten that one applies to.",
    )
    row_group_copy: bool = Field(
        default=True,
        description="Copy row groups that are large enough and as the table wants them byte for byte, and decode only "
        "the others. False decodes and encodes everything.",
    )
    verify: bool = Field(
        default=True, description="Read back what was written and compare row count and checksum before the commit."
    )
    verification: Literal["checksum", "count"] = Field(
        default="checksum",
        description="Trino: how deep `verify` looks after a statement. checksum reads each rewritten row twice; count "
        "counts them.",
    )
    online_rewrite: bool = Field(
        default=False, description="PostgreSQL: rewrite the table with pg_repack. False: a table is never rewritten."
    )
    vacuum_full: bool = Field(
        default=False,
        description="PostgreSQL: rewrite with VACUUM FULL where pg_repack cannot; it locks readers and writers out.",
    )
    min_bloat_ratio: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="PostgreSQL: a table with so much of it unused is worth a rewrite.",
    )
    min_bloat_mb: float = Field(
        default=1024, ge=0, allow_inf_nan=False, description="PostgreSQL: and from so many MiB of unused space on."
    )
    wait_timeout_seconds: int = Field(
        default=60,
        ge=1,
        le=86_400,
        description="PostgreSQL: how long pg_repack waits for its locks before it gives up.",
    )
    free_space_factor: float = Field(
        default=1.5,
        ge=1,
        allow_inf_nan=False,
        description="PostgreSQL: refuse a rewrite unless so many times the size of table and indexes are free, where "
        "that can be known.",
    )
    unknown_space_limit_mb: float | None = Field(
        default=10 * 1024,
        ge=0,
        allow_inf_nan=False,
        description="PostgreSQL: where the free space cannot be known (the server runs elsewhere), a larger table is "
        "left alone; in MiB. None: no limit.",
    )
    chunks: Literal["columnstore", "merge", "reorder"] = Field(
        default="columnstore",
        description="TimescaleDB: what is done to old chunks of a hypertable, on the TSL edition. merge: neighbours "
        "that are together no larger than target_file_size_mb.",
    )
    chunks_older_than_days: float = Field(
        default=7, ge=0, le=365_000, description="TimescaleDB: only chunks that ended so many days ago."
    )
    reorder_index: str | None = Field(
        default=None, description="TimescaleDB: index of the hypertable by which `chunks: reorder` orders rows."
    )


class CompactionPolicy(TriggerPolicy, CompactionParameters):
    """The ``compaction`` section of a policy."""

    trigger_excess_files: int = Field(
        default=20, ge=1, description="Compact when at least this many files could be saved."
    )
    clear_excess_files: int = Field(
        default=5, ge=0, description="Once triggered, keep compacting until fewer files than this could be saved."
    )
    trigger_chunks: int | None = Field(
        default=None,
        ge=1,
        description="TimescaleDB: the planner converts by itself once so many chunks wait for `chunks: columnstore`. "
        "None: only who names the operation does.",
    )


class CompactionOperation(PlannedOperation):
    """Rewrites small data files into files near the target size."""

    operation = OperationType.COMPACTION
    title = "Compact small files"
    Parameters = CompactionParameters
    Policy = CompactionPolicy

    async def _execute_impl(self, backend: Any, config: MaintenanceConfig) -> dict[str, Any]:
        answer = dict(
            await backend.execute_iceberg_operation(
                "rewrite_data_files", config.target_table, dry_run=config.dry_run, **config.parameters
            )
        )
        answer["files_rewritten"] = answer.pop("rewritten_files", 0)
        answer["files_added"] = answer.pop("added_files", 0)
        return answer
