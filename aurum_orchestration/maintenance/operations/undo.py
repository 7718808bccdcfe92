"""Undo: takes back one recorded operation, through the same flow as any other: plan, lease, apply, verify, record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from aurum_orchestration.errors import RequestError, UndoRefusedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, MaintenancePlan, MaintenanceResult
from aurum_orchestration.maintenance.operations.base import BaseMaintenanceOperation, OperationParameters

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.base import BaseMaintenanceBackend

UNDO = "undo"
"""Name of the operation in plans and in the history."""


class UndoParameters(OperationParameters):
    """Which operation is taken back."""

    operation_id: str = Field(description="Id of the operation, as every command prints it.")


class UndoOperation(BaseMaintenanceOperation):
    """Takes back the operation that ended with ``result``. Made by the service, which reads it from the history."""

    title = "Take an operation back"
    Parameters = UndoParameters
    planned = True

    def __init__(self, result: MaintenanceResult) -> None:
        super().__init__(UNDO)
        self._result = result

    def plan(self, backend: BaseMaintenanceBackend, table: TableId, parameters: BaseModel) -> MaintenancePlan:  # noqa: ARG002 - the base's signature
        """What taking it back would do. Raises UndoRefusedError with the reason when nothing can."""
        if str(self._result.config.operation_type) == UNDO:
            raise UndoRefusedError(
                "it is an undo itself", hint="Run the operation again that was taken back: `aurum run --operation ...`."
            )
        return backend.plan_undo(table, self._result)

    async def _execute_impl(self, backend: Any, config: MaintenanceConfig) -> dict[str, Any]:  # noqa: ARG002 - the base's
        raise RequestError(
            "an undo needs the history", hint="Use `aurum undo OPERATION_ID` or MaintenanceService.undo."
        )
