"""Statistics as the backend calls it: the plan is the report from manifests, the run adds distinct values.

With ``ndv`` a second step stores distinct values of all rows as table statistics.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import PrimitiveType

from aurum_orchestration.errors import RequestError, UnsupportedError, nearest
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.compact.state import read_state
from aurum_orchestration.maintenance.backends.iceberg.entries import EntryReader, partition_key
from aurum_orchestration.maintenance.backends.iceberg.live import LiveEntries, live_entries
from aurum_orchestration.maintenance.backends.iceberg.lossless import refuse_lossy_commit
from aurum_orchestration.maintenance.backends.iceberg.reporting import ReportExecution, report_plan
from aurum_orchestration.maintenance.backends.iceberg.rollback import refuse_other_table
from aurum_orchestration.maintenance.backends.iceberg.stats.columns import Columns
from aurum_orchestration.maintenance.backends.iceberg.stats.sample import distinct, take
from aurum_orchestration.maintenance.backends.iceberg.stats.sketch import (
    ACTION,
    SketchUnit,
    sketch_step,
    sketchable,
    unreadable,
)
from aurum_orchestration.maintenance.backends.iceberg.stats.undo import StatisticsUndo, plan_undo
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    MaintenanceResult,
    OperationType,
    PlanStep,
    RunContext,
    Unit,
)
from aurum_orchestration.maintenance.operations.stats import StatsParameters

MIB = 1024 * 1024


def plan(table: Table, table_id: TableId, parameters: StatsParameters) -> MaintenancePlan:
    """The report. Raises RequestError for a column that the table does not have."""
    schema = table.schema()
    try:
        columns = Columns.of(schema, parameters.columns)
    except KeyError as error:
        name = str(error.args[0])
        hint = nearest(name, schema.column_names)
        raise RequestError(f"{table_id} has no column {name!r}", hint=hint) from error
    live = live_entries(table, EntryReader(table.io))
    for file in live.data:
        columns.add(file)
    totals = {
        "rows": sum(file.record_count for file in live.data),
        "data_files": len(live.data),
        "data_bytes": sum(file.file_size_in_bytes for file in live.data),
        "delete_files": len(live.deletes),
        "partitions": len({partition_key(file) for file in live.data}),
        "columns": len(columns.by_id),
    }
    missing = []
    if live.deletes:
        missing.append(f"{len(live.deletes):,} delete files hide rows that are counted here")
    if not parameters.sample_rows and not parameters.ndv:
        missing.append("no distinct values: sample_rows is 0")
    stored = None
    if parameters.ndv:
        stored, why_not = _to_store(table, columns)
        missing += why_not
    reason = (
        f"{totals['rows']:,} rows in {totals['data_files']:,} data files ({totals['data_bytes'] / MIB:.1f} MiB), "
        f"{totals['columns']:,} columns"
    )
    detail = {
        "metrics": totals,
        "columns": {column.name: column.report(len(live.data)) for column in columns.by_id.values()},
        "missing": missing,
    }
    named = (str(table_id), table_id.backend, OperationType.STATS.value)
    made = report_plan(table, named, parameters.model_dump(), reason, detail)
    return made if stored is None else made.model_copy(update={"steps": [*made.steps, stored]})


def execution(plan: MaintenancePlan, table: Table) -> StatsExecution:
    """The report, with distinct values once it runs."""
    return StatsExecution(plan, table)


def undo(table: Table, result: MaintenanceResult) -> MaintenancePlan:
    """The snapshot's statistics as they were before."""
    return plan_undo(table, result)


def undo_execution(plan: MaintenancePlan, table: Table) -> StatisticsUndo:
    """The change of the metadata."""
    return StatisticsUndo(plan, table)


class StatsExecution(ReportExecution):
    """Hands the report over, then stores distinct values if the plan says so."""

    def __init__(self, plan: MaintenancePlan, table: Table) -> None:
        parameters = StatsParameters.model_validate(plan.parameters)
        look = [partial(_with_distinct, table=table, parameters=parameters)] if parameters.sample_rows else []
        super().__init__(plan, *look)
        self._table = table

    def units(self) -> Iterator[Unit]:
        """A unit per step. Raises StateDriftedError when the name means another table now."""
        refuse_other_table(self._table, self._plan)
        for step in self._plan.steps:
            yield SketchUnit(step, self._table) if step.action == ACTION else self.report(step)


def _to_store(table: Table, columns: Columns) -> tuple[PlanStep | None, list[str]]:
    """The step that stores distinct values, and what of it cannot be done."""
    state = read_state(table, EntryReader(table.io))
    if state.snapshot is None:
        return None, ["no distinct values are stored: the table has no snapshot"]
    if reason := unreadable(state):
        return None, [f"no distinct values are stored: {reason}"]
    try:
        refuse_lossy_commit(table)
    except UnsupportedError as error:
        return None, [f"no distinct values are stored: {error.detail}"]
    names = [column.name for column in columns.by_id.values()]
    chosen = sketchable(table, names)
    left = sorted(set(names) - set(chosen.values()))
    told = [f"no distinct values are stored of {', '.join(left)}: only of top-level columns"] if left else []
    return (sketch_step(table, state.snapshot, chosen, 2) if chosen else None), told


def _with_distinct(run: RunContext, step: PlanStep, *, table: Table, parameters: StatsParameters) -> PlanStep:
    live: LiveEntries = live_entries(table, EntryReader(table.io))
    schema, report = table.schema(), {name: dict(column) for name, column in step.detail["columns"].items()}
    wanted = {id_: name for id_, name in _top_level(schema).items() if name in report}
    sample = take(live.data, table.io, wanted, parameters.sample_rows, run)
    rows = sum(file.record_count for file in live.data)
    for id_, values in sample.values.items():
        with contextlib.suppress(pa.ArrowException):  # a type that cannot be counted is named below
            report[wanted[id_]] |= distinct(values, rows)
    missing = list(step.detail["missing"])
    if without := sorted(name for name, column in report.items() if "distinct" not in column):
        missing.append(f"no distinct values of {', '.join(without)}: only top-level Parquet columns are sampled")
    sampled = {"rows": sample.rows, "files": sample.files}
    return step.model_copy(
        update={"detail": {**step.detail, "columns": report, "sampled": sampled, "missing": missing}}
    )


def _top_level(schema: Schema) -> dict[int, str]:
    return {field.field_id: field.name for field in schema.fields if isinstance(field.field_type, PrimitiveType)}
