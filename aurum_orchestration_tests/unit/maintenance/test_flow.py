"""The flow of units that share something."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aurum_orchestration.errors import EngineError
from aurum_orchestration.maintenance.backends.reports import DirectUnit
from aurum_orchestration.maintenance.flow import Tally, run_units
from aurum_orchestration.maintenance.interfaces import PlanStep, RunContext, Unit, UnitOutcome
from aurum_orchestration.maintenance.stopping import StopSignal


class _Fails(DirectUnit):
    def commit(self, run: RunContext) -> UnitOutcome:
        raise EngineError(f"{run.operation_id} failed")


class _Sharing:
    workers = 1

    def __init__(self) -> None:
        self.ended = False

    def units(self) -> Iterator[Unit]:
        try:
            yield _Fails(PlanStep(number=1, action="sql", summary="fail", risk="none"))
        finally:
            self.ended = True


def test_what_units_share_has_ended_when_a_failure_is_told() -> None:
    sharing = _Sharing()
    with pytest.raises(EngineError) as failure:
        run_units(sharing, RunContext("run"), Tally(), StopSignal(), lambda: None)
    assert sharing.ended
    assert failure.value.__traceback__ is not None  # it keeps the flow and with it the iterator


def test_what_a_report_told_is_told_anew_by_the_next_attempt() -> None:
    """A share of 0.9 is not 4.5 after five attempts; what was done counts over all of them."""
    tally = Tally()
    report = PlanStep(number=1, action="report", summary="tell", risk="none")
    done = PlanStep(number=2, action="sql", summary="do", risk="none")
    for _ in range(5):
        tally.forget_reports()
        tally.add(report, UnitOutcome({"reports": 1, "cache_hit_ratio": 0.9}), None)
        tally.add(done, UnitOutcome({"tables_analyzed": 1}), None)
    assert tally.metrics == {"reports": 1, "cache_hit_ratio": 0.9, "tables_analyzed": 5}
    assert [step.action for step in tally.steps].count("report") == 1
