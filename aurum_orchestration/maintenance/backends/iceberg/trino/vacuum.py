"""Orphan files through Trino: ``remove_orphan_files``, with the preview that Trino lacks.

What could lose a file, and what prevents it:

* Trino deletes whatever lies below the table's location and has the name of no file that the table knows: files of
  other tables, of other programs, and what the embedded engine set aside. Where the catalog is reachable the same
  listing is made first, and the statement is not sent when it would take a file that the embedded engine would not;
  without it, tables that share the location are looked for through Trino;
* a file of a commit that is under way: only what is older than the floors counts, ours and the catalog's, and the
  statement names the moment, so that nothing grows old enough while it waits;
* Trino has no quarantine: the plan says so. Nothing brings these files back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from aurum_orchestration.errors import (
    BackendUnavailableError,
    CommitStateUnknownError,
    RequestError,
    StateDriftedError,
    UnsupportedError,
)
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.refusals import GC_ENABLED, foreign_files_refusal
from aurum_orchestration.maintenance.backends.iceberg.trino.history import (
    TableHistory,
    fingerprint,
    read_history,
    refuse_other_table,
)
from aurum_orchestration.maintenance.backends.iceberg.trino.neighbours import refuse_neighbours
from aurum_orchestration.maintenance.backends.iceberg.trino.preview import Preview, preview, still_there
from aurum_orchestration.maintenance.backends.iceberg.trino.readback import wait_until_over
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    OperationType,
    PlanExecution,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
    Verification,
)
from aurum_orchestration.maintenance.operations.vacuum import VacuumParameters
from aurum_orchestration.maintenance.planner.words import count, size

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable

DELETE = "delete"
DAY_MS = 86_400_000
NO_UNDO = "nothing brings back files that Trino deleted"

_TOLD = {"deleted_files_count": "files_deleted", "deleted_bytes": "bytes_deleted"}
"""Newer versions' names of what they did, and ours."""

_NO_QUARANTINE = (
    "Trino deletes orphans for good: it has no quarantine. With engine: pyiceberg they are set aside first, and an "
    "undo puts them back"
)
_NO_PREVIEW = "Trino has no preview: which files go is not known. Give the backend its catalog, and the plan lists them"
_RISK = "Final. Nothing goes that is younger than asked for, or than the catalog's floor."


def plan(table: TrinoTable, table_id: TableId, parameters: VacuumParameters) -> MaintenancePlan:
    """What Trino would delete now.

    Raises RequestError for an age below the catalog's floor, UnsupportedError when it cannot be told whose files
    these are or Trino would take others, CorruptTableError when what the table refers to cannot be read.
    """
    _respect_floor(table, parameters)
    history = read_history(table)
    if reason := foreign_files_refusal(history.properties):
        raise UnsupportedError(
            reason,
            operation=OperationType.VACUUM,
            hint=f"Remove the property {GC_ENABLED} when the table owns its files.",
        )
    older_than_ms = history.now_ms - int(parameters.older_than_days * DAY_MS)
    steps: list[PlanStep] = []
    warnings: list[str] = []
    found: Preview | None = None
    if history.head is None:
        reason = "nothing to do: Trino leaves tables without a snapshot alone"
    elif table.embedded is None:
        refuse_neighbours(table)
        reason = f"files older than {parameters.older_than_days:g} days that nothing refers to; how many is not known"
        steps.append(_step(table, older_than_ms, None))
        warnings.append(_NO_PREVIEW)
    else:
        found = preview(table.embedded, older_than_ms / 1000, dropped_tables=parameters.dropped_tables)
        reason = _reason(found, parameters)
        warnings += found.warnings
        if found.files:
            steps.append(_step(table, older_than_ms, found))
    if steps:
        warnings.append(_NO_QUARANTINE)
    return MaintenancePlan(
        table=str(table_id),
        backend=table_id.backend,
        operation=OperationType.VACUUM,
        parameters=parameters.model_dump(),
        reason=reason,
        fingerprint=fingerprint(table, history),
        steps=steps,
        warnings=warnings,
    )


def execution(plan: MaintenancePlan, table: TrinoTable) -> PlanExecution:
    """The steps of a plan."""
    return _Execution(plan, table)


def statement(name: str, older_than_ms: int) -> str:
    """The statement that deletes what was last written before a moment; ``name`` is the table's quoted name."""
    age = f"CAST(CAST(to_unixtime(current_timestamp) * 1000 AS bigint) - {older_than_ms} AS varchar) || 'ms'"
    return f"ALTER TABLE {name} EXECUTE remove_orphan_files(retention_threshold => {age})"


def _respect_floor(table: TrinoTable, parameters: VacuumParameters) -> None:
    floor = table.capabilities.orphan_floor
    floor_days = floor.total_seconds() / 86_400 if floor else 0.0
    if parameters.older_than_days < floor_days:
        raise RequestError(
            f"older_than_days is {parameters.older_than_days:g}, and Trino's catalog {table.client.catalog} deletes no "
            f"orphan younger than {floor_days:g} days",
            hint=f"Set older_than_days to {floor_days:g} or more, let an administrator of Trino lower "
            "iceberg.remove-orphan-files.min-retention, or use engine: pyiceberg, which has its own floor.",
        )


def _step(table: TrinoTable, older_than_ms: int, found: Preview | None) -> PlanStep:
    what = "what" if found is None else f"{count(len(found.files), 'file')} ({size(found.bytes)}) that"
    return PlanStep(
        number=1,
        action=DELETE,
        summary=f"Delete {what} nothing refers to, by Trino.",
        risk=_RISK,
        detail={
            "sql": statement(table.name, older_than_ms),
            "older_than_ms": older_than_ms,
            "files": None if found is None else found.files,
            "bytes": None if found is None else found.bytes,
        },
    )


def _reason(found: Preview, parameters: VacuumParameters) -> str:
    if not found.files:
        return (
            f"nothing to do: of {count(found.listed, 'file')} each is referred to, or younger than "
            f"{parameters.older_than_days:g} days"
        )
    return (
        f"{count(len(found.files), 'file')} of {found.listed:,} ({size(found.bytes)}) are referred to by nothing and "
        f"older than {parameters.older_than_days:g} days"
    )


def _told(rows: Iterable[tuple[Any, ...]]) -> dict[str, float]:
    """The metrics that newer versions of Trino answer with; older ones answer nothing."""
    return {_TOLD[row[0]]: float(row[1]) for row in rows if row[0] in _TOLD}


class _Execution:
    workers = 1

    def __init__(self, plan: MaintenancePlan, table: TrinoTable) -> None:
        self.plan, self.table = plan, table
        self.parameters = VacuumParameters.model_validate(plan.parameters)

    def units(self) -> Iterator[Unit]:
        """One unit. Raises StateDriftedError when the table is another one by now."""
        history = read_history(self.table)
        refuse_other_table(self.table, history, self.plan)
        for step in self.plan.steps:
            yield _VacuumUnit(step, self.table, self.parameters, history)


class _VacuumUnit(Unit):
    """Looks again at what Trino would take, lets it, and counts what is gone."""

    def __init__(self, step: PlanStep, table: TrinoTable, parameters: VacuumParameters, history: TableHistory) -> None:
        super().__init__(step)
        self._table, self._parameters, self._history = table, parameters, history

    def stage(self, run: RunContext) -> None:  # noqa: ARG002 - the base's signature
        """Refuse when Trino would take anything that the plan does not name."""
        _respect_floor(self._table, self._parameters)
        if reason := foreign_files_refusal(self._history.properties):
            raise UnsupportedError(reason)
        if self._table.embedded is None:
            refuse_neighbours(self._table)
            return
        found = preview(
            self._table.embedded,
            self.step.detail["older_than_ms"] / 1000,
            dropped_tables=self._parameters.dropped_tables,
        )
        if more := found.files.keys() - self.step.detail["files"].keys():
            raise StateDriftedError(f"{count(len(more), 'file')} became orphans since the plan, e.g. {min(more)}")

    def verify(self, run: RunContext) -> Verification | None:  # noqa: ARG002 - the base's signature
        """Nothing is replaced, so there is nothing to compare."""
        return None

    def discard(self) -> None:
        """Nothing was staged."""

    def commit(self, run: RunContext) -> UnitOutcome:
        """Send the statement, count."""
        sql = self.step.detail["sql"]
        outcome = UnitOutcome(metrics={}, undo=NO_UNDO)
        lost: CommitStateUnknownError | None = None
        try:
            answer = self._table.change(sql, run, operation=OperationType.VACUUM)
            outcome.metrics = _told(answer.rows)
        except CommitStateUnknownError as error:
            wait_until_over(self._table, sql, error)
            lost = error
        planned: dict[str, int] | None = self.step.detail["files"]
        if planned is None or self._table.embedded is None:
            if lost is not None:
                raise lost
            return outcome
        left = still_there(self._table.embedded, list(planned))
        gone = planned.keys() - left
        if lost is not None and not gone:
            raise BackendUnavailableError(f"{lost.detail}; read back: no file was deleted") from lost
        outcome.metrics = {"files_deleted": len(gone), "bytes_deleted": sum(planned[path] for path in gone)}
        if lost is not None:
            outcome.warnings.append(f"the connection broke; what is gone was counted afterwards ({lost.detail})")
        if left:
            outcome.metrics["files_left"] = len(left)
            outcome.warnings.append(f"{count(len(left), 'file')} left, the next vacuum tries again: {min(left)}")
        return outcome
