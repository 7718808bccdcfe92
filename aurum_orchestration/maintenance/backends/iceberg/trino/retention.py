"""Retention through Trino: snapshots expire by ``expire_snapshots``, old rows leave by ``DELETE``.

What could lose a row, and what prevents it:

* Trino expires by age (newer versions keep a number, too), and the table's own longer age does not hold: the moment
  is worked out (:mod:`~aurum_orchestration.maintenance.backends.iceberg.trino.expiry`) so that
  nothing goes that the package's rules keep, anew right before the statement, which names the moment; what went is
  compared with what might go;
* the snapshot that still has the rows that a DELETE took out goes with it: it is never among those that may go;
* an age below the catalog's floor: refused before a statement is sent. The floor is never lowered;
* the connection breaks while Trino works: the table is read back, and nothing is sent a second time.

What could leave debris: Trino deletes files after its commit, so a Trino that is killed in between leaves files
that nothing refers to, and it leaves some by itself. They are counted where the catalog is reachable; a vacuum
removes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from aurum_orchestration.errors import (
    BackendUnavailableError,
    CommitStateUnknownError,
    CorruptTableError,
    RequestError,
    StateDriftedError,
    UndoRefusedError,
    UnsupportedError,
    VerificationError,
)
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.refusals import GC_ENABLED, foreign_files_refusal
from aurum_orchestration.maintenance.backends.iceberg.retention.expiry import (
    MIN_SNAPSHOTS,
    Expiry,
    Rules,
    expirable,
    wrong_property,
)
from aurum_orchestration.maintenance.backends.iceberg.trino.expiry import Threshold, statement, surplus, threshold
from aurum_orchestration.maintenance.backends.iceberg.trino.files import FilesThatGo, files_that_go, files_that_went
from aurum_orchestration.maintenance.backends.iceberg.trino.history import (
    TableHistory,
    fingerprint,
    read_history,
    refuse_other_table,
)
from aurum_orchestration.maintenance.backends.iceberg.trino.readback import reading_back, wait_until_over
from aurum_orchestration.maintenance.backends.iceberg.trino.retention_rows import DELETE_ROWS, RowsUnit, plan_rows
from aurum_orchestration.maintenance.backends.iceberg.trino.rollback import plan_rollback, rollback_execution
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
from aurum_orchestration.maintenance.operations.retention import RetentionParameters
from aurum_orchestration.maintenance.planner.words import count, size

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable

EXPIRE = "expire"
RETAIN_LAST = "expire_snapshots(retain_last => 1)"
"""What only newer versions know."""

DAY_MS = 86_400_000
NO_UNDO = "nothing brings expired snapshots back: their files are deleted"

_RISK = (
    "Expired snapshots cannot be read any more, by nobody. Refs and what they keep stay. Trino deletes the files "
    "after the commit."
)


def plan(table: TrinoTable, table_id: TableId, parameters: RetentionParameters) -> MaintenancePlan:
    """What would be deleted and expired now.

    Raises RequestError for an age below the catalog's floor, UnsupportedError with the reason when nothing may
    be expired, CorruptTableError for properties or files that cannot be understood.
    """
    floor_ms = _floor(table, parameters)
    history = read_history(table)
    if reason := foreign_files_refusal(history.properties):
        raise UnsupportedError(
            reason,
            operation=OperationType.RETENTION,
            hint=f"Remove the property {GC_ENABLED} when the table owns its files.",
        )
    rows = plan_rows(table, history, parameters)
    steps = [step.model_copy(update={"number": number}) for number, step in enumerate(rows.steps, 1)]
    warnings = list(rows.warnings)
    allowed = _allowed(history, parameters)
    chosen = _chosen(table, history, allowed, parameters, floor_ms)
    if chosen is not None:
        files = files_that_go(table, history, chosen.expiry)
        steps.append(_step(len(steps) + 1, chosen.expiry, allowed, files))
        warnings += files.warnings
    told = _reason(history, allowed, chosen.expiry if chosen else None, parameters)
    return MaintenancePlan(
        table=str(table_id),
        backend=table_id.backend,
        operation=OperationType.RETENTION,
        parameters=parameters.model_dump(),
        reason=("" if steps else "nothing to do: ") + "; ".join(filter(None, (rows.told, told))),
        fingerprint=fingerprint(table, history),
        steps=steps,
        warnings=warnings,
    )


def execution(plan: MaintenancePlan, table: TrinoTable) -> PlanExecution:
    """The steps of a plan."""
    return _Execution(plan, table)


def undo(table: TrinoTable, result: MaintenanceResult) -> MaintenancePlan:
    """Main back to the snapshot that still has the rows. Raises UndoRefusedError where only snapshots expired."""
    if result.undo_data is None:
        raise UndoRefusedError(f"nothing takes {result.config.operation_type} back: {result.undo or NO_UNDO}")
    return plan_rollback(table, result)


def undo_execution(plan: MaintenancePlan, table: TrinoTable) -> PlanExecution:
    """The move of main."""
    return rollback_execution(plan, table)


def _age(parameters: RetentionParameters) -> int:
    return int(parameters.retention_days * DAY_MS)


def _floor(table: TrinoTable, parameters: RetentionParameters) -> int:
    """The catalog's floor in milliseconds. Raises RequestError when less is asked for."""
    floor = table.capabilities.expire_floor
    floor_ms = int(floor.total_seconds() * 1000) if floor else 0
    if _age(parameters) < floor_ms:
        raise RequestError(
            f"retention_days is {parameters.retention_days:g}, and Trino's catalog {table.client.catalog} expires "
            f"nothing younger than {floor_ms / DAY_MS:g} days",
            hint=f"Set retention_days to {floor_ms / DAY_MS:g} or more, let an administrator of Trino lower "
            "iceberg.expire-snapshots.min-retention, or use engine: pyiceberg, which has its own floor.",
        )
    return floor_ms


def _allowed(history: TableHistory, parameters: RetentionParameters) -> Expiry:
    if wrong := wrong_property(history.properties):
        raise CorruptTableError(f"table property {wrong} is {history.properties[wrong]!r}, which is no number")
    return expirable(history.snapshots, history.refs, _rules(history, parameters), history.now_ms)


def _rules(history: TableHistory, parameters: RetentionParameters) -> Rules:
    return Rules.of(history.properties, parameters.retention_days, parameters.retain_last)


def _retained(table: TrinoTable, history: TableHistory, parameters: RetentionParameters) -> int | None:
    """How many snapshots of each branch the statement says to keep; None where Trino goes by the table's own number."""
    return _rules(history, parameters).min_snapshots_to_keep if table.knows(RETAIN_LAST) else None


def _gone_by(table: TrinoTable, history: TableHistory, parameters: RetentionParameters) -> Mapping[str, str]:
    """The table's properties as they hold while Trino expires."""
    retained = _retained(table, history, parameters)
    return history.properties if retained is None else {**history.properties, MIN_SNAPSHOTS: str(retained)}


def _chosen(
    table: TrinoTable, history: TableHistory, allowed: Expiry, parameters: RetentionParameters, floor_ms: int
) -> Threshold | None:
    """The moment for the statement, None where there is none, or nothing to do."""
    if not (allowed.snapshots or allowed.refs):
        return None
    properties, least = _gone_by(table, history, parameters), max(floor_ms, _age(parameters))
    return threshold(history.snapshots, history.refs, allowed, properties, history.now_ms, least)


def _step(number: int, expiry: Expiry, allowed: Expiry, files: FilesThatGo) -> PlanStep:
    refs = f" and {count(len(expiry.refs), 'ref')} past their age ({', '.join(expiry.refs)})" if expiry.refs else ""
    about = "" if files.exact else "about "
    return PlanStep(
        number=number,
        action=EXPIRE,
        summary=(
            f"Expire {count(len(expiry.snapshots), 'snapshot')}{refs} by Trino; {about}{count(files.count, 'file')} "
            f"that nothing else refers to ({about}{size(files.bytes)}) are deleted."
        ),
        risk=_RISK,
        detail={
            "snapshots": list(expiry.snapshots),
            "refs": list(expiry.refs),
            "may_go": list(allowed.snapshots),
            "refs_may_go": list(allowed.refs),
            "files": files.count,
            "bytes": files.bytes,
            "exact": files.exact,
            **files.detail,
        },
    )


def _reason(history: TableHistory, allowed: Expiry, chosen: Expiry | None, parameters: RetentionParameters) -> str:
    total = count(len(history.snapshots), "snapshot")
    if not history.snapshots:
        return "the table has no snapshot"
    if chosen is not None:
        return (
            f"{len(chosen.snapshots):,} of {total} are past {parameters.retention_days:g} days and not among the last "
            f"{parameters.retain_last}"
        )
    if allowed.snapshots or allowed.refs:
        return (
            f"{len(allowed.snapshots):,} of {total} may go, but Trino expires by age and would take others along "
            f"that have to stay (the last {parameters.retain_last}, or kept by the table's own properties); the "
            "embedded engine can"
        )
    return (
        f"each of {total} is younger than {parameters.retention_days:g} days, among the last "
        f"{parameters.retain_last} or kept by a ref or by the table's own properties"
    )


class _Execution:
    """The units of a plan. ``kept``: what main stood at when planned, which has the rows that a DELETE takes."""

    workers = 1

    def __init__(self, plan: MaintenancePlan, table: TrinoTable) -> None:
        self.plan, self.table = plan, table
        self.parameters = RetentionParameters.model_validate(plan.parameters)

    def units(self) -> Iterator[Unit]:
        """One unit per step. Raises StateDriftedError when the table is another one by now."""
        refuse_other_table(self.table, read_history(self.table), self.plan)
        for step in self.plan.steps:
            yield (
                RowsUnit(step, self.table, self.parameters)
                if step.action == DELETE_ROWS
                else _ExpireUnit(step, self.table, self.parameters)
            )


class _ExpireUnit(Unit):
    """Expires what the plan named; the table is read again right before and right after."""

    def __init__(self, step: PlanStep, table: TrinoTable, parameters: RetentionParameters) -> None:
        super().__init__(step)
        self._table, self._parameters = table, parameters
        self._planned = Expiry(tuple(step.detail["snapshots"]), tuple(step.detail["refs"]))
        self._may_go = Expiry(tuple(step.detail["may_go"]), tuple(step.detail["refs_may_go"]))

    def stage(self, run: RunContext) -> None:  # noqa: ARG002 - the base's signature
        """Refuse early when something planned may not go any more."""
        self._cutoff()

    def verify(self, run: RunContext) -> Verification | None:  # noqa: ARG002 - the base's signature
        """Nothing is replaced, so there is nothing to compare."""
        return None

    def discard(self) -> None:
        """Nothing was staged."""

    def commit(self, run: RunContext) -> UnitOutcome:
        """Expire, read back, count."""
        before, cutoff_ms = self._cutoff()
        warnings = []
        sent = statement(self._table.name, cutoff_ms, _retained(self._table, before, self._parameters))
        lost: CommitStateUnknownError | None = None
        try:
            query_id = self._table.change(sent, run, operation=OperationType.RETENTION).query_id
        except CommitStateUnknownError as error:
            wait_until_over(self._table, sent, error)
            lost, query_id = error, error.query_id or ""
        with reading_back(query_id):
            after = read_history(self._table, clock=False)
        if lost is not None:
            if {*self._planned.snapshots} & {one.snapshot_id for one in after.snapshots}:
                raise BackendUnavailableError(f"{lost.detail}; read back: nothing was expired") from lost
            warnings.append(f"read back, since the connection broke: the snapshots are expired ({lost.detail})")
        expired, others = self._require(before, after, cutoff_ms)
        if others:
            warnings.append(
                f"{count(len(others), 'younger snapshot')} that had to stay are gone too, e.g. {min(others)}: "
                "another expiry ran at the same time"
            )
        outcome = UnitOutcome(
            metrics={"snapshots_expired": len(expired), "refs_removed": len(before.refs.keys() - after.refs.keys())},
            undo=NO_UNDO,
            warnings=warnings,
        )
        went = files_that_went(self._table, self.step.detail)
        if went is not None:
            outcome.metrics |= {"files_deleted": went.files, "bytes_deleted": went.bytes}
            if went.left:
                outcome.metrics["files_left"] = len(went.left)
                outcome.warnings.append(
                    f"Trino left {count(len(went.left), 'file')} that nothing refers to, the next vacuum removes them: "
                    f"{went.left[0]}"
                )
        return outcome

    def _cutoff(self) -> tuple[TableHistory, int]:
        """The table as it is, and the moment for the statement. Raises StateDriftedError when the plan is stale."""
        history = read_history(self._table)
        floor_ms = _floor(self._table, self._parameters)
        now = _allowed(history, self._parameters)
        allowed = Expiry(
            tuple(one for one in now.snapshots if one in set(self._may_go.snapshots)),
            tuple(one for one in now.refs if one in set(self._may_go.refs)),
        )
        gone = {*self._planned.snapshots} - {*allowed.snapshots}
        if gone or {*self._planned.refs} - {*allowed.refs}:
            one = min(gone, default=0)
            raise StateDriftedError(f"{len(gone)} planned snapshots may not go any more, e.g. {one}")
        chosen = _chosen(self._table, history, allowed, self._parameters, floor_ms)
        if chosen is None:
            raise StateDriftedError("by now Trino would take snapshots along that have to stay")
        return history, chosen.cutoff_ms

    def _require(
        self, before: TableHistory, after: TableHistory, cutoff_ms: int
    ) -> tuple[frozenset[int], frozenset[int]]:
        """What expired, and what others let expire meanwhile although it had to stay.

        Raises VerificationError when Trino may have taken more than might go, or main lost its snapshot.
        """
        expired = {one.snapshot_id for one in before.snapshots} - {one.snapshot_id for one in after.snapshots}
        parameters = self._parameters
        more = surplus(
            expired - {*self._may_go.snapshots},
            before.snapshots,
            after.snapshots,
            after.refs,
            _gone_by(self._table, after, parameters),
            _rules(after, parameters),
            cutoff_ms,
            before.now_ms,
        )
        if more.ours:
            raise VerificationError(f"Trino expired {len(more.ours)} snapshots that had to stay, e.g. {min(more.ours)}")
        refs = before.refs.keys() - after.refs.keys()
        if lost := refs - {*self._may_go.refs}:
            raise VerificationError(f"refs are gone that had to stay: {', '.join(sorted(lost))}")
        if before.head is not None and after.by_id(after.head) is None:
            raise VerificationError(f"the snapshot where main stands is gone: {after.head}")
        return frozenset(expired) - more.others, more.others
