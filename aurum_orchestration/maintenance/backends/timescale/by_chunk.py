"""Work that is done chunk by chunk: a chunk that is gone meanwhile needs none."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from aurum_orchestration.maintenance.backends.postgres.table import PgTable
from aurum_orchestration.maintenance.backends.reports import DirectUnit
from aurum_orchestration.maintenance.backends.timescale.hypertable import Chunk, chunks_of, still_there
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, PlanStep, RunContext, Unit, UnitOutcome

Work = Callable[[PlanStep, Chunk], Iterator[Unit]]
"""The units of the step of one chunk."""


class ByChunk:
    """The steps of a plan, each on the chunk whose ``oid`` its detail names, or on the first of ``oids``."""

    workers = 1

    def __init__(self, plan: MaintenancePlan, table: PgTable, work: Work) -> None:
        self._plan, self._table, self._work = plan, table, work

    def units(self) -> Iterator[Unit]:
        """What is to be done to each chunk that is still there."""
        with self._table.look() as session:
            chunks = chunks_of(session, self._table)
        for step in self._plan.steps:
            found = [still_there(chunks, oid) for oid in step.detail.get("oids", [step.detail["oid"]])]
            if found[0] is None or None in found:
                yield _Gone(step)
            else:
                yield from self._work(step, found[0])


class _Gone(DirectUnit):
    def commit(self, run: RunContext) -> UnitOutcome:  # noqa: ARG002 - the base's signature
        return UnitOutcome(warnings=[f"chunk {self.step.detail['chunk']} was dropped meanwhile"])
