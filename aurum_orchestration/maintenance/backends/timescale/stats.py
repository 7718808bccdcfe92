"""Statistics of a hypertable: ANALYZE of the chunks whose statistics are stale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from psycopg import sql

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.connection import patiently
from aurum_orchestration.maintenance.backends.postgres.table import Database, PgTable
from aurum_orchestration.maintenance.backends.postgres.vacuum.plan import FEW_ROWS, require_maintainable
from aurum_orchestration.maintenance.backends.postgres.vacuum.state import VacuumState, vacuum_states
from aurum_orchestration.maintenance.backends.reports import DirectUnit
from aurum_orchestration.maintenance.backends.timescale.by_chunk import ByChunk
from aurum_orchestration.maintenance.backends.timescale.hypertable import (
    Chunk,
    as_table,
    chunks_of,
    dimension_of,
    hypertable_of,
)
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    OperationType,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
)
from aurum_orchestration.maintenance.operations.stats import StatsParameters
from aurum_orchestration.maintenance.planner.words import count, size

_RISK = "None: it reads a sample, and takes no lock that stops reads or writes."


def plan(target: Database, table_id: TableId, parameters: StatsParameters) -> MaintenancePlan:  # noqa: ARG001 - the handlers' protocol
    """One ANALYZE for each stale chunk. Raises AccessDeniedError without the right."""
    table = hypertable_of(target, OperationType.STATS)
    with table.look() as session:
        chunks = chunks_of(session, table)
        dimension = dimension_of(session, table)
        states = vacuum_states(session, [part.oid for chunk in chunks for part in chunk.parts])
    stale = {part.oid for chunk in chunks for part in chunk.parts if _stale(states.get(part.oid), parameters)}
    old = [chunk for chunk in chunks if stale & {part.oid for part in chunk.parts}]
    if old:
        table.server.refuse_writes(OperationType.STATS)
        require_maintainable(table, OperationType.STATS)
    whole = (
        f"{count(len(chunks), 'chunk')} by {dimension.column}, new ones {dimension.told} wide, "
        f"{size(sum(chunk.all_bytes for chunk in chunks))}"
    )
    reason = f"{whole}; {count(len(old), 'chunk')} with stale statistics" if old else f"{whole}; none is stale"
    steps = [
        _step(number, chunk, [part for part in chunk.parts if part.oid in stale], states)
        for number, chunk in enumerate(old, 1)
    ]
    return table.plan(OperationType.STATS, parameters.model_dump(), reason, steps)


def _stale(state: VacuumState | None, parameters: StatsParameters) -> bool:
    if state is None:
        return False
    if parameters.analyze != "stale":
        return parameters.analyze == "all"
    never = state.analyzed is None and state.live > 0
    return never or state.changed >= FEW_ROWS + parameters.stale_ratio * state.live


def _step(number: int, chunk: Chunk, parts: Sequence[Chunk], states: Mapping[int, VacuumState]) -> PlanStep:
    state = states[parts[0].oid]
    since = "never analyzed" if state.analyzed is None else f"{state.changed:,.0f} rows changed since the last ANALYZE"
    return PlanStep(
        number=number,
        action="sql",
        summary=f"Analyze {chunk}: {since}.",
        risk=_RISK,
        detail={
            "sql": _statement(parts).as_string(None),
            "oid": chunk.oid,
            "parts": [part.oid for part in parts],
            "chunk": str(chunk),
            "bytes": chunk.all_bytes,
        },
    )


def _statement(parts: Sequence[Chunk]) -> sql.Composed:
    """The columnstore of a chunk by its own name: not every version analyzes it with the chunk."""
    return sql.SQL("ANALYZE {}").format(sql.SQL(", ").join(part.identifier for part in parts))


def execution(plan: MaintenancePlan, target: Database) -> ByChunk:
    """The chunks, one after the other."""
    table = hypertable_of(target, OperationType.STATS)

    def work(step: PlanStep, chunk: Chunk) -> Iterator[Unit]:
        yield _Analyze(step, table, chunk)

    return ByChunk(plan, table, work)


class _Analyze(DirectUnit):
    def __init__(self, step: PlanStep, table: PgTable, chunk: Chunk) -> None:
        super().__init__(step)
        self._table, self._chunk = as_table(table, chunk), chunk

    def commit(self, run: RunContext) -> UnitOutcome:
        """Run it. Raises LockTimeoutError."""
        with self._table.work(OperationType.STATS, run) as session:
            planned = [part for part in self._chunk.parts if part.oid in self.step.detail["parts"]]
            patiently(lambda: session.execute(_statement(planned or [self._chunk])), run)
        return UnitOutcome({"chunks_analyzed": 1}, undo="nothing to undo: no row was changed")
