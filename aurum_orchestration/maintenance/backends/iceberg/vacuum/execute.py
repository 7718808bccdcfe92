"""A vacuum plan on the embedded engine: old quarantines go for good, then orphans are set aside.

What the plan named is looked at again right before anything moves: a file that the table refers to by now, that
was written since, or that is gone, is left alone. The storage's own clock decides about ages: writing the
quarantine's manifest (or a probe) tells what time it is there.

What could leave debris: a kill between two files. The quarantine's manifest names all of them, moved or not;
the next vacuum finds the rest again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from pyiceberg.table import Table

from aurum_orchestration.maintenance.backends.iceberg.clocks import CLOCKS_AGREE, seconds_ahead
from aurum_orchestration.maintenance.backends.iceberg.publish import reload
from aurum_orchestration.maintenance.backends.iceberg.reachability import normalised
from aurum_orchestration.maintenance.backends.iceberg.rollback import refuse_other_table
from aurum_orchestration.maintenance.backends.iceberg.storage import DELETED, MISSING
from aurum_orchestration.maintenance.backends.iceberg.vacuum.orphans import QUARANTINE, places_of, reachable_files
from aurum_orchestration.maintenance.backends.iceberg.vacuum.places import MOVED, Place, Stored
from aurum_orchestration.maintenance.backends.iceberg.vacuum.plan import DAY, PURGE
from aurum_orchestration.maintenance.backends.iceberg.vacuum.quarantine import (
    BATCH,
    folder_of,
    remove,
    target_of,
    write_manifest,
)
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
    Verification,
)
from aurum_orchestration.maintenance.operations.vacuum import VacuumParameters
from aurum_orchestration.maintenance.planner.words import count, moment


class VacuumExecution:
    """The units of a vacuum plan. ``table`` is the table as it is now, which may be later than the plan."""

    workers = 1

    def __init__(self, plan: MaintenancePlan, table: Table) -> None:
        self.plan, self.table = plan, table
        self.parameters = VacuumParameters.model_validate(plan.parameters)

    def units(self) -> Iterator[Unit]:
        """One unit per step. Raises StateDriftedError when the table is another one by now."""
        refuse_other_table(self.table, self.plan)
        for step in self.plan.steps:
            yield (PurgeUnit if step.action == PURGE else OrphansUnit)(step, self)


class _VacuumUnit(Unit):
    """A step that prepares nothing and compares nothing."""

    def __init__(self, step: PlanStep, execution: VacuumExecution) -> None:
        super().__init__(step)
        self.execution = execution
        self.total = len(step.detail["files"])
        self.failures: list[str] = []

    def stage(self, run: RunContext) -> None:
        """Nothing is written before the commit."""

    def verify(self, run: RunContext) -> Verification | None:  # noqa: ARG002 - the base's signature
        """Nothing is replaced, so there is nothing to compare."""
        return None

    def discard(self) -> None:
        """Nothing was staged."""

    def batches(self, files: Sequence[Stored], run: RunContext, outcome: UnitOutcome) -> Iterator[Sequence[Stored]]:
        """The files in portions, until the run is cancelled."""
        for start in range(0, len(files), BATCH):
            if run.cancelled.is_set():
                left = count(len(files) - start, "file")
                outcome.warnings.append(f"cancelled with {left} left; the next vacuum carries on")
                return
            yield files[start : start + BATCH]
            run.progress(min(start + BATCH, len(files)), len(files), "files")

    def tell_failures(self, outcome: UnitOutcome) -> None:
        """Warn of what did not work; the rest is done."""
        if self.failures:
            outcome.metrics["files_left"] = len(self.failures)
            outcome.warnings.append(
                f"{count(len(self.failures), 'file')} left, the next vacuum tries again: {self.failures[0]}"
            )


class PurgeUnit(_VacuumUnit):
    """Deletes a quarantine whose time is over."""

    def commit(self, run: RunContext) -> UnitOutcome:
        """Delete its files, the manifest last."""
        folder = self.step.detail["folder"]
        places = places_of(self.execution.table)
        place = next(one for one in places if folder.startswith(f"{one.root}/"))
        outcome = UnitOutcome(metrics={"files_deleted": 0.0, "bytes_deleted": 0.0})
        if (ahead := seconds_ahead(place)) > CLOCKS_AGREE:
            outcome.warnings.append(
                f"this machine's clock is {ahead:,.0f} s ahead of that of {place.root}: "
                "whether the quarantine's time is over cannot be told, so it stays"
            )
            return outcome
        files = [Stored(location, size, 0) for location, size in self.step.detail["files"].items()]
        for part in self.batches(files, run, outcome):
            for file, answer in zip(part, place.delete([file.location for file in part]), strict=True):
                if answer == DELETED:
                    outcome.metrics["files_deleted"] += 1
                    outcome.metrics["bytes_deleted"] += file.size
                elif answer != MISSING:
                    self.failures.append(f"{file.location}: {answer}")
        if not self.failures and not outcome.warnings:
            remove(place, folder)
        self.tell_failures(outcome)
        outcome.undo = "nothing brings back a quarantine whose time was over"
        return outcome


class OrphansUnit(_VacuumUnit):
    """Sets orphans aside, or deletes them."""

    def commit(self, run: RunContext) -> UnitOutcome:
        """Look at everything again, say what will move, move it."""
        execution = self.execution
        execution.table = reload(execution.table)
        outcome = UnitOutcome(metrics=dict.fromkeys(self._metrics(), 0.0))
        known = reachable_files(execution.table)
        spared = 0
        for place in places_of(execution.table):
            planned = [one for one in self.step.detail["files"] if one.startswith(f"{place.root}/")]
            there = [file for file in place.stat(planned) if file is not None]
            free = [file for file in there if normalised(file.location) not in known]
            if free:
                spared += self._take(place, free, run, outcome)
            spared += len(there) - len(free)
        if spared:
            outcome.warnings.append(f"{count(spared, 'planned file')} stay: referred to by now, or written since")
        self.tell_failures(outcome)
        outcome.undo = self._undo(run, outcome)
        return outcome

    def _metrics(self) -> tuple[str, str]:
        """Names of what is counted: files and bytes."""
        quarantine = self.execution.parameters.quarantine
        return ("files_quarantined", "bytes_quarantined") if quarantine else ("files_deleted", "bytes_deleted")

    def _take(self, place: Place, files: Sequence[Stored], run: RunContext, outcome: UnitOutcome) -> int:
        """Move or delete what is old by the storage's clock, too. How many files are not."""
        folder = folder_of(place, run.operation_id)
        aside = self.execution.parameters.quarantine
        written = write_manifest(self.execution.table, run.operation_id, place, files if aside else ())
        older_than = min(time.time(), written.modified) - self.execution.parameters.older_than_days * DAY
        if abs(ahead := time.time() - written.modified) > CLOCKS_AGREE:
            side = "ahead of" if ahead > 0 else "behind"
            outcome.warnings.append(
                f"this machine's clock is {abs(ahead):,.0f} s {side} that of {place.root}: the earlier one decided"
            )
        old = [file for file in files if file.modified < older_than]
        in_files, in_bytes = self._metrics()
        moved = 0
        for part in self.batches(old, run, outcome):
            if aside:
                answers = place.move([(file, target_of(place, run.operation_id, file.location)) for file in part])
            else:
                answers = place.delete([file.location for file in part])
            for file, answer in zip(part, answers, strict=True):
                if answer in {MOVED, DELETED}:
                    moved += 1
                    outcome.metrics[in_files] += 1
                    outcome.metrics[in_bytes] += file.size
                elif answer != MISSING:
                    self.failures.append(f"{file.location}: {answer}")
        if not aside or not moved:
            remove(place, folder)
        return len(files) - len(old)

    def _undo(self, run: RunContext, outcome: UnitOutcome) -> str | None:
        if not self.execution.parameters.quarantine:
            return "nothing brings back files that were deleted without quarantine"
        if not outcome.metrics["files_quarantined"]:
            return None
        days = self.execution.parameters.quarantine_days
        until = datetime.fromtimestamp(time.time() + days * DAY, UTC)
        return (
            f"aurum undo {run.operation_id}: every file goes back from {QUARANTINE} to where it was, as long as no "
            f"later vacuum has emptied it, which is not before {moment(until)}"
        )
