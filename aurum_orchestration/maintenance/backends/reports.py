"""Operations that only look: their plan is the report, so a dry run and a run say the same, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
    Verification,
)


def report_step(reason: str, detail: dict[str, Any]) -> PlanStep:
    """The only step of a report. ``detail``: ``metrics`` become those of the result, ``missing`` its warnings."""
    return PlanStep(number=1, action="report", summary=f"{reason}.", risk="None: nothing is written.", detail=detail)


def handed_over(step: PlanStep) -> Unit:
    """The unit of a step of :func:`report_step`: hands over what the step holds."""
    return _HandedOver(step)


class PlannedReport:
    """Hands over the report that a plan holds."""

    workers = 1

    def __init__(self, plan: MaintenancePlan) -> None:
        self._plan = plan

    def units(self) -> Iterator[Unit]:
        """One unit per step."""
        return map(_HandedOver, self._plan.steps)


class DirectUnit(Unit):
    """Base of units that change no row, or whose engine checks itself: nothing is staged, nothing verified."""

    def stage(self, run: RunContext) -> None:
        """Nothing to prepare."""

    def verify(self, run: RunContext) -> Verification | None:  # noqa: ARG002 - the base's signature
        """Nothing to compare."""
        return None

    def discard(self) -> None:
        """Nothing was staged."""


class _HandedOver(DirectUnit):
    def commit(self, run: RunContext) -> UnitOutcome:  # noqa: ARG002 - the base's signature
        detail = self.step.detail
        return UnitOutcome(
            metrics={"reports": 1, **detail.get("metrics", {})},
            undo="nothing to undo: it only reports",
            warnings=list(detail.get("missing", ())),
        )
