"""From measured tables to what one tick of a sensor requests. Pure; the decisions are the planner's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from aurum_orchestration.dagster_edge.cursor import Cursor
from aurum_orchestration.dagster_edge.naming import digest
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.interfaces import Decision, TableHealth
from aurum_orchestration.maintenance.planner.decide import closest
from aurum_orchestration.maintenance.planner.rank import rank
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
) -> Tick:
    """The tables that the planner wants the operation for, in batches, without those that have a run already.

    ``busy``: a run for the table is queued or in progress. ``last_end``: when the operation last ended on
    a table, by its id. A table is requested once per state, last end and day: a run that died without a
    trace is asked for again the next day, one that ended as soon as the planner says so.
    """
    decisions = [one for _, _, found in examined for one in found if one.operation == operation]
    wanted, _ = rank(decisions)
    health = {one.table: one for one, _, _ in examined}
    keys = {decision.table: _key(health[decision.table], operation, last_end) for decision in wanted}
    fresh = [
        decision
        for decision in wanted
        if not busy(decision.table) and cursor.requested.get(_short(decision.table)) != keys[decision.table]
    ]
    batches = [_batch(fresh[start : start + batch_size], keys) for start in range(0, len(fresh), batch_size)]
    remembered = {_short(decision.table): keys[decision.table] for decision in fresh}
    for decision in wanted:  # also those whose run is under way, as long as they are wanted
        name = _short(decision.table)
        if name not in remembered and name in cursor.requested:
            remembered[name] = cursor.requested[name]
    summary = _summary(operation, examined, decisions, len(fresh), len(wanted) - len(fresh))
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
    operation: str, examined: Sequence[Examined], decisions: Sequence[Decision], fresh: int, waiting: int
) -> str:
    problems = [health for health, _, _ in examined if health.problem is not None]
    told = [f"{len(examined):,} tables looked at"]
    if fresh:
        told.append(f"{operation} requested for {fresh:,}")
    if waiting:
        told.append(f"{waiting:,} that need it have a run requested or in progress")
    if not fresh and not waiting:
        told.append(f"none needs {operation} now")
    text = ", ".join(told) + "."
    nearest = closest(decision for decision in decisions if not decision.act)
    if nearest is not None and not fresh:
        text += f" Closest: {nearest.table}: {nearest.reason}."
    if problems and problems[0].problem is not None:
        first = problems[0].problem
        text += f" {len(problems):,} could not be measured: {problems[0].table}: {first.detail or first.title}"
        text += f" {first.hint}" if first.hint else ""
    return text
