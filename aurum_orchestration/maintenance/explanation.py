"""Everything that holds for one table, and where it comes from: what ``aurum explain`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from aurum_orchestration.errors import ProblemDetail, UnknownNameError, redact
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.calendar import CALENDAR, CalendarPolicy, closed
from aurum_orchestration.maintenance.checks import CHECKS
from aurum_orchestration.maintenance.planner.decide import healthy
from aurum_orchestration.maintenance.shapes import DecisionShape, Shape
from aurum_orchestration.maintenance.survey import Examined

if TYPE_CHECKING:
    from aurum_orchestration.fleet import Fleet


class PolicyEntry(BaseModel):
    """One value that holds for the table."""

    key: str
    value: Any
    source: str = Field(description="`default`, or the place in the fleet file that says so, with its line.")


class OperationExplanation(BaseModel):
    """What one operation would do by itself, and by which rules."""

    operation: str
    decision: DecisionShape | None = Field(description="What the planner makes of it now; null: it never starts it.")
    policy: list[PolicyEntry]


class TableExplanation(Shape):
    """One table as ``aurum explain`` prints it."""

    table: str = Field(description="Id of the table.")
    backend: str = Field(description="Name of its backend.")
    description: str | None
    owners: list[str]
    tags: dict[str, str]
    asset_key: list[str] = Field(description="Key of its asset in Dagster.")
    healthy: bool = Field(description="True when no trigger is crossed, even one that waits.")
    debt_score: float = Field(description="0 (nothing to win) to 100.")
    metrics: dict[str, float] = Field(description="Numbers by name; docs/metrics.md has units and meaning.")
    time_zone: str = Field(description="Zone of the calendar.")
    calendar: list[PolicyEntry] = Field(description="When the planner may start work on the table.")
    checks: list[PolicyEntry] = Field(description="From which numbers on its checks in Dagster warn and fail.")
    closed: str | None = Field(description="Why it may not now, and until when; null: it may.")
    budget: dict[str, float] = Field(description="The backend's caps of one night; none: no caps.")
    operations: list[OperationExplanation]
    problem: ProblemDetail | None = Field(description="Why the table could not be measured.")


def explain(fleet: Fleet, examined: Examined, operations: Sequence[str], now: datetime) -> TableExplanation:
    """The explanation of a table that was looked at. ``operations``: those that its backend has."""
    health, debt, decisions = examined
    table = health.table
    by_operation = {decision.operation: decision for decision in decisions}
    calendar = fleet.policy(table, CALENDAR)
    shut = closed(calendar, now.astimezone(fleet.zone)) if isinstance(calendar, CalendarPolicy) else None
    return TableExplanation(
        table=str(table),
        backend=table.backend,
        description=fleet.description(table),
        owners=fleet.owners(table),
        tags=fleet.tags(table),
        asset_key=list(fleet.asset_key(table)),
        healthy=healthy(decisions),
        debt_score=debt,
        metrics=dict(health.metrics),
        time_zone=fleet.config.time_zone,
        calendar=_entries(fleet, table, CALENDAR),
        checks=_entries(fleet, table, CHECKS),
        closed=str(shut) if shut else None,
        budget=_caps(fleet.backends[table.backend].budget.model_dump(exclude_none=True)),
        operations=[
            OperationExplanation(
                operation=name,
                decision=DecisionShape.of(by_operation[name]) if name in by_operation else None,
                policy=_entries(fleet, table, name),
            )
            for name in operations
        ],
        problem=health.problem,
    )


def _caps(budget: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(cap) for name, cap in budget.items()}


def _entries(fleet: Fleet, table: TableId, section: str) -> list[PolicyEntry]:
    try:
        values = fleet.explain(table, section)
    except UnknownNameError:  # registered after the fleet was read: it has no section in there
        return []
    return [PolicyEntry(key=key, value=_plain(key, value), source=source) for key, value, source in values]


def _plain(key: str, value: Any) -> Any:
    return redact(f"{key}={value}").removeprefix(f"{key}=") if isinstance(value, str) else value
