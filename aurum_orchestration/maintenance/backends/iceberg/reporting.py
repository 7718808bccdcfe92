"""Operations that only look: their plan is the report, so a dry run and a run say the same, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH

from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
    Verification,
)

Look = Callable[[RunContext, PlanStep], PlanStep]
"""What is added to the report when it runs, for what takes too long for a plan."""

_RISK = "None: nothing is written."


def report_plan(
    table: Table,
    operation: tuple[str, str, str],
    parameters: Mapping[str, Any],
    reason: str,
    detail: Mapping[str, Any],
) -> MaintenancePlan:
    """A plan that is a report. ``operation``: table id, backend, name of the operation."""
    main = table.metadata.refs.get(MAIN_BRANCH)
    name, backend, kind = operation
    return MaintenancePlan(
        table=name,
        backend=backend,
        operation=kind,
        parameters=dict(parameters),
        reason=reason,
        fingerprint={
            "table_uuid": str(table.metadata.table_uuid),
            "snapshot_id": main.snapshot_id if main else None,
        },
        steps=[PlanStep(number=1, action="report", summary=f"{reason}.", risk=_RISK, detail=dict(detail))],
    )


class ReportExecution:
    """Hands a report over; ``look`` completes it."""

    workers = 1

    def __init__(self, plan: MaintenancePlan, look: Look = lambda _run, step: step) -> None:
        self._plan, self._look = plan, look

    def units(self) -> Iterator[Unit]:
        """One unit per step."""
        return (self.report(step) for step in self._plan.steps)

    def report(self, step: PlanStep) -> Unit:
        """The unit that hands a step over."""
        return _Report(step, self._look)


class _Report(Unit):
    def __init__(self, step: PlanStep, look: Look) -> None:
        super().__init__(step)
        self._look = look

    def stage(self, run: RunContext) -> None:
        """Look at what the plan did not."""
        self.step = self._look(run, self.step)

    def verify(self, run: RunContext) -> Verification | None:  # noqa: ARG002 - the base's signature
        """Nothing is rewritten."""
        return None

    def commit(self, run: RunContext) -> UnitOutcome:  # noqa: ARG002 - the base's signature
        """The report's numbers as metrics."""
        metrics = self.step.detail.get("metrics", {})
        return UnitOutcome(
            metrics={"reports": 1, **metrics},
            undo="nothing to undo: it only reports",
            warnings=list(self.step.detail.get("missing", ())),
        )

    def discard(self) -> None:
        """Nothing was written."""
