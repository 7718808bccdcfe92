"""Statistics through Trino: ``SHOW STATS`` as a report, ``ANALYZE`` where distinct values are to be stored.

Nothing here changes a row: ANALYZE adds a statistics file to the current snapshot. What was stored for other
columns stays unless it is dropped first (``drop_ndv``), which is what Trino asks for before other columns are
analyzed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from aurum_orchestration.errors import CommitStateUnknownError, RequestError, nearest
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.reporting import ReportExecution
from aurum_orchestration.maintenance.backends.iceberg.trino.files import partition_of_file
from aurum_orchestration.maintenance.backends.iceberg.trino.history import fingerprint, read_history, refuse_other_table
from aurum_orchestration.maintenance.backends.iceberg.trino.readback import wait_until_over
from aurum_orchestration.maintenance.backends.iceberg.trino.rollback import BY_TRINO
from aurum_orchestration.maintenance.backends.iceberg.trino.sql import literal
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
from aurum_orchestration.maintenance.operations.stats import StatsParameters

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable

ANALYZE, DROP = "analyze", "drop-statistics"
MIB = 1024 * 1024

_NESTED = ("row(", "array(", "map(")


def plan(table: TrinoTable, table_id: TableId, parameters: StatsParameters) -> MaintenancePlan:
    """The report, and the statements that store or drop. Raises RequestError for a column that is not there."""
    history = read_history(table, clock=False)
    types = dict(table.columns())
    wanted = [_top_level(name, types, table_id) for name in parameters.columns] or list(types)
    columns = _columns(table, {name: types[name] for name in wanted})
    totals = _totals(table) | {"columns": len(columns)}
    missing = []
    if totals["delete_files"]:
        missing.append(f"{totals['delete_files']:,} delete files hide rows that are counted here")
    if without := sorted(name for name, column in columns.items() if column.get("distinct") is None):
        missing.append(f"no distinct values of {', '.join(without)}: none are stored; ndv: true stores them")
    reason = (
        f"{totals['rows']:,} rows in {totals['data_files']:,} data files ({totals['data_bytes'] / MIB:.1f} MiB), "
        f"{totals['columns']:,} columns"
    )
    steps = []
    if parameters.drop_ndv:
        steps.append(_drop(table))
    analyzed = [name for name in wanted if not types[name].startswith(_NESTED)]
    if parameters.ndv and history.head is not None and analyzed:
        steps.append(_analyze(table, analyzed, history.head, everything=not parameters.columns))
    steps.append(
        PlanStep(
            number=1,
            action="report",
            summary=f"{reason}.",
            risk="None: nothing is written.",
            detail={"metrics": totals, "columns": columns, "missing": missing},
        )
    )
    return MaintenancePlan(
        table=str(table_id),
        backend=table_id.backend,
        operation=OperationType.STATS,
        parameters=parameters.model_dump(),
        reason=reason,
        fingerprint=fingerprint(table, history),
        steps=[step.model_copy(update={"number": number}) for number, step in enumerate(steps, 1)],
    )


def execution(plan: MaintenancePlan, table: TrinoTable) -> PlanExecution:
    """The steps of a plan."""
    return _Execution(plan, table)


def _top_level(name: str, types: dict[str, str], table_id: TableId) -> str:
    """The column that Trino has statistics of: a nested one's outermost."""
    found = name.lower()
    if found not in types:
        found = found.split(".")[0]
    if found not in types:
        raise RequestError(f"{table_id} has no column {name!r}", hint=nearest(name, types))
    return found


def _totals(table: TrinoTable) -> dict[str, int]:
    rows, files, stored, deletes, partitions = table.query(
        "SELECT coalesce(sum(record_count) FILTER (WHERE content = 0), 0), count(*) FILTER (WHERE content = 0), "
        "coalesce(sum(file_size_in_bytes) FILTER (WHERE content = 0), 0), count(*) FILTER (WHERE content <> 0), "
        "count(DISTINCT p) FILTER (WHERE content = 0) "
        f"FROM (SELECT *, {partition_of_file(table)} AS p FROM {table.relation('$files')})"
    ).first()
    return {
        "rows": int(rows),
        "data_files": int(files),
        "data_bytes": int(stored),
        "delete_files": int(deletes),
        "partitions": int(partitions),
    }


def _columns(table: TrinoTable, types: dict[str, str]) -> dict[str, dict[str, Any]]:
    """What SHOW STATS tells of the columns; estimates are whole numbers."""
    told = table.query(f"SHOW STATS FOR {table.name}").rows
    rows = next((row[4] for row in told if row[0] is None), None)
    found = {}
    for name, data_size, distinct, nulls, _, low, high, *_ in told:
        if name in types:
            empty = None if rows is None or nulls is None else round(rows * nulls)
            found[name] = {
                "type": types[name],
                "bytes": None if data_size is None else round(data_size),
                "values": None if rows is None else round(rows),
                "nulls": empty,
                "min": low,
                "max": high,
                "bounds": "enclose",
            }
            if distinct is not None:
                found[name] |= {"distinct": round(distinct), "distinct_is": "estimated"}
    return found


def _analyze(table: TrinoTable, columns: list[str], head: int, *, everything: bool) -> PlanStep:
    which = "" if everything else f" WITH (columns = {literal(columns)})"
    return PlanStep(
        number=1,
        action=ANALYZE,
        summary=f"Read all rows, and store the distinct values of {len(columns):,} columns with snapshot {head}.",
        risk="None for rows: no data file changes. Readers that plan by statistics see the new ones.",
        detail={"sql": f"ANALYZE {table.name}{which}", "columns": columns},
    )


def _drop(table: TrinoTable) -> PlanStep:
    return PlanStep(
        number=1,
        action=DROP,
        summary="Remove the stored distinct values of all columns.",
        risk="None for rows. Joins are planned without distinct values until they are stored again.",
        detail={"sql": f"ALTER TABLE {table.name} EXECUTE drop_extended_stats", "columns": []},
    )


class _Execution(ReportExecution):
    """The statements, then the report as it is once they are through."""

    def __init__(self, plan: MaintenancePlan, table: TrinoTable) -> None:
        super().__init__(plan, self._again)
        self._table, self._kept = table, plan

    def units(self) -> Iterator[Unit]:
        """A unit per step. Raises StateDriftedError when the table is another one by now."""
        refuse_other_table(self._table, read_history(self._table, clock=False), self._kept)
        for step in self._kept.steps:
            yield self.report(step) if step.action == "report" else _StatementUnit(step, self._table)

    def _again(self, run: RunContext, step: PlanStep) -> PlanStep:  # noqa: ARG002 - what a report is completed by
        if len(self._kept.steps) == 1:
            return step
        types = {name: column["type"] for name, column in step.detail["columns"].items()}
        columns = _columns(self._table, types)
        without = sorted(name for name, column in columns.items() if column.get("distinct") is None)
        missing = [told for told in step.detail["missing"] if not told.startswith("no distinct values")]
        missing += [f"no distinct values of {', '.join(without)}"] if without else []
        return step.model_copy(update={"detail": {**step.detail, "columns": columns, "missing": missing}})


class _StatementUnit(Unit):
    """ANALYZE, or the removal of what it stored: neither moves main."""

    def __init__(self, step: PlanStep, table: TrinoTable) -> None:
        super().__init__(step)
        self._table = table

    def stage(self, run: RunContext) -> None:
        """Nothing is written before the statement."""

    def verify(self, run: RunContext) -> Verification | None:  # noqa: ARG002 - the base's signature
        """No row changes."""
        return None

    def commit(self, run: RunContext) -> UnitOutcome:
        """Send it."""
        sql = self.step.detail["sql"]
        warnings = []
        try:
            self._table.change(sql, run, operation=OperationType.STATS)
        except CommitStateUnknownError as error:
            # both may be sent twice: the second one stores, or removes, the same
            wait_until_over(self._table, sql, error)
            self._table.change(sql, run, operation=OperationType.STATS)
            warnings.append(f"sent twice, since the connection broke: {error.detail}")
        columns = len(self.step.detail["columns"])
        undo = f"ALTER TABLE {self._table.name} EXECUTE drop_extended_stats removes them; no row was changed"
        return UnitOutcome(
            metrics={"columns_counted": columns} if columns else {},
            # nothing takes it back: Trino's words for it, and not the embedded engine's
            undo_data=dict(BY_TRINO),
            undo=undo if columns else "store them again: run it with ndv: true; no row was changed",
            warnings=warnings,
        )

    def discard(self) -> None:
        """Nothing was staged."""
