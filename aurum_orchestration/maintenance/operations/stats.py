"""Stats: what a table holds, by column, as far as its manifests tell without reading data."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from aurum_orchestration.errors import RequestError
from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, OperationType
from aurum_orchestration.maintenance.operations.base import (
    BaseMaintenanceOperation,
    OperationParameters,
    TriggerPolicy,
)


class StatsParameters(OperationParameters):
    """What statistics may be told."""

    columns: list[str] = Field(
        default_factory=list, description="Only these columns, nested ones with dots, e.g. address.city. None: all."
    )
    sample_rows: int = Field(
        default=100_000,
        ge=0,
        le=10_000_000,
        description="Rows read to estimate how many distinct values each column has. 0: no data file is read.",
    )


class StatsPolicy(TriggerPolicy, StatsParameters):
    """The ``stats`` section of a policy."""

    enabled: bool = Field(default=False, description="True: the planner reports by itself, once per cooldown.")
    cooldown_minutes: int = Field(
        default=1440, ge=0, description="Minutes between two reports that the planner starts by itself."
    )


class StatsOperation(BaseMaintenanceOperation):
    """Reports rows, bytes, nulls, bounds and distinct values by column. Writes nothing to the table."""

    title = "Report statistics"
    Parameters = StatsParameters
    Policy = StatsPolicy
    planned = True

    def __init__(self) -> None:
        super().__init__(OperationType.STATS)

    async def _execute_impl(self, backend: Any, config: MaintenanceConfig) -> dict[str, Any]:  # noqa: ARG002 - the base's
        raise RequestError("statistics are reported by the service", hint="Use MaintenanceService or aurum.")
