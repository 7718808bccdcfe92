"""Vacuum: space that nothing refers to any more is given back."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, OperationType
from aurum_orchestration.maintenance.operations.base import (
    OperationParameters,
    PlannedOperation,
    TriggerPolicy,
)
from aurum_orchestration.maintenance.operations.floors import Floor, FlooredParameters


class VacuumParameters(FlooredParameters, OperationParameters):
    """What a vacuum may be told."""

    older_than_days: Annotated[float, Floor(3, "day")] = Field(
        default=7,
        ge=0,
        allow_inf_nan=False,
        description="Only what nothing has referred to for this many days is removed.",
    )
    quarantine: bool = Field(
        default=True, description="Set files aside first, so that an undo can put them back. False: delete them."
    )
    quarantine_days: float = Field(
        default=7,
        ge=0,
        allow_inf_nan=False,
        description="Files set aside this many days ago are deleted by the next vacuum.",
    )
    dropped_tables: bool = Field(
        default=False,
        description="Where metadata of another table lies: False refuses, True takes it for a dropped table's.",
    )
    analyze: bool = Field(default=True, description="PostgreSQL: collect the planner's statistics in the same pass.")
    freeze: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="PostgreSQL: FREEZE. auto: when the table's transaction ids are freeze_at_share of "
        "autovacuum_freeze_max_age old.",
    )
    freeze_at_share: float = Field(
        default=0.75,
        gt=0,
        le=1,
        description="PostgreSQL: share of autovacuum_freeze_max_age that freezes.",
    )
    parallel_workers: int | None = Field(
        default=None,
        ge=0,
        le=1024,
        description="PostgreSQL: workers for the table's indexes at most. None: as the server decides; 0: none.",
    )
    cost_delay_ms: float = Field(
        default=2,
        ge=0,
        le=100,
        description="PostgreSQL: vacuum_cost_delay, the pauses that leave the disk to others. 0: at full speed.",
    )
    truncate: bool = Field(
        default=True,
        description="PostgreSQL: give empty pages at the end of the table back to the disk, under a short lock of all "
        "that is given up when others wait. False: never.",
    )


class VacuumPolicy(TriggerPolicy, VacuumParameters):
    """The ``vacuum`` section of a policy."""

    trigger_autovacuum_debt: float = Field(
        default=1.5,
        gt=0,
        allow_inf_nan=False,
        description="PostgreSQL: the planner starts it at so many times the dead rows at which autovacuum should have.",
    )
    cooldown_minutes: int = Field(
        default=7 * 24 * 60,
        ge=0,
        description="Minutes after a vacuum of the table before the planner repeats it, or looks for orphans again.",
    )


class VacuumOperation(PlannedOperation):
    """Gives space back: orphan files of an Iceberg table, dead rows of a PostgreSQL one.

    Files under a table's locations that no snapshot, ref or metadata refers to are set aside.

    After `quarantine_days` a later vacuum deletes them; until then an undo puts them back.
    """

    operation = OperationType.VACUUM
    title = "Remove orphan files"
    Parameters = VacuumParameters
    Policy = VacuumPolicy

    async def _execute_impl(self, backend: Any, config: MaintenanceConfig) -> dict[str, Any]:
        answer = await backend.execute_iceberg_operation(
            "remove_orphan_files", config.target_table, dry_run=config.dry_run, **config.parameters
        )
        return dict(answer)
