"""What ``cleanup``, ``logs`` and ``sessions`` have in common: they delete rows by the rule groups of fleet.yaml."""

from __future__ import annotations

from pydantic import Field

from aurum_orchestration.maintenance.operations.base import OperationParameters, TriggerPolicy


class RuleGroupParameters(OperationParameters):
    """What a run over rule groups may be told. The groups themselves are in fleet.yaml, with their backend."""

    groups: list[str] = Field(
        default_factory=list, description="Only the rule groups with these titles. None: all of the backend."
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Rows per transaction. None: as each group says (default 1,000 in cleanup, 10,000 elsewhere).",
    )
    pause_ms: float = Field(
        default=50, ge=0, le=60_000, description="Pause between two batches at least; it grows with their latency."
    )
    max_rows: int | None = Field(
        default=None, ge=1, description="Stop after so many rows of each group; the next run carries on. None: all."
    )


class RuleGroupPolicy(TriggerPolicy, RuleGroupParameters):
    """The ``cleanup``, ``logs`` or ``sessions`` section of a policy."""

    cooldown_minutes: int = Field(
        default=1440, ge=0, description="Minutes between two runs that the planner starts by itself."
    )
