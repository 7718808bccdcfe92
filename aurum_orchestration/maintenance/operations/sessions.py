"""Sessions: rows that are past their expiry are deleted, by the rule groups that fleet.yaml has for the backend."""

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


class SessionsParameters(OperationParameters):
    """What a clean-up of sessions may be told. The groups themselves are in fleet.yaml, with their backend."""

    groups: list[str] = Field(
        default_factory=list, description="Only the rule groups with these titles. None: all of the backend."
    )
    batch_size: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Rows per transaction. None: as each group says (default 10,000)."
    )
    pause_ms: float = Field(
        default=50, ge=0, le=60_000, description="Pause between two batches at least; it grows with their latency."
    )
    max_rows: int | None = Field(
        default=None, ge=1, description="Stop after so many rows of each group; the next run carries on. None: all."
    )


class SessionsPolicy(TriggerPolicy, SessionsParameters):
    """The ``sessions`` section of a policy."""

    cooldown_minutes: int = Field(
        default=1440, ge=0, description="Minutes between two runs that the planner starts by itself."
    )


class SessionsOperation(BaseMaintenanceOperation):
    """Deletes expired sessions, group by group, in batches; safe to run often."""

    title = "Clean expired sessions"
    Parameters = SessionsParameters
    Policy = SessionsPolicy
    planned = True

    def __init__(self) -> None:
        super().__init__(OperationType.SESSIONS)

    async def _execute_impl(self, backend: Any, config: MaintenanceConfig) -> dict[str, Any]:  # noqa: ARG002 - the base's
        raise RequestError("a clean-up of sessions is planned by the service", hint="Use MaintenanceService or aurum.")
