"""Taking back stored statistics: the snapshot has again those that it had before, or none."""

from __future__ import annotations

from pyiceberg.table import Table
from pyiceberg.table.statistics import StatisticsFile
from pyiceberg.table.update import RemoveStatisticsUpdate

from aurum_orchestration.errors import UndoRefusedError
from aurum_orchestration.maintenance.backends.iceberg.publish import commit_updates
from aurum_orchestration.maintenance.backends.iceberg.rollback import (
    UndoExecution,
    UndoUnit,
    refuse_other_table,
    undo_plan,
)
from aurum_orchestration.maintenance.backends.iceberg.stats.sketch import set_statistics, statistics_of
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    MaintenanceResult,
    PlanStep,
    RunContext,
    UnitOutcome,
)

_RISK = "None for rows: statistics only. The file stays until a vacuum finds that nothing refers to it."


def plan_undo(table: Table, result: MaintenanceResult) -> MaintenancePlan:
    """The statistics to remove or to put back. Raises UndoRefusedError when others wrote newer ones."""
    data = result.undo_data
    if data is None:
        return undo_plan(table, result, "nothing to undo: it only reported", [])
    snapshot_id, path, before = data["snapshot_id"], data["statistics_path"], data["before"]
    now = statistics_of(table.metadata, snapshot_id)
    if now is None or (before is not None and now.statistics_path == before["statistics-path"]):
        return undo_plan(table, result, f"nothing to undo: snapshot {snapshot_id} does not have them any more", [])
    if now.statistics_path != path:
        raise UndoRefusedError(f"snapshot {snapshot_id} got newer statistics since, which would be lost")
    if before is not None and not table.io.new_input(before["statistics-path"]).exists():
        before = None  # nothing referred to it: a vacuum took it
    summary = (
        f"Remove the statistics of snapshot {snapshot_id}."
        if before is None
        else f"Give snapshot {snapshot_id} the statistics again that it had before."
    )
    detail = {"snapshot_id": snapshot_id, "statistics_path": path, "before": before}
    return undo_plan(
        table, result, summary, [PlanStep(number=1, action="statistics", summary=summary, risk=_RISK, detail=detail)]
    )


class _StatisticsUnit(UndoUnit):
    def commit(self, run: RunContext) -> UnitOutcome:  # noqa: ARG002 - the base's signature
        """Change the metadata."""
        snapshot_id, path, before = (self.step.detail[key] for key in ("snapshot_id", "statistics_path", "before"))
        if before is None:
            commit_updates(
                self._table,
                [],
                [RemoveStatisticsUpdate(snapshot_id=snapshot_id)],
                lambda now: all(file.statistics_path != path for file in now.statistics),
            )
        else:
            set_statistics(self._table, StatisticsFile.model_validate(before))
        return UnitOutcome(
            metrics={"statistics_taken_back": 1}, undo="nothing takes an undo back: run the operation again"
        )


class StatisticsUndo(UndoExecution):
    """A plan of :func:`plan_undo`. What others committed on main since does not matter: statistics are a snapshot's."""

    unit = _StatisticsUnit

    def refuse_drift(self) -> None:
        """Raise StateDriftedError when the name means another table now."""
        refuse_other_table(self.table, self.plan)
