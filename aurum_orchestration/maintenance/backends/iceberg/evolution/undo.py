"""Taking a partition evolution back: the former spec is the default again, rewritten files stay as they are."""

from __future__ import annotations

from typing import Any

from pyiceberg.exceptions import ValidationError
from pyiceberg.table import Table
from pyiceberg.table.update import AssertDefaultSpecId, SetDefaultSpecUpdate

from aurum_orchestration.errors import UndoRefusedError
from aurum_orchestration.maintenance.backends.iceberg.evolution.execute import FORMER_SPEC
from aurum_orchestration.maintenance.backends.iceberg.evolution.plan import FORMER, spec_text
from aurum_orchestration.maintenance.backends.iceberg.publish import commit_updates
from aurum_orchestration.maintenance.backends.iceberg.rollback import (
    OPERATION_ID,
    UndoExecution,
    UndoUnit,
    plan_rollback,
    refuse_other_table,
    undo_plan,
)
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    MaintenanceResult,
    PlanStep,
    RunContext,
    UnitOutcome,
)

SET_SPEC = "set_spec"
_RISK = "None: what is written from then on has the former spec, all files stay readable."


def plan_undo(table: Table, result: MaintenanceResult) -> MaintenancePlan:
    """The former spec as the default; for an operation that set none, main back to where it stood.

    Raises UndoRefusedError when the spec was changed since, or a column of the former one was dropped.
    """
    metadata = table.metadata
    data = result.undo_data if result.undo_data and FORMER in result.undo_data else _from_snapshots(table, result)
    if data is None:
        return plan_rollback(table, result)
    former, new, now = data[FORMER], data["spec_id"], metadata.default_spec_id
    if now == former:
        return undo_plan(table, result, f"nothing to undo: partition spec {former} is the default already", [])
    specs = metadata.specs()
    if now != new or former not in specs:
        raise UndoRefusedError(f"the partition spec was changed since: it is {now}, and was {new} after the operation")
    try:
        specs[former].check_compatible(metadata.schema())
    except ValidationError as error:
        raise UndoRefusedError(f"the former partition spec does not fit the columns any more: {error}") from error
    text = spec_text(specs[former], metadata.schema())
    step = PlanStep(
        number=1,
        action=SET_SPEC,
        summary=f"Partition by {text} again (spec {former} instead of {new}).",
        risk=_RISK,
        detail={"to": former, "from": new},
    )
    return undo_plan(table, result, f"partition by {text} again", [step])


def _from_snapshots(table: Table, result: MaintenanceResult) -> dict[str, Any] | None:
    """What the snapshots of a killed operation, which left no record, say."""
    for snapshot in table.metadata.snapshots:
        told = snapshot.summary.additional_properties if snapshot.summary else {}
        if told.get(OPERATION_ID) == result.operation_id and FORMER_SPEC in told:
            return {FORMER: int(told[FORMER_SPEC]), "spec_id": table.metadata.default_spec_id}
    return None


class _SetSpecUnit(UndoUnit):
    def commit(self, run: RunContext) -> UnitOutcome:  # noqa: ARG002 - the base's signature
        """Set the default, if it still is the one that the operation set."""
        former = self.step.detail["to"]
        commit_updates(
            self._table,
            [AssertDefaultSpecId(default_spec_id=self.step.detail["from"])],
            [SetDefaultSpecUpdate(spec_id=former)],
            lambda now: now.default_spec_id == former,
        )
        return UnitOutcome(
            metrics={"specs_changed": 1}, undo="nothing takes an undo back: run the partition_evolution again"
        )


class SpecUndo(UndoExecution):
    """A plan of :func:`plan_undo` that sets a spec."""

    unit = _SetSpecUnit

    def refuse_drift(self) -> None:
        """Raise StateDriftedError when the table is another one by now."""
        refuse_other_table(self.table, self.plan)
