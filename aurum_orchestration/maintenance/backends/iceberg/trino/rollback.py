"""Main back to an earlier snapshot, by Trino or, where its catalog can be reached, by the catalog's own comparison.

What could go wrong, and what prevents it:

* somebody committed since: every snapshot that main would lose has to be one of the operation's own;
* somebody commits between that check and the move: the catalog refuses the move where PyIceberg reaches it. Trino's
  ``rollback_to_snapshot`` compares nothing, so the snapshots are read again after it: one that was committed on what
  main has left becomes main again, and the rollback is refused;
* the process was killed before it recorded what it committed: Trino's snapshots do not carry our operation's id, so
  the undo is refused with what there is, instead of answering that nothing was done.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from aurum_orchestration.errors import StateDriftedError, UndoRefusedError, UnsupportedError
from aurum_orchestration.maintenance.backends.iceberg.rollback import OPERATION_ID
from aurum_orchestration.maintenance.backends.iceberg.trino.commits import Made
from aurum_orchestration.maintenance.backends.iceberg.trino.history import (
    TableHistory,
    TrinoSnapshot,
    fingerprint,
    read_history,
    refuse_other_table,
)
from aurum_orchestration.maintenance.backends.iceberg.trino.sql import ident, literal, schema_of
from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    MaintenanceResult,
    MaintenanceStatus,
    PlanExecution,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
    Verification,
)
from aurum_orchestration.maintenance.operations.undo import UNDO
from aurum_orchestration.maintenance.planner.words import count

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.iceberg.rollback import RollbackExecution

BY_TRINO = {"engine": "trino"}
"""In the ``undo_data`` of all that Trino did and can take back, or refuses to: ``engine: auto`` asks it by this."""

_RISK = "Refused when anybody else committed since. The snapshots left behind stay readable until they expire."


def undo_data(made: Sequence[Made]) -> dict[str, Any]:
    """What taking back commits on main needs to know: the embedded engine's shape, and which engine made them."""
    return {**BY_TRINO, "rollback_to": made[0].parent_id, "snapshots": [one.snapshot_id for one in made]}


def undo_text(operation_id: str, made: Sequence[Made]) -> str:
    """How a person takes back an operation whose first commit was the first of ``made``."""
    return (
        f"aurum undo {operation_id}: main goes back to snapshot {made[0].parent_id}, "
        "while that is not expired and nobody else has committed since"
    )


def plan_rollback(table: TrinoTable, result: MaintenanceResult) -> MaintenancePlan:
    """The plan that takes main back to where it stood before the operation. Raises UndoRefusedError."""
    if result.undo_data is None and result.status not in {MaintenanceStatus.SKIPPED, MaintenanceStatus.COMPLETED}:
        _refuse_unrecorded(read_history(table, clock=False), result)
    if table.embedded is not None:
        from aurum_orchestration.maintenance.backends.iceberg import rollback

        return rollback.plan_rollback(table.embedded, result)
    history = read_history(table, clock=False)
    data = result.undo_data
    head = history.by_id(history.head)
    if data is None or head is None:
        return undo_plan(table, history, result, "nothing to undo: the operation committed nothing", [])
    target = history.by_id(data["rollback_to"])
    if head.snapshot_id == data["rollback_to"]:
        told = f"nothing to undo: main stands at snapshot {head.snapshot_id} already"
        return undo_plan(table, history, result, told, [])
    if target is None:
        raise UndoRefusedError(f"snapshot {data['rollback_to']}, at which main stood before, has expired")
    lost = _lost(history, head, target)
    others = [one for one in lost if one.snapshot_id not in data["snapshots"]]
    if others:
        told = ", ".join(f"{one.snapshot_id} ({one.operation})" for one in others[:5])
        raise UndoRefusedError(
            f"{count(len(others), 'snapshot')} committed by others since would be lost: {told}",
            hint="Roll back by hand if they may go; `aurum history` has what maintenance committed.",
        )
    step = PlanStep(
        number=1,
        action="rollback",
        summary=f"Let main point to snapshot {target.snapshot_id} again.",
        risk=_RISK,
        detail={"to": target.snapshot_id, "snapshots_left": [one.snapshot_id for one in lost]},
    )
    return undo_plan(table, history, result, step.summary, [step])


def undo_plan(
    table: TrinoTable, history: TableHistory, result: MaintenanceResult, reason: str, steps: list[PlanStep]
) -> MaintenancePlan:
    """A plan that takes an operation back, made from the table as it is now."""
    return MaintenancePlan(
        table=result.config.target_table,
        backend=result.backend,
        operation=UNDO,
        parameters={"operation_id": result.operation_id, "operation": str(result.config.operation_type)},
        reason=reason,
        fingerprint=fingerprint(table, history),
        steps=steps,
    )


def rollback_execution(plan: MaintenancePlan, table: TrinoTable) -> PlanExecution:
    """The move of main: the embedded engine's where the catalog can be reached."""
    if table.embedded is None:
        return TrinoRollback(plan, table)
    return _embedded(plan, table)


def _embedded(plan: MaintenancePlan, table: TrinoTable) -> RollbackExecution:
    from aurum_orchestration.maintenance.backends.iceberg.fencing import fenced
    from aurum_orchestration.maintenance.backends.iceberg.rollback import RollbackExecution

    assert table.embedded is not None
    loaded = fenced(table.embedded, table.run.still_mine) if table.run is not None else table.embedded
    return RollbackExecution(plan, loaded)


class TrinoRollback:
    """A plan of :func:`plan_rollback` where only Trino reaches the catalog."""

    workers = 1

    def __init__(self, plan: MaintenancePlan, table: TrinoTable) -> None:
        self.plan, self.table = plan, table

    def units(self) -> Iterator[Unit]:
        """The unit. Raises StateDriftedError when the table has changed since the plan."""
        history = read_history(self.table, clock=False)
        refuse_other_table(self.table, history, self.plan)
        if history.head != self.plan.fingerprint["snapshot_id"]:
            planned = self.plan.fingerprint["snapshot_id"]
            raise StateDriftedError(f"main stands at {history.head}, planned at {planned}", table=self.plan.table)
        for step in self.plan.steps:
            yield _RollbackUnit(step, self.table, history.head)


class _RollbackUnit(Unit):
    def __init__(self, step: PlanStep, table: TrinoTable, head: int | None) -> None:
        super().__init__(step)
        self._table, self._head = table, head

    def stage(self, run: RunContext) -> None:
        """Nothing to prepare."""

    def verify(self, run: RunContext) -> Verification | None:  # noqa: ARG002 - the base's signature
        """No row is written: the snapshot is as it was."""
        return None

    def commit(self, run: RunContext) -> UnitOutcome:
        """Move main."""
        if self._head is None:
            raise StateDriftedError("the table has no snapshot any more")
        move_back(self._table, run, self._head, self.step.detail["to"])
        return UnitOutcome(
            metrics={"snapshots_taken_back": len(self.step.detail["snapshots_left"])},
            undo="nothing takes an undo back: run the operation again",
        )

    def discard(self) -> None:
        """Nothing was written."""


def take_back(table: TrinoTable, run: RunContext, made: Sequence[Made]) -> None:
    """Main back to before commits that failed their check. Raises StateDriftedError when others committed since.

    Goes on although the run is to stop: wrong rows must not stay.
    """
    for one, following in itertools.pairwise(made):
        if following.parent_id != one.snapshot_id:
            raise StateDriftedError(f"others committed between {one.snapshot_id} and {following.snapshot_id}")
    on = RunContext(operation_id=run.operation_id, still_mine=run.still_mine)
    move_back(table.asked_by(on), on, made[-1].snapshot_id, made[0].parent_id)


def move_back(table: TrinoTable, run: RunContext, head: int, target: int) -> None:
    """Move main from ``head`` to ``target``. Raises StateDriftedError when it stands elsewhere."""
    if table.embedded is not None:
        _move_by_catalog(table, run, head, target)
        return
    before = read_history(table, clock=False)
    _require(before.head, head)
    _set_main(table, run, target)
    after = read_history(table, clock=False)
    known = {one.snapshot_id for one in before.snapshots}
    overrun = [one for one in after.snapshots if one.snapshot_id not in known]
    if not overrun:
        return
    tip = overrun[-1].snapshot_id
    if after.head != target or any(one.parent_snapshot_id == target for one in overrun):
        raise StateDriftedError(
            f"others committed at the same moment: {', '.join(str(one.snapshot_id) for one in overrun)}; "
            f"main stands at {after.head}",
            hint="Look at the table's snapshots; nothing was deleted.",
        )
    _set_main(table, run, tip)
    raise StateDriftedError(
        f"snapshot {tip} was committed at the same moment: main stands there, nothing is taken back"
    )


def _move_by_catalog(table: TrinoTable, run: RunContext, head: int, target: int) -> None:
    from pyiceberg.table.refs import MAIN_BRANCH
    from pyiceberg.table.update import AssertRefSnapshotId

    from aurum_orchestration.maintenance.backends.iceberg.fencing import fenced
    from aurum_orchestration.maintenance.backends.iceberg.publish import commit_updates, move_main

    assert table.embedded is not None
    fresh = fenced(table.embedded.refresh(), run.still_mine)
    main = fresh.metadata.refs.get(MAIN_BRANCH)
    _require(main.snapshot_id if main else None, head)
    commit_updates(
        fresh,
        [AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=head)],
        [move_main(fresh.metadata, target)],
        lambda now: now.refs[MAIN_BRANCH].snapshot_id == target,
    )


def _set_main(table: TrinoTable, run: RunContext, snapshot_id: int) -> None:
    sql = f"ALTER TABLE {table.name} EXECUTE rollback_to_snapshot(snapshot_id => {snapshot_id})"
    try:
        table.change(sql, run, operation=UNDO)
    except UnsupportedError as error:
        if "PROCEDURE_NOT_FOUND" not in error.detail:
            raise
        # older versions, such as 468, have it as a procedure of the catalog
        told = f"{literal(schema_of(table.table_id))}, {literal(table.table_id.name)}, {snapshot_id}"
        sql = f"CALL {ident(table.client.catalog)}.system.rollback_to_snapshot({told})"
        table.change(sql, run, operation=UNDO)


def _require(found: int | None, head: int) -> None:
    if found != head:
        raise StateDriftedError(f"main stands at {found} by now, no longer at {head}: others committed since")


def _lost(history: TableHistory, head: TrinoSnapshot, target: TrinoSnapshot) -> list[TrinoSnapshot]:
    """The snapshots that main has and would not have at ``target``, newest first."""
    lost: list[TrinoSnapshot] = []
    one: TrinoSnapshot | None = head
    while one is not None and one.snapshot_id != target.snapshot_id:
        lost.append(one)
        one = history.by_id(one.parent_snapshot_id)
    if one is None:
        raise UndoRefusedError(
            f"snapshot {target.snapshot_id} is not before main's any more, or snapshots in between have expired: "
            "nobody can tell whether others committed"
        )
    return lost


def _refuse_unrecorded(history: TableHistory, result: MaintenanceResult) -> None:
    """Raise UndoRefusedError when a run that left no record may have committed."""
    since = result.started_at.timestamp() * 1000
    found = [
        one
        for one in history.snapshots
        if one.operation == "replace" and one.timestamp_ms >= since and (one.query_id or _untold_rewrite(one))
    ]
    if found:
        raise UndoRefusedError(
            f"the run left no record of what it committed; since it began Trino committed "
            f"{', '.join(str(one.snapshot_id) for one in found[:5])}",
            hint=f"If these are the run's, roll back by hand to {found[0].parent_snapshot_id}.",
        )


def _untold_rewrite(one: TrinoSnapshot) -> bool:
    """Whether Trino rewrote manifests: 476 does not say by which statement, and the embedded engine by which run."""
    return "manifests-created" in one.summary and OPERATION_ID not in one.summary
