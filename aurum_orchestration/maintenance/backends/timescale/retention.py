"""Retention of a hypertable: chunks that are old as a whole are dropped, one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from psycopg import sql

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.connection import Session, patiently
from aurum_orchestration.maintenance.backends.postgres.horizon import long_transactions
from aurum_orchestration.maintenance.backends.postgres.retention.plan import days_of
from aurum_orchestration.maintenance.backends.postgres.table import Database, PgTable
from aurum_orchestration.maintenance.backends.reports import DirectUnit
from aurum_orchestration.maintenance.backends.timescale.aggregates import aggregates_of, lacking
from aurum_orchestration.maintenance.backends.timescale.by_chunk import ByChunk
from aurum_orchestration.maintenance.backends.timescale.hypertable import (
    TIMES,
    Chunk,
    Dimension,
    chunks_of,
    dimension_of,
    hypertable_of,
    regclass,
)
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    OperationType,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
)
from aurum_orchestration.maintenance.operations.retention import RetentionParameters
from aurum_orchestration.maintenance.planner.words import count, moment, size

_UNDO = "nothing brings the rows back but a backup"
_RISK = (
    "The rows of the chunk are gone for good; every one is older than the limit. Readers and writers of the hypertable "
    "wait for a moment, at most lock_timeout."
)

_REFERENCED = """
SELECT conrelid::regclass::text || ' (' || conname || ')' FROM pg_constraint
 WHERE contype = 'f' AND confrelid = %s::oid AND conparentid = 0 ORDER BY 1
"""


def plan(target: Database, table_id: TableId, parameters: RetentionParameters) -> MaintenancePlan:  # noqa: ARG001 - the handlers' protocol
    """One drop for each chunk whose newest row is too old.

    Raises UnsupportedError without row_days, and where rows cannot go by chunk: another column, no time, or a foreign
    key in the way.
    """
    table = hypertable_of(target, OperationType.RETENTION)
    told = parameters.model_dump()
    if parameters.time_column is None:
        return table.plan(OperationType.RETENTION, told, "no time_column is given, so no row is ever too old", [])
    days = days_of(parameters)
    table.server.refuse_writes(OperationType.RETENTION)
    with table.look() as session:
        dimension = dimension_of(session, table)
        _require_time(dimension, parameters.time_column)
        _refuse_referenced(session, table)
        cutoff = _cutoff(session.value("SELECT now()") - timedelta(days=days), dimension, parameters)
        chunks = chunks_of(session, table)
        old = [chunk for chunk in chunks if chunk.end is not None and chunk.end <= cutoff]
        steps = [_step(number, table, dimension, chunk) for number, chunk in enumerate(old, 1)]
        warnings = [*long_transactions(session), *_aggregates(session, table, old)] if old else []
    limit = f"{moment(cutoff)} by {dimension.column}" + ("" if dimension.type.endswith("with time zone") else ", local")
    freed = size(sum(chunk.all_bytes for chunk in old))
    reason = (
        f"{count(len(old), 'chunk')} of {len(chunks):,} ({freed}) end before {limit}"
        if old
        else f"none of {count(len(chunks), 'chunk')} ends before {limit}"
    )
    return table.plan(OperationType.RETENTION, told, reason, steps, warnings)


def _require_time(dimension: Dimension, column: str) -> None:
    if column != dimension.column:
        raise UnsupportedError(
            f"rows of a hypertable go by chunk, and its chunks are by {dimension.column}, not {column}",
            operation=OperationType.RETENTION,
            hint=f"Write time_column: {dimension.column}.",
        )
    if dimension.type not in TIMES:
        raise UnsupportedError(
            f"{column} is {dimension.type}, which says no age in days",
            operation=OperationType.RETENTION,
            hint="SELECT drop_chunks with a number, by hand.",
        )


def _refuse_referenced(session: Session, table: PgTable) -> None:
    keys = [row[0] for row in session.rows(_REFERENCED, (table.oid,))]
    if keys:
        raise UnsupportedError(
            f"foreign keys refer to the hypertable: {', '.join(keys)}",
            operation=OperationType.RETENTION,
            hint="Drop them, or delete the rows that refer to old ones first.",
        )


def _aggregates(session: Session, table: PgTable, old: Sequence[Chunk]) -> list[str]:
    """What becomes of the continuous aggregates, first of those that have not taken in all that goes."""
    views = aggregates_of(session, table)
    spans = [(chunk.start, chunk.end) for chunk in old if chunk.start is not None and chunk.end is not None]
    late = lacking(session, table, min(start for start, _ in spans), max(end for _, end in spans)) if views else set()
    return [
        f"continuous aggregate {view} still needs rows of these chunks: it was not refreshed since they were written, "
        "and never will have them. Refresh it before (operation views, or its policy)"
        for view in views
        if (view.schema, view.name) in late
    ] + [
        f"continuous aggregate {view} keeps what it has of dropped chunks only until that time is refreshed"
        for view in views
    ]


def _cutoff(limit: datetime, dimension: Dimension, parameters: RetentionParameters) -> datetime:
    """What chunks must end before, as their ranges are told: the clock of a column without zone read as UTC."""
    if dimension.type == "timestamp with time zone":
        return limit.astimezone(UTC)
    return limit.astimezone(ZoneInfo(parameters.time_zone)).replace(tzinfo=UTC)


def _step(number: int, table: PgTable, dimension: Dimension, chunk: Chunk) -> PlanStep:
    return PlanStep(
        number=number,
        action="drop_chunk",
        summary=f"Drop chunk {chunk}, {size(chunk.all_bytes)}.",
        risk=_RISK,
        detail={
            "sql": _statement(table, dimension, chunk).as_string(None),
            "oid": chunk.oid,
            "chunk": str(chunk),
            "bytes": chunk.all_bytes,
        },
    )


def _statement(table: PgTable, dimension: Dimension, chunk: Chunk) -> sql.Composed:
    """Exactly this chunk: all that end by its end and begin at its start or later."""
    kind = sql.SQL(TIMES[dimension.type])
    start, end = (sql.Literal(str(bound)) for bound in (chunk.start, chunk.end))
    return sql.SQL("SELECT drop_chunks({}, older_than => {}::{}, newer_than => {}::{})").format(
        regclass(table.relation.schema, table.relation.name), end, kind, start, kind
    )


def execution(plan: MaintenancePlan, target: Database) -> ByChunk:
    """The chunks, the oldest first, each a transaction of its own."""
    table = hypertable_of(target, OperationType.RETENTION)

    def work(step: PlanStep, chunk: Chunk) -> Iterator[Unit]:
        yield _Drop(step, table, chunk)

    return ByChunk(plan, table, work)


class _Drop(DirectUnit):
    def __init__(self, step: PlanStep, table: PgTable, chunk: Chunk) -> None:
        super().__init__(step)
        self._table, self._chunk = table, chunk

    def commit(self, run: RunContext) -> UnitOutcome:
        """Drop it. Raises LockTimeoutError when readers or writers are in the way for too long."""
        with self._table.work(OperationType.RETENTION, run) as session:
            _refuse_referenced(session, self._table)
            statement = _statement(self._table, dimension_of(session, self._table), self._chunk)
            dropped = patiently(lambda: session.rows(statement), run)
        return UnitOutcome({"chunks_dropped": len(dropped), "bytes_freed": self._chunk.all_bytes}, undo=_UNDO)
