"""A partition evolution carried out: the spec is committed first, then group after group is rewritten into it.

What could go wrong, and what prevents it:

* somebody changes the spec or the schema meanwhile: the commit of the spec requires both to be as planned;
* files are written for a spec that was not committed: no group is staged before it is;
* the process is killed: the spec and every group are commits of their own, the next run does what is left.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from pyiceberg.table import Table

from aurum_orchestration.errors import StateDriftedError
from aurum_orchestration.maintenance.backends.iceberg.compact.execute import CompactionExecution
from aurum_orchestration.maintenance.backends.iceberg.compact.state import read_state
from aurum_orchestration.maintenance.backends.iceberg.entries import EntryReader
from aurum_orchestration.maintenance.backends.iceberg.evolution.change import Evolution, evolution_of
from aurum_orchestration.maintenance.backends.iceberg.evolution.plan import EVOLVE, FORMER
from aurum_orchestration.maintenance.backends.iceberg.publish import commit_updates
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
    Verification,
)
from aurum_orchestration.maintenance.operations.partition_evolution import PartitionEvolutionParameters

FORMER_SPEC = "aurum.former-spec-id"
"""Key in the summary of an evolution's snapshots: the spec that was the default before."""

_POLL_SECONDS = 0.2


class EvolutionExecution:
    """The units of a plan on the table as it is now."""

    def __init__(self, plan: MaintenancePlan, table: Table) -> None:
        self.plan = plan
        parameters = PartitionEvolutionParameters.model_validate(plan.parameters)
        self._evolution = evolution_of(table, parameters)
        reader = EntryReader(table.io)
        steps = [step for step in plan.steps if step.action != EVOLVE]
        rewriting = plan.model_copy(update={"parameters": parameters.compaction().model_dump(), "steps": steps})
        self._rewriting = _Rewriting(rewriting, read_state(self._evolution.after, reader), reader)
        self._rewriting.plan_id = plan.plan_id
        self._rewriting.max_partitions = parameters.max_partitions
        self.workers = self._rewriting.workers

    def units(self) -> Iterator[Unit]:
        """The spec, then the groups. Raises StateDriftedError when the table no longer fits the plan."""
        former, now = self.plan.fingerprint[FORMER], self._evolution.before.metadata.default_spec_id
        if former != now:
            raise StateDriftedError(f"the partition spec is {now} now, {former} when planned", table=self.plan.table)
        for step in self.plan.steps:
            if step.action == EVOLVE:
                self._rewriting.summary[FORMER_SPEC] = str(former)
                yield EvolveUnit(step, self._evolution, self._rewriting)
        if not self._evolution.updates:
            self._rewriting.spec_is_set.set()
        yield from self._rewriting.units()


class _Rewriting(CompactionExecution):
    """The groups; they wait for the spec."""

    def __init__(self, plan: MaintenancePlan, *rest: object) -> None:
        super().__init__(plan, *rest)  # type: ignore[arg-type]
        self.spec_is_set = threading.Event()

    def before_staging(self, run: RunContext) -> None:
        while not self.spec_is_set.wait(_POLL_SECONDS):
            run.check()


class EvolveUnit(Unit):
    """The commit of the new spec; no snapshot, no file."""

    def __init__(self, step: PlanStep, evolution: Evolution, rewriting: _Rewriting) -> None:
        super().__init__(step)
        self._evolution, self._rewriting = evolution, rewriting

    def stage(self, run: RunContext) -> None:
        """Nothing is written before the commit."""

    def verify(self, run: RunContext) -> Verification | None:  # noqa: ARG002 - the base's signature
        """No row changes."""
        return None

    def commit(self, run: RunContext) -> UnitOutcome:
        """Make it the default spec."""
        evolution = self._evolution
        former, new = evolution.before.metadata.default_spec_id, evolution.after.metadata.default_spec_id
        self._rewriting.table = commit_updates(
            evolution.before, evolution.requirements, evolution.updates, lambda now: now.default_spec_id == new
        )
        self._rewriting.spec_is_set.set()
        return UnitOutcome(
            metrics={"specs_changed": 1},
            undo=f"aurum undo {run.operation_id}: partition spec {former} is the default again; "
            "files that were rewritten stay as they are, readers find their rows by any spec",
            undo_data={FORMER: former, "spec_id": new},
        )

    def discard(self) -> None:
        """Nothing was written."""
