"""Rows past their time through Trino: ``DELETE`` of whole partitions, and of other rows when that is asked for.

What could lose a row, and what prevents it:

* rows without a time: Trino 476 takes the partition without a value along when told only ``column < moment`` (files
  of it that share a manifest with others). So every condition has a lower end, which such a partition is not above;
* rows among others: Trino decides itself whether a DELETE is one of metadata alone. It is asked by EXPLAIN, for the
  moment itself and for the last day, month and year before it, which is where partitions end. Without
  ``rewrite_files`` nothing else is sent;
* anything else: rows that were to stay are counted at the snapshots before and after, both pinned, and so are old
  ones, of which none may be left. Main goes back where that is not so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from aurum_orchestration.errors import (
    RequestError,
    StateDriftedError,
    UnsupportedError,
)
from aurum_orchestration.maintenance.backends.iceberg.retention.cutoff import earliest_wall
from aurum_orchestration.maintenance.backends.iceberg.trino.commits import Made, commit
from aurum_orchestration.maintenance.backends.iceberg.trino.history import TableHistory
from aurum_orchestration.maintenance.backends.iceberg.trino.rollback import BY_TRINO, take_back
from aurum_orchestration.maintenance.backends.iceberg.trino.sql import ident, literal
from aurum_orchestration.maintenance.interfaces import (
    OperationType,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
    Verification,
)
from aurum_orchestration.maintenance.operations.retention import RetentionParameters
from aurum_orchestration.maintenance.planner.words import count, moment, size

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable

DELETE_ROWS = "delete_rows"
METHOD = "trino-count-at-snapshots"

_METADATA_DELETE = "TableDelete["
_RISK = (
    "The rows leave main for good once the snapshot before expires; until then `aurum undo` brings them back. "
    "A concurrent commit is never lost."
)


@dataclass
class RowPlan:
    """The step that takes old rows out, a sentence about them, and what a person should know."""

    told: str = ""
    steps: list[PlanStep] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Old:
    """Rows that a condition names at a snapshot, in how many files of how many bytes."""

    rows: int
    files: int
    bytes: int


def plan_rows(table: TrinoTable, history: TableHistory, parameters: RetentionParameters) -> RowPlan:
    """What would be done now about rows that are old by ``time_column``.

    Raises RequestError for a column that is not there, UnsupportedError for one that holds no time.
    """
    if parameters.time_column is None:
        return RowPlan()
    column = ".".join(ident(part) for part in parameters.time_column.split("."))
    kind = _kind(table, column, parameters.time_column)
    days = parameters.retention_days if parameters.row_days is None else parameters.row_days
    now = datetime.fromtimestamp(history.now_ms / 1000, UTC)
    cutoff = (now - timedelta(days=days)).replace(minute=0, second=0, microsecond=0)
    told = f"rows with {parameters.time_column} before {moment(cutoff)} ({days:g} days)"
    if history.head is None:
        return RowPlan(f"{told}: the table has none")
    exact = _before(column, kind, next(_starts(kind, cutoff, parameters.time_zone)))
    try:
        all_old = _old(table, history.head, exact)
    except RequestError as error:
        if "COLUMN_NOT_FOUND" not in error.detail:
            raise
        raise UnsupportedError(
            f"time_column {parameters.time_column}: the newest snapshot is from before the column had this name, and "
            "Trino reads it by the names of then",
            hint="Run again after the next commit to the table; the embedded engine needs none.",
        ) from error
    if not all_old.rows:
        return RowPlan(f"{told}: no row is")
    whole = _whole_partitions(table, history.head, column, kind, cutoff, parameters.time_zone)
    if parameters.rewrite_files:
        condition, old, rewrites = exact, all_old, not (whole and whole[0] == exact)
    elif whole is None:
        return RowPlan(f"{told}: {count(all_old.rows, 'row')} stay among others (rewrite_files is off)")
    else:
        condition, old, rewrites = *whole, False
    left = all_old.rows - old.rows
    step = PlanStep(
        number=1,
        action=DELETE_ROWS,
        summary=_summary(old, cutoff, rewrites=rewrites),
        risk=_RISK,
        detail={
            "sql": f"DELETE FROM {table.name} WHERE {condition}",
            "condition": condition,
            "metadata_only": not rewrites,
            "rows": old.rows,
            "files": old.files,
            "bytes": old.bytes,
            "old_rows_left_at_most": left,
        },
    )
    stay = f"; {count(left, 'row')} stay among others (rewrite_files is off)" if left else ""
    return RowPlan(f"{told}: {count(old.rows, 'row')}{stay}", [step], list(_warnings(history, rewrites=rewrites)))


def _summary(old: _Old, cutoff: datetime, *, rewrites: bool) -> str:
    if rewrites:
        return (
            f"Delete {count(old.rows, 'row')} before {moment(cutoff)} in {count(old.files, 'data file')} "
            f"({size(old.bytes)}); those in files with other rows by position delete files."
        )
    return (
        f"Take whole partitions with {count(old.rows, 'row')} in {count(old.files, 'data file')} ({size(old.bytes)}) "
        "out of main; no data is written."
    )


def _warnings(history: TableHistory, *, rewrites: bool) -> Iterator[str]:
    others = sorted(name for name in history.refs if name != "main")
    if others:
        named = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        yield f"rows leave main only; {count(len(others), 'other ref')} keep theirs: {named}"
    if rewrites:
        yield "Trino hides rows of files with others behind delete files: a compaction takes them out of the files"


def _kind(table: TrinoTable, column: str, name: str) -> str:
    """The column's type: ``date``, ``timestamp(6)``, ``timestamp(6) with time zone``."""
    try:
        [kind] = table.types_of([column], table.name)
    except RequestError as error:
        raise RequestError(f"time_column: the table has no column {name!r}", hint=error.detail) from error
    if kind != "date" and not kind.startswith("timestamp"):
        raise UnsupportedError(f"time_column {name} is {kind}, which is no timestamp and no date")
    return kind


def _before(column: str, kind: str, moment: datetime | date) -> str:
    """The condition for rows before a moment. Its lower end keeps those without a time out of a DELETE by metadata."""
    lowest = datetime(1, 1, 1, tzinfo=UTC) if kind.endswith("with time zone") else datetime(1, 1, 1)  # noqa: DTZ001
    start = literal(lowest.date() if kind == "date" else lowest)
    return f"{column} >= {start} AND {column} < {literal(moment)}"


def _whole_partitions(  # noqa: PLR0917 - the column in its parts
    table: TrinoTable, head: int, column: str, kind: str, cutoff: datetime, zone: str
) -> tuple[str, _Old] | None:
    """The latest condition that Trino carries out by metadata alone, and what it takes; None when there is none."""
    seen = set()
    for start in _starts(kind, cutoff, zone):
        condition = _before(column, kind, start)
        if condition in seen:
            continue
        seen.add(condition)
        explained = table.query(f"EXPLAIN DELETE FROM {table.name} WHERE {condition}").first()[0]
        if _METADATA_DELETE in explained:
            old = _old(table, head, condition)
            return (condition, old) if old.rows else None
    return None


def _starts(kind: str, cutoff: datetime, zone: str) -> Iterator[datetime | date]:
    """The cutoff and the starts of its day, month and year, in the column's own reckoning."""
    if kind == "date":
        day = earliest_wall(cutoff, ZoneInfo(zone)).date()
        yield from (day, day.replace(day=1), day.replace(month=1, day=1))
        return
    at = cutoff if kind.endswith("with time zone") else earliest_wall(cutoff, ZoneInfo(zone))
    yield at
    midnight = at.replace(hour=0, minute=0)
    yield from (midnight, midnight.replace(day=1), midnight.replace(month=1, day=1))


def _old(table: TrinoTable, snapshot_id: int, condition: str) -> _Old:
    rows, files, stored = table.query(
        "SELECT coalesce(sum(n), 0), count(*), coalesce(sum(f.file_size_in_bytes), 0) FROM ("
        f'SELECT "$path" AS p, count(*) AS n FROM {table.at(snapshot_id)} WHERE {condition} GROUP BY 1) '
        f"LEFT JOIN {table.relation('$files')} AS f ON f.file_path = p"
    ).first()
    return _Old(int(rows), int(files), int(stored))


class RowsUnit(Unit):
    """One DELETE, compared with what was counted at the snapshot before it; main goes back when it is wrong."""

    verify_first = False
    fenced = True

    def __init__(self, step: PlanStep, table: TrinoTable, parameters: RetentionParameters) -> None:
        super().__init__(step)
        self._table, self._parameters = table, parameters
        self._made: Made | None = None

    def stage(self, run: RunContext) -> None:  # noqa: ARG002 - the base's signature
        """Nothing is written before the statement. Raises StateDriftedError when it would write files unasked."""
        if self.step.detail["metadata_only"]:
            explained = self._table.query(f"EXPLAIN {self.step.detail['sql']}").first()[0]
            if _METADATA_DELETE not in explained:
                raise StateDriftedError("by now the rows share files with others: the partitioning changed")

    def commit(self, run: RunContext) -> UnitOutcome:
        """Delete, and find the snapshot that this made."""
        warnings: list[str] = []
        done = commit(self._table, self.step.detail["sql"], run, OperationType.RETENTION, session={}, keeps_rows=False)
        self._made = made = done.made
        if made is None:
            return UnitOutcome(metrics={"rows_deleted": 0.0}, undo="nothing to undo: no row was there any more")
        if done.answer is None:
            warnings.append("read back, since Trino did not say so: the rows were deleted")
        told = made.summary
        outcome = UnitOutcome(
            metrics={
                "rows_deleted": self._rows_deleted(made),
                "files_removed": int(told.get("deleted-data-files", 0)),
                "bytes_removed": int(told.get("removed-files-size", 0)) if "deleted-data-files" in told else 0,
                "old_rows_left_at_most": self.step.detail["old_rows_left_at_most"],
            },
            undo=(
                f"aurum undo {run.operation_id}: main goes back to snapshot {made.parent_id}, "
                "while that is not expired and nobody else has committed since"
            ),
            undo_data={**BY_TRINO, "rollback_to": made.parent_id, "snapshots": [made.snapshot_id]},
            warnings=warnings,
        )
        if removed := int(told.get("removed-delete-files", 0)):
            outcome.metrics["delete_files_removed"] = removed
        return outcome

    def verify(self, run: RunContext) -> Verification | None:  # noqa: ARG002 - the base's signature
        """Rows that stay, before and after; no old one is left."""
        made = self._made
        if made is None or not self._parameters.verify:
            return None
        kept, _ = self._count(made.parent_id)
        after, old = self._count(made.snapshot_id)
        return Verification(method=METHOD, rows_before=kept, rows_after=after, checksum_equal=not old)

    def take_back(self, run: RunContext) -> None:
        """Main back to the snapshot before, while nobody else has committed."""
        if self._made is not None:
            take_back(self._table, run, [self._made])

    def discard(self) -> None:
        """Nothing was staged."""

    def _count(self, snapshot_id: int) -> tuple[int, int]:
        """Rows that the condition does not name at a snapshot, and those that it does."""
        condition = f"coalesce({self.step.detail['condition']}, false)"
        kept, old = self._table.query(
            f"SELECT count_if(NOT {condition}), count_if({condition}) FROM {self._table.at(snapshot_id)}"
        ).first()
        return int(kept), int(old)

    def _rows_deleted(self, made: Made) -> int:
        told = made.summary
        return int(told.get("deleted-records", 0)) + int(told.get("added-position-deletes", 0))
