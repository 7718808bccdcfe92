"""Compaction through Trino: ``ALTER TABLE ... EXECUTE optimize``, each statement proven after it committed."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping, Sequence

from aurum_orchestration.errors import CommitConflictError, StateDriftedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.trino.capabilities import session_property
from aurum_orchestration.maintenance.backends.iceberg.trino.commits import Committed, Made, commit, late_commits
from aurum_orchestration.maintenance.backends.iceberg.trino.compaction_plan import plan_compaction, statement
from aurum_orchestration.maintenance.backends.iceberg.trino.history import (
    TableHistory,
    read_history,
    refuse_other_table,
)
from aurum_orchestration.maintenance.backends.iceberg.trino.layout import where_of
from aurum_orchestration.maintenance.backends.iceberg.trino.rollback import (
    plan_rollback,
    rollback_execution,
    take_back,
    undo_data,
    undo_text,
)
from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable
from aurum_orchestration.maintenance.backends.iceberg.trino.verify import compare
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    MaintenanceResult,
    OperationType,
    PlanExecution,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
    Verification,
)
from aurum_orchestration.maintenance.operations.compaction import CompactionParameters

MOST_CONFLICTS = 5
"""So many statements of one step may meet a conflict before it is given up."""

_LONGEST_PAUSE = 10.0
_log = logging.getLogger(__name__)


def plan(table: TrinoTable, table_id: TableId, parameters: CompactionParameters) -> MaintenancePlan:
    """The partitions to optimize."""
    planned = plan_compaction(table, table_id, parameters)
    if planned.steps:
        return planned  # whoever carries them out looks
    told = [
        f"snapshot {one.snapshot_id} was committed late, by a statement that had been read back as not committed: "
        f"it is neither proven nor recorded, and stands on snapshot {one.parent_id}"
        for one in late_commits(table)
    ]
    return planned.model_copy(update={"warnings": [*planned.warnings, *told]}) if told else planned


def execution(plan: MaintenancePlan, table: TrinoTable) -> CompactionExecution:
    """The statements of a plan."""
    return CompactionExecution(plan, table)


def undo(table: TrinoTable, result: MaintenanceResult) -> MaintenancePlan:
    """Main back to the snapshot before the first statement."""
    return plan_rollback(table, result)


def undo_execution(plan: MaintenancePlan, table: TrinoTable) -> PlanExecution:
    """The move of main."""
    return rollback_execution(plan, table)


class CompactionExecution:
    """The units of a compaction plan; one statement after the other."""

    workers = 1

    def __init__(self, plan: MaintenancePlan, table: TrinoTable) -> None:
        self.plan, self.table = plan, table

    def units(self) -> Iterator[Unit]:
        """One unit per step. Raises StateDriftedError when the name means another table, or others rewrote files.

        Other new snapshots do not matter: Trino reads the table as it is when it rewrites it.
        """
        history = read_history(self.table, clock=False, opened=True)
        refuse_other_table(self.table, history, self.plan)
        _refuse_rewritten(history, self.plan, self.table.client.unsure.get(str(self.table.table_id), ()))
        parameters = CompactionParameters.model_validate(self.plan.parameters)
        for step in self.plan.steps:
            yield OptimizeUnit(step, self.table, parameters, OperationType.COMPACTION)


def _refuse_rewritten(history: TableHistory, plan: MaintenancePlan, late: Sequence[str]) -> None:
    """Raise StateDriftedError where others rewrote files since the plan: a run that did nothing would tell of theirs.

    ``late``: statements of ours that may have committed after all, which the first unit takes over.
    """
    planned, one = plan.fingerprint["snapshot_id"], history.by_id(history.head)
    while one is not None and one.snapshot_id != planned:
        if one.operation == "replace" and one.query_id not in late:
            raise StateDriftedError(f"snapshot {one.snapshot_id} rewrote files since the plan", table=plan.table)
        one = history.by_id(one.parent_snapshot_id)
    if one is None:
        raise StateDriftedError(f"main does not lead to snapshot {planned} any more", table=plan.table)


class OptimizeUnit(Unit):
    """One scope: committed by Trino, then compared at the snapshots before and after."""

    verify_first = False
    fenced = True

    def __init__(self, step: PlanStep, table: TrinoTable, parameters: CompactionParameters, operation: str) -> None:
        super().__init__(step)
        self._table, self._parameters, self._operation = table, parameters, operation
        self._made: list[tuple[Made, str]] = []
        self._outcome = UnitOutcome()
        self._conflicts = 0

    def stage(self, run: RunContext) -> None:
        """Trino stages nothing that could be looked at: the rows before are read from the snapshot before."""

    def commit(self, run: RunContext) -> UnitOutcome:
        """Optimize; after a conflict again, with half of the partitions at a time.

        Raises CommitConflictError when nothing could be committed; what is left of a part is told in a warning.
        """
        pending: list[Sequence[str]] = [tuple(self.step.detail["parts"])]
        cpu, warnings = 0.0, list[str]()
        self._take_over_late()
        while pending:
            parts = pending.pop(0)
            where = where_of(self.step.detail["fixed"], parts)
            try:
                done = self._optimize(run, where)
            except CommitConflictError as error:
                self._take_over_late()
                self._conflicts += 1
                if self._conflicts >= MOST_CONFLICTS:
                    if not self._made:
                        raise
                    warnings.append(f"left for the next run after {self._conflicts} conflicts: {where or 'the table'}")
                    continue
                _log.info("conflict, trying again: %s", error.detail)
                run.cancelled.wait(random.uniform(0, min(2.0**self._conflicts / 4, _LONGEST_PAUSE)))  # noqa: S311
                half = len(parts) // 2
                pending[:0] = [parts[:half], parts[half:]] if half else [parts]
                continue
            except BaseException:
                if not self._made:
                    raise
                # what is committed is to be recorded and proven; what is left is told, and the next run does it
                _log.exception("a part of step %s failed", self.step.number)
                warnings.append(f"left for the next run, it failed: {where or 'the table'}")
                break
            cpu += done.answer.cpu_seconds if done.answer is not None else 0.0
            self._take_over_late()
            if done.made is not None:
                self._made.append((done.made, where))
        self._outcome = self._told(run, cpu, warnings)
        return self._outcome

    def _take_over_late(self) -> None:
        """What an earlier statement committed after all is this operation's too, and proven like the rest."""
        self._made += [(one, "") for one in late_commits(self._table)]

    def _optimize(self, run: RunContext, where: str) -> Committed:
        sql = statement(self._table, self.step.detail["threshold"], where)
        return commit(self._table, sql, run, self._operation, self._session())

    def _session(self) -> Mapping[str, str]:
        name = "target_max_file_size"
        if not self._table.capabilities.has_session_property(name):
            return {}
        return {session_property(self._table.client, name): f"{self._parameters.target_file_size_mb}MB"}

    def _told(self, run: RunContext, cpu: float, warnings: list[str]) -> UnitOutcome:
        made = [one for one, _ in self._made]

        def total(key: str) -> int:
            return sum(one.number(key) for one in made)

        metrics: dict[str, float] = {
            "groups": len(made),
            "files_rewritten": total("deleted-data-files"),
            "files_added": total("added-data-files"),
            "bytes_rewritten": total("removed-files-size"),
            "bytes_added": total("added-files-size"),
            "rows_rewritten": total("added-records"),
            "cpu_seconds": cpu,
        }
        if dropped := total("removed-delete-files"):
            metrics["delete_files_removed"] = dropped
        if folded := total("deleted-records") - total("added-records"):
            metrics["deleted_rows_folded"] = folded
        if self._conflicts:
            metrics["conflicts_retried"] = self._conflicts
        if not made:
            return UnitOutcome(metrics=metrics, warnings=warnings)
        return UnitOutcome(
            metrics=metrics, undo=undo_text(run.operation_id, made), undo_data=undo_data(made), warnings=warnings
        )

    def verify(self, run: RunContext) -> Verification | None:  # noqa: ARG002 - the base's signature
        """Compare both sides of every commit; None when nothing was committed or the parameters say not to."""
        if not self._parameters.verify or not self._made:
            return None
        checksum = self._parameters.verification == "checksum"
        proofs = [compare(self._table, made, where, checksum=checksum) for made, where in self._made]
        self._outcome.metrics["verify_seconds"] = sum(proof.seconds for proof in proofs)
        self._outcome.metrics["verify_bytes"] = sum(proof.bytes for proof in proofs)
        return Verification.combine([proof.verification for proof in proofs])

    def take_back(self, run: RunContext) -> None:
        """Main back to before the first commit, while nobody else has committed since."""
        if self._made:
            take_back(self._table, run, [made for made, _ in self._made])

    def discard(self) -> None:
        """Nothing was staged; what a failed statement wrote Trino removes itself, or vacuum later."""
