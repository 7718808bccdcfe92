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
