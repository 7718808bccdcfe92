"""What an operation is: its parameters, its policy, and how it runs on a backend outside the flow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aurum_orchestration.errors import BackendUnavailableError, RequestError, as_aurum_error, nearest
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.interfaces import (
    MaintenanceConfig,
    MaintenancePlan,
    MaintenanceResult,
    MaintenanceStatus,
    OperationType,
)
from aurum_orchestration.maintenance.operations.floors import below_floor

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.base import BaseMaintenanceBackend


def numbers(answer: Any) -> dict[str, float]:
    """The numeric members of what an operation returned, as its metrics."""
    if not isinstance(answer, Mapping):
        return {}
    return {str(name): float(value) for name, value in answer.items() if isinstance(value, int | float)}


class OperationParameters(BaseModel):
    """Base of an operation's parameters: what a person may set for one run. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TriggerPolicy(BaseModel):
    """When the planner starts an operation by itself. Part of every operation's policy in fleet.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(default=True, description="False: the planner never starts it; a person still can.")
    cooldown_minutes: int = Field(
        default=60,
        ge=0,
        description="Minutes after a run of this operation on the table before the planner repeats it.",
    )


class BaseMaintenanceOperation(ABC):
    """Base of all operations. A user's own subclass implements ``_execute_impl``.

    ``Parameters`` is the model of its parameters (launchpad, CLI and docs are made from it),
    ``Policy`` the model of its section in fleet.yaml: parameters and trigger together.
    ``planned`` says that backends plan it, so that the executor runs it through the whole flow.
    ``only_looks`` says that it leaves a table as it is: what was measured before it still holds.
    """

    title: ClassVar[str] = ""
    Parameters: ClassVar[type[BaseModel]] = OperationParameters
    Policy: ClassVar[type[BaseModel]] = TriggerPolicy
    planned: ClassVar[bool] = False
    only_looks: ClassVar[bool] = False

    def __init__(self, operation_type: OperationType | str) -> None:
        self.operation_type = operation_type

    @property
    def name(self) -> str:
        """The operation's name as users write it."""
        return str(self.operation_type)

    def parameters(self, given: dict[str, Any], policy: BaseModel | None = None) -> BaseModel:
        """Validated parameters: what is given, then the policy's values, then defaults.

        Raises RequestError naming the wrong key and the nearest right one.
        """
        known = self.Parameters.model_fields
        merged = {key: value for key, value in (policy.model_dump() if policy else {}).items() if key in known}
        try:
            return self.Parameters.model_validate({**merged, **given})
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                hint: str | None = nearest(key, known)
            else:  # a floor is a matter of several parameters, so it has no key
                below = [] if key else below_floor(self.Parameters, {**merged, **given})
                hint = next((what for _, _, what in below), None)
            place = f"parameter {key!r} of {self.name}" if key else self.name
            message = first["msg"].removeprefix("Value error, ")
            raise RequestError(f"{place}: {message}", operation=self.name, hint=hint) from error

    def plan(self, backend: BaseMaintenanceBackend, table: TableId, parameters: BaseModel) -> MaintenancePlan:
        """What the operation would do on a table of the backend now; only for a ``planned`` one."""
        return backend.plan(table, self.name, parameters)

    async def execute(self, backend: Any, config: MaintenanceConfig) -> MaintenanceResult:
        """Run on a backend directly, outside plan and lease; a failure is a result, not an exception."""
        started = datetime.now(UTC)
        status: MaintenanceStatus = MaintenanceStatus.PLANNED if config.dry_run else MaintenanceStatus.COMPLETED
        metrics: dict[str, float] = {}
        problem = None
        try:
            if not await backend.health_check():
                raise BackendUnavailableError(f"backend {backend.backend_type!r} failed its health check")
            metrics = numbers(await self._execute_impl(backend, config))
        except Exception as error:
            status = MaintenanceStatus.FAILED
            problem = as_aurum_error(error).problem(table=config.target_table, operation=self.name)
        return MaintenanceResult(
            config=config,
            backend=str(backend.backend_type),
            status=status,
            reason=problem.detail or problem.title if problem else f"{self.name} done",
            metrics=metrics,
            problem=problem,
            started_at=started,
            finished_at=datetime.now(UTC),
        )

    @abstractmethod
    async def _execute_impl(self, backend: Any, config: MaintenanceConfig) -> dict[str, Any]:
        """Do the work on the backend and return its metrics."""


class PlannedOperation(BaseMaintenanceOperation):
    """Base of the operations that a backend plans, so that they go through the whole flow of the service.

    ``operation`` is its name. Where nobody ever called it outside of the flow, ``execute`` says who runs it.
    """

    operation: ClassVar[OperationType]
    planned = True

    def __init__(self) -> None:
        super().__init__(self.operation)

    async def _execute_impl(self, backend: Any, config: MaintenanceConfig) -> dict[str, Any]:
        raise RequestError(
            f"{self.name} is planned, proven and recorded by the service", hint="Use MaintenanceService or `aurum run`."
        )
