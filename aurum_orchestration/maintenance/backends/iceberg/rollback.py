"""Taking back what moved main (compaction, manifests, ...): main returns to the snapshot that it stood at before.

What could go wrong, and what prevents it:

* somebody committed since, and that commit would vanish: every snapshot that main would lose has to be
  one of the operation's own, else the undo is refused and the others are named. Where expiry has removed
  a snapshot in between, nobody can tell, so that is refused too;
* somebody commits between that check and the move: the catalog moves main only if it still stands where
  it stood, and the plan is made anew otherwise;
* the snapshot before no longer has its files: each of them is looked for before main is moved;
* a reader is in the middle of the newer snapshot: it stays, with its files, until it expires.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot, ancestors_of
from pyiceberg.table.update import AssertRefSnapshotId

from aurum_orchestration.errors import StateDriftedError, UndoRefusedError
from aurum_orchestration.maintenance.backends.iceberg.presence import Presence, presence
from aurum_orchestration.maintenance.backends.iceberg.publish import Committed, commit_updates, move_main
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    MaintenanceResult,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
    Verification,
)
from aurum_orchestration.maintenance.operations.undo import UNDO
from aurum_orchestration.maintenance.planner.words import count

OPERATION_ID = "aurum.operation-id"
"""Key in a snapshot's summary that says which operation made it."""

_NAMED = 5
_RISK = "Refused when anybody else committed since. The snapshots left behind stay readable until they expire."


def undo_data(done: Committed) -> dict[str, Any]:
    """What taking back a commit on main needs to know."""
    return {"rollback_to": done.parent_id, "snapshots": [done.snapshot_id]}


def undo_text(operation_id: str, done: Committed) -> str:
    """How a person takes back an operation whose first commit was ``done``."""
    return (
        f"aurum undo {operation_id}: main goes back to snapshot {done.parent_id}, "
        "while that is not expired and nobody else has committed since"
    )


def plan_rollback(table: Table, result: MaintenanceResult) -> MaintenancePlan:
    """The plan that takes main back to where it stood before the operation.

    Raises UndoRefusedError when others committed since, or the snapshot before has expired. An operation
    whose process was killed left no record; its snapshots carry its id.
    """
    metadata = table.metadata
    data = result.undo_data or _from_snapshots(metadata, result.operation_id)
    head = metadata.snapshot_by_name(MAIN_BRANCH)
    if data is None or head is None:
        return _plan(table, result, None, [], "nothing to undo: the operation committed nothing")
    target_id = data["rollback_to"]
    if head.snapshot_id == target_id:
        return _plan(table, result, None, [], f"nothing to undo: main stands at snapshot {target_id} already")
    target = metadata.snapshot_by_id(target_id)
    if target is None:
        raise UndoRefusedError(f"snapshot {target_id}, at which main stood before, has expired")
    lost = _lost(metadata, head, target)
    _refuse_others(lost, head, set(data["snapshots"]))
    reason = (
        f"main goes back from snapshot {head.snapshot_id} to {target_id}, leaving {count(len(lost), 'snapshot')} behind"
    )
    return _plan(table, result, target, lost, reason)


def _from_snapshots(metadata: TableMetadata, operation_id: str) -> dict[str, Any] | None:
    made = [
        snapshot
        for snapshot in metadata.snapshots
        if snapshot.summary and snapshot.summary.additional_properties.get(OPERATION_ID) == operation_id
    ]
    if not made:
        return None
    made.sort(key=lambda snapshot: (snapshot.sequence_number or 0, snapshot.timestamp_ms))
    return {"rollback_to": made[0].parent_snapshot_id, "snapshots": [snapshot.snapshot_id for snapshot in made]}


def _lost(metadata: TableMetadata, head: Snapshot, target: Snapshot) -> list[Snapshot]:
    """The snapshots that main has and would not have at ``target``, newest first."""
    kept = {snapshot.snapshot_id for snapshot in ancestors_of(target, metadata)}
    lost = [snapshot for snapshot in ancestors_of(head, metadata) if snapshot.snapshot_id not in kept]
    if lost and lost[-1].parent_snapshot_id not in kept:
        raise UndoRefusedError(
            f"snapshots of main between {target.snapshot_id} and {lost[-1].snapshot_id} have expired, "
            "so nobody can tell whether others committed"
        )
    return lost


def _refuse_others(lost: list[Snapshot], head: Snapshot, own: set[int]) -> None:
    others = [snapshot for snapshot in lost if snapshot.snapshot_id not in own]
    if others:
        told = "; ".join(_told(snapshot) for snapshot in others[:_NAMED])
        more = f"; and {len(others) - _NAMED:,} more" if len(others) > _NAMED else ""
        raise UndoRefusedError(
            f"{_count(others)} committed by others since and would be lost: {told}{more}",
            hint="Roll back by hand if they may go; `aurum history` has what maintenance committed.",
        )
    if head.snapshot_id not in own:
        raise UndoRefusedError(f"main was moved to snapshot {head.snapshot_id} since, which is none of the operation's")


def _count(snapshots: Sequence[Snapshot]) -> str:
    return "1 snapshot was" if len(snapshots) == 1 else f"{len(snapshots):,} snapshots were"


def _told(snapshot: Snapshot) -> str:
    when = datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC).isoformat(timespec="seconds")
    summary = snapshot.summary
    counts = summary.additional_properties if summary else {}
    what = [
        f"{counts[key]} {words}"
        for key, words in (("added-records", "rows added"), ("deleted-records", "rows deleted"))
        if counts.get(key, "0") != "0"
    ]
    operation = summary.operation.value if summary else "commit"
    return ", ".join([f"snapshot {snapshot.snapshot_id} ({operation} of {when}", *what]) + ")"


def _plan(
    table: Table, result: MaintenanceResult, target: Snapshot | None, lost: list[Snapshot], reason: str
) -> MaintenancePlan:
    operation = str(result.config.operation_type)
    steps = []
    if target is not None:
        steps = [
            PlanStep(
                number=1,
                action="rollback",
                summary=f"Let main point to snapshot {target.snapshot_id} again, as before the {operation}.",
                risk=_RISK,
                detail={"to": target.snapshot_id, "snapshots_left": [snapshot.snapshot_id for snapshot in lost]},
            )
        ]
    return undo_plan(table, result, reason, steps)


def undo_plan(table: Table, result: MaintenanceResult, reason: str, steps: list[PlanStep]) -> MaintenancePlan:
    """A plan that takes an operation back, made from the table as it is now; for a handler's ``undo``."""
    main = table.metadata.refs.get(MAIN_BRANCH)
    return MaintenancePlan(
        table=result.config.target_table,
        backend=result.backend,
        operation=UNDO,
        parameters={"operation_id": result.operation_id, "operation": str(result.config.operation_type)},
        reason=reason,
        fingerprint={
            "table_uuid": str(table.metadata.table_uuid),
            "snapshot_id": main.snapshot_id if main else None,
        },
        steps=steps,
    )


def refuse_other_table(table: Table, plan: MaintenancePlan) -> None:
    """Raise StateDriftedError when the name means another table than when the plan was made."""
    if str(table.metadata.table_uuid) != plan.fingerprint["table_uuid"]:
        raise StateDriftedError("the table was dropped and created anew since", table=plan.table)


class UndoUnit(Unit):
    """A step of an undo that rewrites no row: nothing to stage, to verify or to discard."""

    def __init__(self, step: PlanStep, table: Table) -> None:
        super().__init__(step)
        self._table = table

    def stage(self, run: RunContext) -> None:
        """Nothing to prepare."""

    def verify(self, run: RunContext) -> Verification | None:  # noqa: ARG002 - the base's signature
        """No row changes."""
        return None

    def discard(self) -> None:
        """Nothing was written."""


class UndoExecution:
    """A plan of :func:`undo_plan` on the table as it is now: a ``unit`` per step."""

    workers = 1
    unit: ClassVar[type[UndoUnit]]

    def __init__(self, plan: MaintenancePlan, table: Table) -> None:
        self.plan, self.table = plan, table

    def units(self) -> Iterator[Unit]:
        """The units. Raises StateDriftedError when the plan does not fit the table any more."""
        self.refuse_drift()
        for step in self.plan.steps:
            yield self.unit(step, self.table)

    def refuse_drift(self) -> None:
        """Raise StateDriftedError when main no longer stands where the plan saw it."""
        planned, main = self.plan.fingerprint, self.table.metadata.refs.get(MAIN_BRANCH)
        now = main.snapshot_id if main else None
        if str(self.table.metadata.table_uuid) != planned["table_uuid"] or now != planned["snapshot_id"]:
            raise StateDriftedError(f"main stands at {now}, planned at {planned['snapshot_id']}", table=self.plan.table)


class RollbackUnit(UndoUnit):
    """Moves main back once every file of the snapshot before was seen."""

    def __init__(self, step: PlanStep, table: Table) -> None:
        super().__init__(step, table)
        self._found = Presence()

    def stage(self, run: RunContext) -> None:
        """Look for the files of the snapshot that main goes back to."""
        target = self._table.metadata.snapshot_by_id(self.step.detail["to"])
        if target is None:
            raise StateDriftedError(f"snapshot {self.step.detail['to']} has expired")
        self._found = presence(self._table, target, run)
        self._found.require(target)

    def verify(self, run: RunContext) -> Verification | None:  # noqa: ARG002 - the base's signature
        """All rows of the snapshot are in files that are there."""
        return self._found.verification()

    def commit(self, run: RunContext) -> UnitOutcome:  # noqa: ARG002 - the base's signature
        """Move main."""
        metadata, target = self._table.metadata, self.step.detail["to"]
        here = metadata.refs[MAIN_BRANCH].snapshot_id
        commit_updates(
            self._table,
            [AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=here)],
            [move_main(metadata, target)],
            lambda now: now.refs[MAIN_BRANCH].snapshot_id == target,
        )
        return UnitOutcome(
            metrics={"snapshots_taken_back": len(self.step.detail["snapshots_left"])},
            undo="nothing takes an undo back: run the operation again",
        )


class RollbackExecution(UndoExecution):
    """A plan of :func:`plan_rollback`."""

    unit = RollbackUnit
