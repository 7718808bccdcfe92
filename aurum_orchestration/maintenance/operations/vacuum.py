"""Vacuum: space that nothing refers to any more is given back."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from aurum_orchestration.maintenance.operations.base import OperationParameters, TriggerPolicy
from aurum_orchestration.maintenance.operations.floors import Floor, FlooredParameters


class VacuumParameters(FlooredParameters, OperationParameters):
    """What a vacuum may be told."""

    older_than_days: Annotated[float, Floor(3, "day")] = Field(
        default=7,
        ge=0,
        allow_inf_nan=False,
        description="Only what nothing has referred to for this many days is removed.",
    )


class VacuumPolicy(TriggerPolicy, VacuumParameters):
    """The ``vacuum`` section of a policy."""
