"""Partition evolution of a hypertable: how wide its new chunks are. Chunks that are there stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from psycopg import sql

from aurum_orchestration.errors import RequestError, UndoRefusedError, UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.connection import patiently
from aurum_orchestration.maintenance.backends.postgres.table import Database, PgTable
from aurum_orchestration.maintenance.backends.reports import DirectUnit
from aurum_orchestration.maintenance.backends.timescale.hypertable import (
    Dimension,
    chunks_of,
    dimension_of,
    hypertable_of,
    regclass,
)
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    MaintenanceResult,
    OperationType,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
)
from aurum_orchestration.maintenance.operations.partition_evolution import PartitionEvolutionParameters
from aurum_orchestration.maintenance.operations.undo import UNDO
from aurum_orchestration.maintenance.planner.words import count, size

_RISK = "None for rows: it changes how wide chunks are that are made from now on."
_NAME = OperationType.PARTITION_EVOLUTION


def plan(target: Database, table_id: TableId, parameters: PartitionEvolutionParameters) -> MaintenancePlan:  # noqa: ARG001 - the handlers' protocol
    """The new interval; no step where none is given, or it is so already. Raises RequestError when it is none."""
    table = hypertable_of(target, _NAME)
    if parameters.spec is not None or parameters.add or parameters.remove:
        raise UnsupportedError("a hypertable has no partition spec", operation=_NAME, hint="Give chunk_interval.")
    table.server.refuse_writes(_NAME)
    with table.look() as session:
        dimension, chunks = dimension_of(session, table), chunks_of(session, table)
    told = parameters.model_dump(mode="json")
    largest = max((chunk.all_bytes for chunk in chunks), default=0.0)
    there = f"new chunks by {dimension.column} are {dimension.told} wide"
    whole = f"{there}; of {count(len(chunks), 'chunk')} the largest has {size(largest)}"
    if parameters.chunk_interval is None:
        return table.plan(_NAME, told, f"{whole}. Without chunk_interval it stays so", [])
    wanted = _parsed(table, dimension, parameters.chunk_interval)
    if wanted in {dimension.interval, dimension.integer_interval}:
        return table.plan(_NAME, told, f"{there} already", [])
    return table.plan(_NAME, told, f"{whole}; from now on {wanted}", [_step(table, dimension, wanted)])


def _parsed(table: PgTable, dimension: Dimension, text: str) -> timedelta | int:
    if dimension.interval is None:
        if not text.isdecimal() or int(text) < 1:
            raise RequestError(f"chunk_interval: {dimension.column} is {dimension.type}, so write a number above 0")
        return int(text)
    query = "SELECT make_interval(secs => extract(epoch FROM %s::interval)::float8)"
    with table.look() as session:
        try:
            parsed: timedelta = session.value(query, (text,))
        except Exception as error:
            raise RequestError(f"chunk_interval: {text!r} is no interval", hint="Write one like '1 day'.") from error
    if parsed <= timedelta(0):
        raise RequestError(f"chunk_interval: {text!r} is not above 0")
    return parsed


def _step(table: PgTable, dimension: Dimension, wanted: timedelta | int) -> PlanStep:
    detail = {
        "sql": _statement(table, wanted).as_string(None),
        "from": _plain(dimension.interval if dimension.integer_interval is None else dimension.integer_interval),
        "to": _plain(wanted),
    }
    return PlanStep(
        number=1,
        action="set_chunk_interval",
        summary=f"Make new chunks of {table.id} {wanted} wide instead of {dimension.told}.",
        risk=_RISK,
        detail=detail,
    )


def _statement(table: PgTable, wanted: timedelta | int) -> sql.Composed:
    return sql.SQL("SELECT set_chunk_time_interval({}, {})").format(
        regclass(table.relation.schema, table.relation.name), sql.Literal(wanted)
    )


def _plain(interval: timedelta | int | None) -> dict[str, float]:
    return {"seconds": interval.total_seconds()} if isinstance(interval, timedelta) else {"number": interval or 0}


def _read(plain: dict[str, float]) -> timedelta | int:
    return timedelta(seconds=plain["seconds"]) if "seconds" in plain else int(plain["number"])


def execution(plan: MaintenancePlan, target: Database) -> _Execution:
    """The one statement."""
    return _Execution(plan, hypertable_of(target, _NAME))


def undo(target: Database, result: MaintenanceResult) -> MaintenancePlan:
    """The former interval. Raises UndoRefusedError when somebody has set another one since."""
    table = hypertable_of(target, _NAME)
    if not result.undo_data:
        raise UndoRefusedError("the operation changed nothing")
    with table.look() as session:
        dimension = dimension_of(session, table)
    former, set_then = _read(result.undo_data["from"]), _read(result.undo_data["to"])
    if set_then not in {dimension.interval, dimension.integer_interval}:
        raise UndoRefusedError(f"the interval was changed since: it is {dimension.told}, and was {set_then}")
    told = {"operation": _NAME.value, "operation_id": result.operation_id}
    return table.plan(UNDO, told, f"new chunks {former} wide again", [_step(table, dimension, former)])


undo_execution = execution


class _Execution:
    workers = 1

    def __init__(self, plan: MaintenancePlan, table: PgTable) -> None:
        self._plan, self._table = plan, table

    def units(self) -> Iterator[Unit]:
        """One unit per step."""
        return (_Set(step, self._table) for step in self._plan.steps)


class _Set(DirectUnit):
    def __init__(self, step: PlanStep, table: PgTable) -> None:
        super().__init__(step)
        self._table = table

    def commit(self, run: RunContext) -> UnitOutcome:
        """Set it."""
        detail = self.step.detail
        statement = _statement(self._table, _read(detail["to"]))
        with self._table.work(_NAME, run) as session:
            patiently(lambda: session.rows(statement), run)
        return UnitOutcome(
            {"chunk_intervals_set": 1},
            undo=f"aurum undo {run.operation_id}: new chunks {_read(detail['from'])} wide again",
            undo_data={"from": detail["from"], "to": detail["to"]},
        )
