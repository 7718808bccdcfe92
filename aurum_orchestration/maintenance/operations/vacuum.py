"""Vacuum: space that nothing refers to any more is given back."""

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


class VacuumPolicy(TriggerPolicy, VacuumParameters):
    """The ``vacuum`` section of a policy."""

    cooldown_minutes: int = Field(
        default=7 * 24 * 60,
        ge=0,
        description="Minutes after a vacuum of the table before the planner looks for orphans again.",
    )


class VacuumOperation(BaseMaintenanceOperation):
    """Finds files under a table's locations that no snapshot, ref or metadata refers to, and sets them aside.

    After `quarantine_days` a later vacuum deletes them; until then an undo puts them back.
    """

    title = "Remove orphan files"
    Parameters = VacuumParameters
    Policy = VacuumPolicy
    planned = True

    def __init__(self) -> None:
        super().__init__(OperationType.VACUUM)

    async def _execute_impl(self, backend: Any, config: MaintenanceConfig) -> dict[str, Any]:
        answer = await backend.execute_iceberg_operation(
            "remove_orphan_files", config.target_table, dry_run=config.dry_run, **config.parameters
        )
        return dict(answer)
