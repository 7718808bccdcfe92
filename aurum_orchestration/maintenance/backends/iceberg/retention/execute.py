"""A retention plan on the embedded engine: its steps as units, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from itertools import islice

from pyiceberg.table import Table

from aurum_orchestration.errors import AurumError
from aurum_orchestration.maintenance.backends.iceberg.clocks import refuse_clock_ahead
from aurum_orchestration.maintenance.backends.iceberg.files import Files
from aurum_orchestration.maintenance.backends.iceberg.reachability import References
from aurum_orchestration.maintenance.backends.iceberg.retention.expire import Expired, commit_expiry, refuse_drift
from aurum_orchestration.maintenance.backends.iceberg.retention.expiry import Expiry
from aurum_orchestration.maintenance.backends.iceberg.retention.lost_refs import lost_refs, put_back
from aurum_orchestration.maintenance.backends.iceberg.retention.plan import EXPIRE, expirable_now, require_head
from aurum_orchestration.maintenance.backends.iceberg.retention.row_units import RowRemoval
from aurum_orchestration.maintenance.backends.iceberg.retention.unreachable import Unreachable, still_unreachable
from aurum_orchestration.maintenance.backends.iceberg.rollback import refuse_other_table
from aurum_orchestration.maintenance.backends.iceberg.storage import DELETED, MISSING, Storage
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
    Verification,
)
from aurum_orchestration.maintenance.operations.retention import RetentionParameters
from aurum_orchestration.maintenance.planner.words import count

_BATCH = 1000
NO_UNDO = "nothing brings expired snapshots back: their files are deleted"
_LATER = "the next vacuum removes what is left"

_log = logging.getLogger(__name__)


class RetentionExecution:
    """The units of a retention plan. ``table`` is the table as it is now, which may be later than the plan."""

    workers = 1

    def __init__(self, plan: MaintenancePlan, table: Table) -> None:
        self.plan, self.table = plan, table
        self.parameters = RetentionParameters.model_validate(plan.parameters)

    def units(self) -> Iterator[Unit]:
        """One unit per step.

        Raises StateDriftedError when the table no longer fits the plan, ConfigurationError when this machine's
        clock is ahead of the storage's.
        """
        refuse_other_table(self.table, self.plan)
        refuse_clock_ahead(self.table)
        rows: RowRemoval | None = None
        for step in self.plan.steps:
            if step.action == EXPIRE:
                self.table = rows.table if rows is not None else self.table
                yield ExpireUnit(step, self)
            else:
                rows = rows or RowRemoval(self.plan, self.table, self.parameters)
                yield rows.unit(step)


class ExpireUnit(Unit):
    """Takes snapshots out of the metadata, then deletes what only they held."""

    def __init__(self, step: PlanStep, execution: RetentionExecution) -> None:
        super().__init__(step)
        self._execution = execution
        detail = step.detail
        self._planned = Expiry(tuple(detail["snapshots"]), tuple(detail["refs"]))
        self._files = Unreachable(
            detail["data_files"], detail["manifests"], detail["manifest_lists"], detail["statistics_files"]
        )

    def stage(self, run: RunContext) -> None:  # noqa: ARG002 - the base's signature
        """Refuse early when something planned may not go any more; nothing is written before the commit."""
        execution = self._execution
        metadata, io = execution.table.metadata, execution.table.io
        refuse_drift(self._planned, expirable_now(metadata, execution.parameters), metadata)
        require_head(metadata, References(Files(io.properties, io)))

    def verify(self, run: RunContext) -> Verification | None:  # noqa: ARG002 - the base's signature
        """Nothing is replaced, so there is nothing to compare."""
        return None

    def discard(self) -> None:
        """Nothing was staged."""

    def commit(self, run: RunContext) -> UnitOutcome:
        """Commit, make sure that no ref was lost, delete."""
        execution = self._execution
        expired = commit_expiry(
            execution.table, self._planned, lambda metadata: expirable_now(metadata, execution.parameters)
        )
        execution.table = expired.table
        outcome = UnitOutcome(
            metrics={
                "snapshots_expired": len(self._planned.snapshots),
                "refs_removed": len(self._planned.refs),
                "commit_retries": expired.retries,
                "files_deleted": 0.0,
                "bytes_deleted": 0.0,
            },
            undo=NO_UNDO,
        )
        deletable = self._deletable(expired, run, outcome)
        if deletable is not None:
            _delete(deletable, Storage(expired.table.io), run, outcome)
        return outcome

    def _deletable(self, expired: Expired, run: RunContext, outcome: UnitOutcome) -> Unreachable | None:
        """The planned files that nothing refers to after the commit; None with a warning when that is not sure."""
        table = expired.table
        lost = lost_refs(table, set(self._planned.snapshots), expired.refs)
        if lost:
            put_back(table, lost, {"aurum.operation-id": run.operation_id})
            names = ", ".join(f"{one.name} (snapshot {one.ref.snapshot_id})" for one in lost)
            outcome.metrics["snapshots_expired"] -= len(lost)
            outcome.warnings.append(
                f"NOTHING WAS DELETED: refs were made on snapshots while these were being expired: {names}. "
                "They are back, each on a new snapshot with the same contents."
            )
            return None
        if lost is None:
            outcome.warnings.append(
                f"nothing was deleted: the catalog does not show the metadata before the expiry, so a ref made "
                f"meanwhile cannot be ruled out; {count(self._files.count, 'file')} stay, {_LATER}"
            )
            return None
        try:
            return still_unreachable(self._files, table.metadata, References(Files(table.io.properties, table.io)))
        except AurumError as error:
            outcome.warnings.append(
                f"nothing was deleted: what the table still refers to cannot be read ({error}); "
                f"{count(self._files.count, 'file')} stay, {_LATER}"
            )
            return None


def _delete(files: Unreachable, storage: Storage, run: RunContext, outcome: UnitOutcome) -> None:
    """Delete in the order that leaves nothing unfindable. The expiry has taken place: nothing here may raise."""
    total, done = files.count, 0
    failures: list[str] = []
    sizes: Mapping[str, int] = dict(files.in_order())
    paths = iter(sizes)
    while batch := list(islice(paths, _BATCH)):
        if run.cancelled.is_set():
            outcome.warnings.append(f"cancelled with {count(total - done, 'file')} left to delete; {_LATER}")
            return
        for path, answer in storage.delete(batch):
            if answer == DELETED:
                outcome.metrics["files_deleted"] += 1
                outcome.metrics["bytes_deleted"] += sizes[path]
            elif answer != MISSING:
                failures.append(f"{path}: {answer}")
        done += len(batch)
        run.progress(done, total, "files")
    if failures:
        outcome.metrics["files_left"] = len(failures)
        outcome.warnings.append(f"{count(len(failures), 'file')} could not be deleted, {_LATER}: {failures[0]}")
