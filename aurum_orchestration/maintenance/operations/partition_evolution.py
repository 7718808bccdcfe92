"""Partition evolution: a table gets another partition spec, and its files are rewritten into it. Rows stay."""

from __future__ import annotations

from typing import Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, OperationType
from aurum_orchestration.maintenance.operations.base import (
    OperationParameters,
    PlannedOperation,
    TriggerPolicy,
)
from aurum_orchestration.maintenance.operations.compaction import CompactionParameters


class PartitionEvolutionParameters(OperationParameters):
    """What a partition evolution may be told. Without ``spec``, ``add`` and ``remove`` the spec stays as it is."""

    spec: list[str] | None = Field(
        default=None,
        description='The whole new spec, e.g. ["day(ts)", "bucket(16, curve_id)", "region"]; [] for no partitions. A '
        'term may end in "as NAME". Fields that are there already are kept.',
    )
    add: list[str] | None = Field(default=None, description="Fields to add to the current spec, instead of spec.")
    remove: list[str] | None = Field(
        default=None, description="Fields to take out of the current spec, by term or by name, instead of spec."
    )
    rewrite: bool = Field(
        default=True,
        description="Rewrite every file of an older spec into the new one. False: only what is "
        "written from now on has it.",
    )
    max_partitions: int = Field(
        default=10_000, ge=1, description="Refuse when the rows would fall into more partitions than this."
    )
    target_file_size_mb: int = Field(default=128, ge=1, le=4096, description="Size the written files aim at, in MiB.")
    max_concurrent_groups: int = Field(default=2, ge=1, le=64, description="Groups rewritten at the same time.")
    max_group_size_mb: int = Field(
        default=2048, ge=1, description="Input of one group (one commit) at most, in MiB on storage."
    )
    row_group_copy: bool = Field(
        default=True,
        description="Copy large row groups of files that fall into one partition byte for byte. False "
        "decodes everything.",
    )
    verify: bool = Field(
        default=True, description="Read back what was written and compare row count and checksum before the commit."
    )
    verification: Literal["checksum", "count"] = Field(
        default="checksum",
        description="Trino: how deep `verify` looks after a statement. checksum reads each rewritten row twice; count "
        "counts them.",
    )
    chunk_interval: str | None = Field(
        default=None,
        description="TimescaleDB: how wide new chunks of a hypertable are, e.g. '1 day'; a number where it is split by "
        "an integer column. None: as they are.",
    )

    premake: int = Field(
        default=4, ge=0, le=1000, description="PostgreSQL: so many range partitions stand ready after the present one."
    )
    time_zone: str = Field(
        default="UTC", description="PostgreSQL: IANA zone at whose midnights or firsts of a month partitions begin."
    )
    max_move_rows: int = Field(
        default=200_000,
        ge=0,
        description="PostgreSQL: rows of the default partition that one step may move, while writers wait.",
    )
    propose_from_gb: float = Field(
        default=50, ge=0, description="PostgreSQL: tables of this size and more get a proposal to be partitioned."
    )

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ValueError, OSError, ZoneInfoNotFoundError) as error:
            raise ValueError(f"no time zone {name!r}: write a name like Europe/Berlin") from error
        return name

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        if self.spec is not None and (self.add or self.remove):
            raise ValueError("spec is the whole new spec: add and remove cannot be given with it")
        return self

    def compaction(self) -> CompactionParameters:
        """What the rewrite of old files is told."""
        shared = set(type(self).model_fields) & set(CompactionParameters.model_fields)
        return CompactionParameters(
            **self.model_dump(include=shared), old_specs="all" if self.rewrite else "leave", min_input_files=2
        )


class PartitionEvolutionPolicy(TriggerPolicy, PartitionEvolutionParameters):
    """The ``partition_evolution`` section of a policy. The planner never starts it by itself."""


class PartitionEvolutionOperation(PlannedOperation):
    """Sets a partition spec and rewrites the files of older ones into it, in bounded groups, resumable."""

    operation = OperationType.PARTITION_EVOLUTION
    title = "Change the partition spec"
    Parameters = PartitionEvolutionParameters
    Policy = PartitionEvolutionPolicy

    async def _execute_impl(self, backend: Any, config: MaintenanceConfig) -> dict[str, Any]:
        return dict(
            await backend.execute_iceberg_operation(
                "evolve_partitions", config.target_table, dry_run=config.dry_run, **config.parameters
            )
        )
