"""Views: materialized views are refreshed in the order of their dependencies, readers not locked out."""

from __future__ import annotations

from pydantic import Field

from aurum_orchestration.maintenance.interfaces import OperationType
from aurum_orchestration.maintenance.operations.base import (
    OperationParameters,
    PlannedOperation,
    TriggerPolicy,
)


class ViewsParameters(OperationParameters):
    """What a refresh of views may be told."""

    views: list[str] = Field(
        default_factory=list, description="Only these materialized views, as schema.name. None: all of the database."
    )
    allow_plain: bool = Field(
        default=False,
        description="Also refresh views that cannot be refreshed beside their readers (no unique index, not populated "
        "yet); a plain refresh locks readers out while it runs.",
    )


class ViewsPolicy(TriggerPolicy, ViewsParameters):
    """The ``views`` section of a policy."""

    enabled: bool = Field(default=False, description="True: the planner refreshes by itself, once per cooldown.")
    cooldown_minutes: int = Field(
        default=1440, ge=0, description="Minutes between two refreshes that the planner starts by itself."
    )


class ViewsOperation(PlannedOperation):
    """Refreshes materialized views, what others are made of first, CONCURRENTLY where that is possible."""

    operation = OperationType.VIEWS
    title = "Update materialized views"
    Parameters = ViewsParameters
    Policy = ViewsPolicy
