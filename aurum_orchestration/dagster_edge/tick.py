"""From measured tables to what one tick of a sensor requests. Pure; the decisions are the planner's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from aurum_orchestration.dagster_edge.cursor import Cursor
from aurum_orchestration.dagster_edge.naming import digest
from aurum_orchestration.dagster_edge.report import told
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.interfaces import Decision, TableHealth
from aurum_orchestration.maintenance.planner.decide import closest
from aurum_orchestration.maintenance.planner.rank import NO_BUDGET, Budget, rank
from aurum_orchestration.maintenance.planner.words import count
from aurum_orchestration.maintenance.survey import Examined


@dataclass(frozen=True, slots=True)
class Batch:
    """Tables for one run, best gain first, and its key: the same tables in the same state have the same."""

    decisions: Sequence[Decision]
    run_key: str

    @property
    def tables(self) -> list[str]:
        """Ids of the tables."""
        return [str(decision.table) for decision in self.decisions]


@dataclass(frozen=True, slots=True)
class Tick:
    """What a tick comes to. ``summary`` explains it, also when it requests nothing."""

    batches: Sequence[Batch]
    cursor: Cursor
    summary: str


def plan_tick(
    operation: str,
    examined: Sequence[Examined],
    *,
    busy: Callable[[TableId], bool],
    last_end: Mapping[str, datetime | None],
    cursor: Cursor,
    batch_size: int,
    budget: Budget = NO_BUDGET,
) -> Tick:
    """The tables that the planner wants the operation for, in batches, without those that have a run already.

    ``busy``: a run for the table is queued or in progress. ``last_end``: when the operation last ended on
    a table, by its id. ``budget``: what may still be started tonight. A table is requested once per state,
    last end and day: a run that died without a trace is asked for again the next day, one that ended as
    soon as the planner says so.
    """
    decisions = [one for _, _, found in examined for one in found if one.operation == operation]
    wanted, cut = rank(decisions, budget)
    health = {one.table: one for one, _, _ in examined}
    keys = {decision.table: _key(health[decision.table], operation, last_end) for decision in wanted}
    fresh: list[Decision] = []
    waiting: list[Decision] = []
    for decision in wanted:
        requested = cursor.requested.get(_short(decision.table)) == keys[decision.table]
        (waiting if requested or busy(decision.table) else fresh).append(decision)
    batches = [_batch(fresh[start : start + batch_size], keys) for start in range(0, len(fresh), batch_size)]
    remembered = {_short(decision.table): keys[decision.table] for decision in fresh}
    for decision in waiting:
        name = _short(decision.table)
        if name in cursor.requested:
            remembered[name] = cursor.requested[name]
    summary = _summary(operation, examined, [*(one for one in decisions if not one.act), *cut], fresh, waiting)
    return Tick(batches, Cursor(remembered), summary)


def _key(health: TableHealth, operation: str, last_end: Mapping[str, datetime | None]) -> str:
    ended = last_end.get(str(health.table))
    day = health.measured_at.date().isoformat()
    parts = [str(health.table), operation, health.state_token, ended.isoformat() if ended else "", day]
    return digest("\n".join(parts), 12)


def _short(table: TableId) -> str:
    return digest(str(table), 10)


def _batch(decisions: Sequence[Decision], keys: Mapping[TableId, str]) -> Batch:
    """Its key does not depend on the order."""
    tables = sorted(decision.table for decision in decisions)
    first = decisions[0]
    name = str(first.table) if len(tables) == 1 else f"{first.table.backend}+{len(tables)}"
    return Batch(decisions, f"{name}:{first.operation}:{digest(''.join(keys[table] for table in tables))}")


def _summary(
    operation: str,
    examined: Sequence[Examined],
    idle: Sequence[Decision],
    fresh: Sequence[Decision],
    waiting: Sequence[Decision],
) -> str:
    problems = [(health.table, health.problem) for health, _, _ in examined if health.problem is not None]
    if problems and len(problems) == len(examined):
        return f"{count(len(examined), 'table')}, none could be measured: {told(problems[0][1])}"
    parts = [f"{count(len(examined), 'table')} looked at"]
    if fresh:
        parts.append(f"{operation} requested for {len(fresh):,}, first {_named(fresh[0])}")
    if waiting:
        parts.append(f"{len(waiting):,} in need with a run requested or in progress, first {_named(waiting[0])}")
    if not fresh and not waiting:
        parts.append(f"none needs {operation} now")
    nearest = closest(idle)
    if nearest is not None and not fresh:
        parts.append(f"closest: {_named(nearest)}")
    if problems:
        table, problem = problems[0]
        parts.append(f"{len(problems):,} could not be measured, first {table}: {told(problem)}")
    return "; ".join(parts)


def _named(decision: Decision) -> str:
    return f"{decision.table}: {decision.reason}"
