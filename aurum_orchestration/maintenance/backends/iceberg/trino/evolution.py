"""Partition evolution through Trino: the spec by ``SET PROPERTIES``, then what older specs hold by one ``optimize``.

What could go wrong, and what prevents it:

* somebody changes the partitioning or the columns meanwhile: both are read again, and have to be as planned;
* the process is killed between the two: the next run finds the spec set, and rewrites what is left;
* the rows fall into very many partitions: Trino refuses more open files per writer than its catalog allows (100).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema

from aurum_orchestration.errors import (
    BackendUnavailableError,
    CommitStateUnknownError,
    RequestError,
    StateDriftedError,
    UndoRefusedError,
    UnsupportedError,
)
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.evolution.terms import Asked, Term, change_of
from aurum_orchestration.maintenance.backends.iceberg.trino.commits import uncancelled
from aurum_orchestration.maintenance.backends.iceberg.trino.compaction import OptimizeUnit
from aurum_orchestration.maintenance.backends.iceberg.trino.compaction_plan import EVERY_FILE, refuse, statement
from aurum_orchestration.maintenance.backends.iceberg.trino.history import (
    fingerprint,
    read_history,
    refuse_other_table,
)
from aurum_orchestration.maintenance.backends.iceberg.trino.layout import Layout, read_layout
from aurum_orchestration.maintenance.backends.iceberg.trino.partitions import Partition, read_partitions
from aurum_orchestration.maintenance.backends.iceberg.trino.readback import reading_back, wait_until_over
from aurum_orchestration.maintenance.backends.iceberg.trino.rollback import (
    BY_TRINO,
    plan_rollback,
    rollback_execution,
    undo_plan,
)
from aurum_orchestration.maintenance.backends.iceberg.trino.specs import schema_of, spec_of
from aurum_orchestration.maintenance.backends.iceberg.trino.sql import ident, literal
from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    MaintenanceResult,
    MaintenanceStatus,
    OperationType,
    PlanExecution,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
    Verification,
)
from aurum_orchestration.maintenance.operations.partition_evolution import PartitionEvolutionParameters
from aurum_orchestration.maintenance.operations.undo import UNDO
from aurum_orchestration.maintenance.planner.words import count, size

EVOLVE, SET_SPEC = "evolve", "set_spec"
PARTITIONING, FORMER = "partitioning", "former_partitioning"

_SPEC_ID = re.compile(r'partitionSpecAsJson=\{"spec-id":(\d+)')
_RISK = "None for rows: files of older specs stay readable, and `aurum undo` sets the former spec again."


def plan(table: TrinoTable, table_id: TableId, parameters: PartitionEvolutionParameters) -> MaintenancePlan:
    """The spec to set, and the files of older ones to rewrite into it.

    Raises RequestError for a spec that cannot be, UnsupportedError when Trino cannot do it.
    """
    history = read_history(table, clock=False)
    layout = read_layout(table)
    columns = table.columns()
    schema = schema_of(columns)
    refuse(table, history.properties.get("format-version", "2"), layout, parameters.compaction())
    former = [field.text for field in layout.fields]
    wanted = _wanted(layout, schema, parameters)
    every = read_partitions(table, layout, 0) if history.head is not None else []
    changes = wanted != former
    old = every
    if not changes:
        current = _current_spec(table) if every else None
        old = [one for one in every if current is not None and one.spec_id != current]
    steps = [_evolve_step(table, former, wanted, sum(one.files for one in old))] if changes else []
    if parameters.rewrite and old:
        steps.append(_rewrite_step(len(steps) + 1, old, every))
    return MaintenancePlan(
        table=str(table_id),
        backend=table_id.backend,
        operation=OperationType.PARTITION_EVOLUTION,
        parameters=parameters.model_dump(),
        reason=_reason(former, wanted, steps, old),
        fingerprint={**fingerprint(table, history), FORMER: former, "columns": [list(column) for column in columns]},
        steps=steps,
    )


def execution(plan: MaintenancePlan, table: TrinoTable) -> EvolutionExecution:
    """The steps of a plan."""
    return EvolutionExecution(plan, table)


def undo(table: TrinoTable, result: MaintenanceResult) -> MaintenancePlan:
    """The former spec again; for an operation that set none, main back to where it stood."""
    data = result.undo_data
    if data is None and result.status not in {MaintenanceStatus.SKIPPED, MaintenanceStatus.COMPLETED}:
        raise UndoRefusedError("the run left no record of what it changed: Trino keeps none either")
    if data is None or FORMER not in data:
        return plan_rollback(table, result)
    now = [field.text for field in read_layout(table).fields]
    history = read_history(table, clock=False)
    if now == data[FORMER]:
        return undo_plan(table, history, result, f"nothing to undo: partitioned by {_told(now)} already", [])
    if now != data[PARTITIONING]:
        raise UndoRefusedError(
            f"the partitioning was changed since: it is {_told(now)}, and was {_told(data[PARTITIONING])} "
            "after the operation"
        )
    step = PlanStep(
        number=1,
        action=SET_SPEC,
        summary=f"Partition by {_told(data[FORMER])} again.",
        risk="None: what is written from then on has the former spec, all files stay readable.",
        detail={"sql": _set(table, data[FORMER]), FORMER: now, PARTITIONING: data[FORMER]},
    )
    return undo_plan(table, history, result, step.summary, [step])


def undo_execution(plan: MaintenancePlan, table: TrinoTable) -> PlanExecution:
    """The change of the spec, or the move of main for an operation that only rewrote."""
    sets_spec = any(step.action == SET_SPEC for step in plan.steps)
    return SpecUndo(plan, table) if sets_spec else rollback_execution(plan, table)


class EvolutionExecution:
    """The units of a plan: the spec, then the rewrite."""

    workers = 1

    def __init__(self, plan: MaintenancePlan, table: TrinoTable) -> None:
        self.plan, self.table = plan, table

    def units(self) -> Iterator[Unit]:
        """The units. Raises StateDriftedError when the table is partitioned, or has columns, otherwise than planned."""
        planned = self.plan.fingerprint
        refuse_other_table(self.table, read_history(self.table, clock=False), self.plan)
        if [list(column) for column in self.table.columns()] != planned["columns"]:
            raise StateDriftedError("the columns have changed since the plan", table=self.plan.table)
        _require(self.table, planned[FORMER])
        parameters = PartitionEvolutionParameters.model_validate(self.plan.parameters)
        for step in self.plan.steps:
            if step.action == EVOLVE:
                yield SetSpecUnit(step, self.table, OperationType.PARTITION_EVOLUTION)
            else:
                yield OptimizeUnit(step, self.table, parameters.compaction(), OperationType.PARTITION_EVOLUTION)


class SpecUndo:
    """A plan of :func:`undo` that sets a spec."""

    workers = 1

    def __init__(self, plan: MaintenancePlan, table: TrinoTable) -> None:
        self.plan, self.table = plan, table

    def units(self) -> Iterator[Unit]:
        """The unit. Raises StateDriftedError when the table is another one by now."""
        refuse_other_table(self.table, read_history(self.table, clock=False), self.plan)
        for step in self.plan.steps:
            yield SetSpecUnit(step, self.table, UNDO)


class SetSpecUnit(Unit):
    """The statement that sets a spec; no snapshot, no file. Sent again it changes nothing."""

    def __init__(self, step: PlanStep, table: TrinoTable, operation: str) -> None:
        super().__init__(step)
        self._table, self._operation = table, operation

    def stage(self, run: RunContext) -> None:
        """Nothing is written before the commit."""

    def verify(self, run: RunContext) -> Verification | None:  # noqa: ARG002 - the base's signature
        """No row changes."""
        return None

    def commit(self, run: RunContext) -> UnitOutcome:
        """Set it, if the partitioning still is what it was."""
        detail = self.step.detail
        _require(self._table, detail[FORMER])
        try:
            self._table.change(detail["sql"], run, operation=self._operation)
        except CommitStateUnknownError as error:
            asking = uncancelled(self._table)
            wait_until_over(asking, detail["sql"], error)
            with reading_back(error.query_id):
                now = [field.text for field in read_layout(asking).fields]
            if now != detail[PARTITIONING]:
                raise BackendUnavailableError(f"{error.detail}; read back: the spec is as it was") from error
        if self._operation == UNDO:
            return UnitOutcome(
                metrics={"specs_changed": 1}, undo="nothing takes an undo back: run the partition_evolution again"
            )
        return UnitOutcome(
            metrics={"specs_changed": 1},
            undo=f"aurum undo {run.operation_id}: partitioned by {_told(detail[FORMER])} again; "
            "files that were rewritten stay as they are, readers find their rows by any spec",
            undo_data={**BY_TRINO, FORMER: detail[FORMER], PARTITIONING: detail[PARTITIONING]},
        )

    def discard(self) -> None:
        """Nothing was written."""


def _require(table: TrinoTable, partitioning: Sequence[str]) -> None:
    now = [field.text for field in read_layout(table).fields]
    if now != list(partitioning):
        raise StateDriftedError(f"the table is partitioned by {_told(now)} now, by {_told(partitioning)} when planned")


def _wanted(layout: Layout, schema: Schema, parameters: PartitionEvolutionParameters) -> list[str]:
    """The partitioning asked for, in Trino's words; kept fields first, as they are."""
    try:
        current: PartitionSpec = spec_of(layout, schema)
    except ValueError as error:
        raise UnsupportedError(f"partitioned in a way that only its own engine can change: {error}") from error
    asked = Asked(
        None if parameters.spec is None else [_lower(text) for text in parameters.spec],
        [_lower(text) for text in parameters.add or ()],
        [_lower(text) for text in parameters.remove or ()],
    )
    if parameters.spec is None and not parameters.add and not parameters.remove:
        return [field.text for field in layout.fields]
    change = change_of(current, schema, asked, ())
    gone = set(change.remove)
    kept = [field.name for field in current.fields if field.name not in gone]
    return [*kept, *(_term(term) for term in change.add)]


def _lower(text: str) -> str:
    """Trino's columns have lower-case names."""
    return text.lower()


def _term(term: Term) -> str:
    if term.name is not None:
        raise RequestError(f"partition field {term.text!r}: Trino gives partition fields their names itself")
    column = term.column if re.fullmatch(r"[a-z_][a-z0-9_]*", term.column) else ident(term.column)
    name, _, number = str(term.transform).partition("[")
    if name == "identity":
        return column
    return f"{name}({column}, {number.rstrip(']')})" if number else f"{name}({column})"


def _set(table: TrinoTable, partitioning: Sequence[str]) -> str:
    # Trino reads an array that is empty as one of unknown type
    listed = literal(list(partitioning)) if partitioning else "CAST(ARRAY[] AS array(varchar))"
    return f"ALTER TABLE {table.name} SET PROPERTIES partitioning = {listed}"


def _current_spec(table: TrinoTable) -> int | None:
    """The id of the default spec, as the catalog or Trino's plan of a rewrite says; None when neither does."""
    if table.embedded is not None:
        return table.embedded.metadata.default_spec_id
    explained = str(table.query(f"EXPLAIN {statement(table, EVERY_FILE, '')}").first()[0])
    found = _SPEC_ID.search(explained)
    return int(found[1]) if found else None


def _evolve_step(table: TrinoTable, former: list[str], wanted: list[str], files: int) -> PlanStep:
    return PlanStep(
        number=1,
        action=EVOLVE,
        summary=f"Partition by {_told(wanted)} instead of {_told(former)}.",
        risk=_RISK,
        detail={
            "sql": _set(table, wanted),
            "spec": _told(wanted),
            "former_spec": _told(former),
            FORMER: former,
            PARTITIONING: wanted,
            "files": [],
            "files_of_older_specs": files,
        },
    )


def _rewrite_step(number: int, old: Sequence[Partition], every: Sequence[Partition]) -> PlanStep:
    detail: dict[str, Any] = {
        "partition": "",
        "partitions": [one.text for one in old],
        "fixed": "",
        "parts": [],
        "threshold": EVERY_FILE,
        "files": [],
        "files_at_most": sum(one.files for one in every),
        "files_out": 0,
        "bytes": sum(one.bytes for one in every),
        "rows": sum(one.rows for one in every),
        "delete_files": sum(one.deletes for one in every),
    }
    return PlanStep(
        number=number,
        action="rewrite",
        summary=f"Let Trino rewrite {count(sum(one.files for one in old), 'file')} of older specs into the new one, in "
        f"one statement ({size(detail['bytes'])} in the table).",
        risk="None for readers and writers: the old files stay until their snapshot expires; a concurrent delete wins.",
        detail=detail,
    )


def _told(partitioning: Sequence[str]) -> str:
    return ", ".join(partitioning) or "no partitions"


def _reason(former: list[str], wanted: list[str], steps: Sequence[PlanStep], old: Sequence[Partition]) -> str:
    files = sum(one.files for one in old)
    if not steps:
        left = f"; {count(files, 'file')} of older specs are left as they are" if files else ""
        return f"nothing to do: the table is partitioned by {_told(wanted)}{left}"
    parts = [f"partition by {_told(wanted)}"] if wanted != former else []
    if steps[-1].action == "rewrite":
        parts.append(f"rewrite {count(files, 'file')} of older specs into {_told(wanted)}")
    return ", ".join(parts)
