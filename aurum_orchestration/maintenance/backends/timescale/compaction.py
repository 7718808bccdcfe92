"""Compaction of a hypertable, on the TSL edition: old chunks into the columnstore, small ones merged, or reordered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from psycopg import sql

from aurum_orchestration.errors import RequestError, UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.connection import Session, patiently
from aurum_orchestration.maintenance.backends.postgres.horizon import long_transactions
from aurum_orchestration.maintenance.backends.postgres.table import Database, PgTable
from aurum_orchestration.maintenance.backends.reports import DirectUnit
from aurum_orchestration.maintenance.backends.timescale.by_chunk import ByChunk
from aurum_orchestration.maintenance.backends.timescale.hypertable import (
    Chunk,
    chunks_of,
    hypertable_of,
    require_tsl,
)
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    OperationType,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
)
from aurum_orchestration.maintenance.operations.compaction import MIB, CompactionParameters
from aurum_orchestration.maintenance.planner.words import count, size

NEEDS = "compaction of a hypertable (columnstore, merge, reorder)"
_RISK = "Rows stay; writers of the chunk wait while it is written anew, at most lock_timeout for the start."
_CALLS = {
    "columnstore": sql.SQL("CALL convert_to_columnstore({}::regclass, if_not_columnstore => true)"),
    "merge": sql.SQL("CALL merge_chunks({}::regclass, {}::regclass)"),
    "reorder": sql.SQL("SELECT reorder_chunk({}::regclass, {}::regclass)"),
}
_ENABLED = """
SELECT compression_enabled FROM timescaledb_information.hypertables
 WHERE hypertable_schema = %s AND hypertable_name = %s
"""
_STATUS = """
SELECT oid::bigint, _timescaledb_functions.chunk_status(oid::regclass) FROM unnest(%s::oid[]) AS oid
"""
_FROZEN, _UNSORTED = 4, 2 | 8
"""Bits of it: nothing may be written; some rows are not in the columnstore's order, or not in it at all."""

_DIMENSIONS = """
SELECT num_dimensions FROM timescaledb_information.hypertables WHERE hypertable_schema = %s AND hypertable_name = %s
"""
_INDEX = """
SELECT c.oid::bigint
  FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid WHERE i.indrelid = %s::oid AND c.relname = %s
"""
_REORDERED = """
SELECT i.indrelid::bigint
  FROM pg_index i JOIN pg_index h ON h.indexrelid = %s::oid
 WHERE i.indrelid = ANY (%s::oid[]) AND i.indisclustered AND i.indoption::text = h.indoption::text
   AND ARRAY(SELECT pg_get_indexdef(i.indexrelid, n, true) FROM generate_series(1, i.indnatts) n)
     = ARRAY(SELECT pg_get_indexdef(h.indexrelid, n, true) FROM generate_series(1, h.indnatts) n)
"""
"""Chunks that were reordered by the index: it is marked on them. The native policy, too, does each chunk once."""


def plan(target: Database, table_id: TableId, parameters: CompactionParameters) -> MaintenancePlan:  # noqa: ARG001 - the handlers' protocol
    """A step for each chunk, or pair of chunks, that is old enough. Raises UnsupportedError on the Apache edition."""
    table = hypertable_of(target, OperationType.COMPACTION)
    require_tsl(table.server, OperationType.COMPACTION, NEEDS)
    table.server.refuse_writes(OperationType.COMPACTION)
    with table.look() as session:
        limit = session.value("SELECT now()") - timedelta(days=parameters.chunks_older_than_days)
        old = [chunk for chunk in chunks_of(session, table) if _older(chunk, limit)]
        steps = list(_steps(session, table, old, parameters))
        warnings = long_transactions(session) if steps else []
    older = f"{count(len(old), 'chunk')} older than {parameters.chunks_older_than_days:g} days"
    reason = f"{parameters.chunks}: {count(len(steps), 'step')} on {older}" if steps else f"nothing to do to {older}"
    return table.plan(OperationType.COMPACTION, parameters.model_dump(), reason, steps, warnings)


def _older(chunk: Chunk, limit: datetime) -> bool:
    return chunk.end is not None and chunk.end <= limit


def _steps(
    session: Session, table: PgTable, old: Sequence[Chunk], parameters: CompactionParameters
) -> Iterator[PlanStep]:
    status: dict[int, int] = {row[0]: row[1] for row in session.tuples(_STATUS, ([chunk.oid for chunk in old],))}
    old = [chunk for chunk in old if not status[chunk.oid] & _FROZEN]
    groups: list[list[Chunk]] = [[chunk] for chunk in old if not chunk.compressed]
    index: str | None = None
    if parameters.chunks == "columnstore" and not session.value(_ENABLED, (table.relation.schema, table.relation.name)):
        name = table.identifier.as_string(None)
        raise UnsupportedError(
            "the hypertable has no columnstore",
            operation=OperationType.COMPACTION,
            hint=f"ALTER TABLE {name} SET (timescaledb.enable_columnstore, timescaledb.segmentby = '...').",
        )
    if parameters.chunks == "columnstore":
        groups = [[chunk] for chunk in old if not chunk.compressed or status[chunk.oid] & _UNSORTED]
    if parameters.chunks == "merge":
        _require_one_dimension(session, table)
        groups = list(_pairs(old, parameters.target_file_size_mb * MIB))
    if parameters.chunks == "reorder":
        wanted = session.value(_INDEX, (table.oid, parameters.reorder_index))
        if wanted is None:
            raise RequestError(f"reorder_index: the hypertable has no index {parameters.reorder_index!r}")
        index = sql.Identifier(table.relation.schema, parameters.reorder_index or "").as_string(None)
        done = {oid for (oid,) in session.tuples(_REORDERED, (wanted, [chunk.oid for chunk in old]))}
        groups = [group for group in groups if group[0].oid not in done]
    for number, group in enumerate(groups, 1):
        yield _step(number, parameters.chunks, group, index)


def _require_one_dimension(session: Session, table: PgTable) -> None:
    if session.value(_DIMENSIONS, (table.relation.schema, table.relation.name)) > 1:
        raise UnsupportedError(
            "the hypertable is split by more than time, and its chunks are not merged",
            operation=OperationType.COMPACTION,
        )


def _pairs(old: Sequence[Chunk], most: float) -> Iterator[list[Chunk]]:
    """Neighbours that are together no larger than this; each chunk in one pair at most."""
    left: Chunk | None = None
    for chunk in old:
        fits = left is not None and left.end == chunk.start and left.compressed == chunk.compressed
        if left is not None and fits and left.all_bytes + chunk.all_bytes <= most:
            yield [left, chunk]
            left = None
        else:
            left = chunk


def _step(number: int, action: str, chunks: Sequence[Chunk], index: str | None) -> PlanStep:
    told = " and ".join(str(chunk) for chunk in chunks)
    names = [chunk.identifier.as_string(None) for chunk in chunks]
    return PlanStep(
        number=number,
        action=action,
        summary=f"{action.capitalize()} {told}, {size(sum(chunk.all_bytes for chunk in chunks))}.",
        risk=_RISK,
        detail={
            "sql": _statement(action, names, index).as_string(None),
            "oid": chunks[0].oid,
            "oids": [chunk.oid for chunk in chunks],
            "chunk": told,
            "chunks": names,
            "index": index,
        },
    )


def _statement(action: str, chunks: Sequence[str], index: str | None) -> sql.Composed:
    named = [sql.Literal(name) for name in (*chunks, *([index] if index else []))]
    return _CALLS[action].format(*named)


def execution(plan: MaintenancePlan, target: Database) -> ByChunk:
    """The chunks, one after the other. Raises UnsupportedError on the Apache edition, which merge_chunks crashes."""
    table = hypertable_of(target, OperationType.COMPACTION)
    require_tsl(table.server, OperationType.COMPACTION, NEEDS)

    def work(step: PlanStep, chunk: Chunk) -> Iterator[Unit]:  # noqa: ARG001 - the step has its statement
        yield _Rewrite(step, table)

    return ByChunk(plan, table, work)


class _Rewrite(DirectUnit):
    def __init__(self, step: PlanStep, table: PgTable) -> None:
        super().__init__(step)
        self._table = table

    def commit(self, run: RunContext) -> UnitOutcome:
        """Run the statement that was planned. Raises LockTimeoutError, and UnsupportedError where it is refused."""
        with self._table.work(OperationType.COMPACTION, run) as session:
            before = _bytes(session, self._table)
            detail = self.step.detail
            statement = _statement(self.step.action, detail["chunks"], detail["index"])
            patiently(lambda: session.execute(statement), run)
            freed = max(0.0, before - _bytes(session, self._table))
        return UnitOutcome({"chunks_rewritten": 1, "bytes_freed": freed}, undo="nothing to undo: every row is there")


def _bytes(session: Session, table: PgTable) -> float:
    return sum(chunk.all_bytes for chunk in chunks_of(session, table))
