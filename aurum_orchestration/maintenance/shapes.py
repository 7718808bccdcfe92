"""The JSON shapes that commands print and users script against. Schemas in docs/reference are made from these."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import asdict
from pydantic import BaseModel, ConfigDict, Field

from aurum_orchestration.errors import ProblemDetail, redact
from aurum_orchestration.maintenance.interfaces import (
    SCHEMA_VERSION,
    Cost,
    Decision,
    DiscoveredTable,
    Gain,
    MaintenanceResult,
    MaintenanceStatus,
    PlanStep,
    TableHealth,
    Verification,
)
from aurum_orchestration.maintenance.planner.assessment import NO_COST, NO_GAIN
from aurum_orchestration.maintenance.planner.decide import healthy


class Shape(BaseModel):
    """Base of everything printed as JSON: always says which version of the schema it follows."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    schema_version: int = Field(default=SCHEMA_VERSION, description="Version of this JSON shape.")


class GainShape(BaseModel):
    """What an operation is expected to win."""

    debt_score: float = Field(description="Points of debt score.")
    files: float = Field(description="Files fewer.")
    bytes: float = Field(description="Bytes fewer.")


class CostShape(BaseModel):
    """What an operation is expected to take."""

    seconds: float = Field(description="Wall seconds.")
    bytes: float = Field(description="Bytes read and written.")


def _floats(of: Gain | Cost) -> dict[str, float]:
    """The numbers by name, as the shapes have them."""
    return {name: float(value) for name, value in asdict(of).items()}


_NO_GAIN, _NO_COST = _floats(NO_GAIN), _floats(NO_COST)
"""Of most decisions: not made anew for each of them."""


class DecisionShape(BaseModel):
    """What the planner wants for a table, and why."""

    operation: str | None = Field(description="The operation to run, null when nothing is to be done.")
    code: str = Field(description="The reason as one short word for machines.")
    reason: str = Field(description="The reason in a sentence.")
    predicted_gain: GainShape
    predicted_cost: CostShape

    @classmethod
    def fields_of(cls, decision: Decision) -> dict[str, Any]:
        """The members of the shape, with the operation named even when it is not to act."""
        gain, cost = decision.gain, decision.cost
        return {
            "operation": decision.operation,
            "code": decision.code,
            "reason": decision.reason,
            "predicted_gain": _NO_GAIN if gain == NO_GAIN else _floats(gain),
            "predicted_cost": _NO_COST if cost == NO_COST else _floats(cost),
        }

    @classmethod
    def of(cls, decision: Decision) -> DecisionShape:
        """The shape of a decision."""
        return cls.model_validate(cls.fields_of(decision))


class TableStatus(Shape):
    """One table as ``aurum status`` prints it."""

    table: str = Field(description="Id of the table.")
    backend: str = Field(description="Name of its backend.")
    healthy: bool = Field(description="True when no trigger is crossed, even in cooldown.")
    debt_score: float = Field(description="0 (nothing to win) to 100.")
    metrics: dict[str, float] = Field(description="Numbers by name; docs/metrics.md has units and meaning.")
    decision: DecisionShape = Field(description="What comes first for this table.")
    decisions: list[DecisionShape] = Field(description="Every operation considered, acting or not.")
    problem: ProblemDetail | None = Field(default=None, description="Why the table could not be measured.")

    @classmethod
    def fields_of(cls, health: TableHealth, debt_score: float, decisions: Sequence[Decision]) -> dict[str, Any]:
        """The members of the shape: what :meth:`of` makes of them, by the ten thousand, takes twice the time."""
        considered = [DecisionShape.fields_of(decision) for decision in decisions]
        first = considered[0] if decisions[0].act else {**considered[0], "operation": None}
        return {
            "schema_version": SCHEMA_VERSION,
            "table": str(health.table),
            "backend": health.backend,
            "healthy": healthy(decisions),
            "debt_score": float(debt_score),
            "metrics": {name: float(value) for name, value in health.metrics.items()},
            "decision": first,
            "decisions": considered,
            "problem": health.problem,
        }

    @classmethod
    def of(cls, health: TableHealth, debt_score: float, decisions: Sequence[Decision]) -> TableStatus:
        """The shape of a measured table and of what the planner made of it, the most important decision first."""
        return cls.model_validate(cls.fields_of(health, debt_score, decisions))


class OperationReport(Shape):
    """One operation as ``aurum run`` and ``aurum plan`` print it."""

    operation_id: str
    table: str
    backend: str
    operation: str
    status: MaintenanceStatus
    reason: str
    dry_run: bool
    plan_id: str | None
    steps: list[PlanStep] | None
    metrics: dict[str, float]
    verification: Verification | None
    problem: ProblemDetail | None
    warnings: list[str]
    started_at: datetime
    finished_at: datetime | None
    seconds: float

    @classmethod
    def fields_of(cls, result: MaintenanceResult) -> dict[str, Any]:
        """The members of a report as they follow from a result."""
        return {
            "operation_id": result.operation_id,
            "table": result.config.target_table,
            "backend": result.backend,
            "operation": str(result.config.operation_type),
            "status": result.status,
            "reason": result.reason,
            "dry_run": result.config.dry_run,
            "plan_id": result.plan_id,
            "steps": result.steps,
            "metrics": result.metrics,
            "verification": result.verification,
            "problem": result.problem,
            "warnings": result.warnings,
            "started_at": result.started_at,
            "finished_at": result.finished_at,
            "seconds": result.seconds,
        }

    @classmethod
    def of(cls, result: MaintenanceResult) -> OperationReport:
        """The shape of a result."""
        return cls(**cls.fields_of(result))


class HistoryEntry(OperationReport):
    """One operation as ``aurum history`` prints it."""

    undo: str = Field(description="What to run to take it back, or why nothing can.")

    @classmethod
    def of(cls, result: MaintenanceResult) -> HistoryEntry:
        """The shape of a recorded result."""
        return cls(undo=result.undo or "nothing to undo", **cls.fields_of(result))


class ColumnShape(BaseModel):
    """A column of a discovered table."""

    name: str
    type: str = Field(description="The type as the backend writes it.")


class TableEntry(Shape):
    """One table as ``aurum discover`` prints it."""

    table: str = Field(description="Id of the table.")
    backend: str = Field(description="Name of its backend.")
    kind: str = Field(description="What kind of table it is, e.g. 'iceberg'.")
    location: str = Field(description="Where its data is; empty when not known.")
    comment: str = Field(description="What its catalog says about it; may be empty.")
    columns: list[ColumnShape] = Field(description="Its columns; empty when the backend did not say.")

    @classmethod
    def of(cls, found: DiscoveredTable) -> TableEntry:
        """The shape of a discovered table."""
        return cls(
            table=str(found.table),
            backend=found.table.backend,
            kind=found.kind,
            location=redact(found.location),
            comment=found.comment,
            columns=[ColumnShape(name=name, type=kind) for name, kind in found.columns],
        )
