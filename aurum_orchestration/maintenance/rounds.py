"""One round of maintenance: from the tables as they are to requests, and to answers for those left alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from msgspec.structs import replace
from pydantic import BaseModel

from aurum_orchestration.errors import ProblemDetail, UnknownNameError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.calendar import ALWAYS, CALENDAR, CalendarPolicy, closed
from aurum_orchestration.maintenance.interfaces import (
    Decision,
    MaintenanceConfig,
    MaintenanceResult,
    MaintenanceStatus,
    OperationType,
    PolicyLookup,
)
from aurum_orchestration.maintenance.operations.base import BaseMaintenanceOperation
from aurum_orchestration.maintenance.planner.decide import WAITING
from aurum_orchestration.maintenance.planner.rank import NO_BUDGET, Budget, Spent, rank
from aurum_orchestration.maintenance.survey import Examined

_A_PERSON_MAY = WAITING | {"disabled", "unmeasured"}
"""Codes that a person passes over by naming the operation: neither thresholds nor refusals are among them."""

_A_SCHEDULE_MAY = _A_PERSON_MAY - {"back-off"}


_RULES = frozenset({OperationType.CLEANUP, OperationType.LOGS, OperationType.SESSIONS})
_WITH_TABLES = _RULES | {OperationType.VIEWS}
"""Operations that, done to a database, are done to each of its tables.

In a round that has the database, rule groups are its affair alone, also when something holds it back: they run on a
table only where somebody named that without the database.
"""


class Respect(StrEnum):
    """What holds a round back besides thresholds and refusals, which always do.

    ``nothing``: a person asked. ``calendar``: a schedule did, so windows, blackouts, the nights' budgets,
    ``enabled: false`` and the pause after failures hold, but no cooldown. ``decisions``: everything that holds the
    planner back.
    """

    NOTHING = "nothing"
    CALENDAR = "calendar"
    DECISIONS = "decisions"


Judge = Callable[[Decision], Decision]
"""Turns the planner's decision into what this round makes of it."""


@dataclass
class Round:
    """What is to be done, best first, and the answers that need no doing."""

    to_do: list[Decision] = field(default_factory=list)
    answered: list[MaintenanceResult] = field(default_factory=list)


def judge(respect: Respect, policy: PolicyLookup, now: datetime) -> Judge:
    """What a round that respects this makes of a decision. ``now`` is in the zone that calendars are meant in."""

    def as_asked(decision: Decision) -> Decision:
        return replace(decision, act=True) if decision.code in _A_PERSON_MAY else decision

    def as_scheduled(decision: Decision) -> Decision:
        if not decision.act and decision.code not in _A_SCHEDULE_MAY:
            return decision
        # an operation without a trigger is `disabled` too, but nobody said so
        if decision.code == "disabled" and _switched_off(policy, decision):
            return decision
        calendar = policy(decision.table, CALENDAR)
        shut = closed(calendar if isinstance(calendar, CalendarPolicy) else ALWAYS, now)
        if shut is not None:
            return replace(decision, act=False, code=shut.code, reason=str(shut))
        return replace(decision, act=True)

    return {Respect.NOTHING: as_asked, Respect.CALENDAR: as_scheduled, Respect.DECISIONS: lambda one: one}[respect]


def _switched_off(policy: PolicyLookup, decision: Decision) -> bool:
    try:
        return not getattr(policy(decision.table, decision.operation), "enabled", True)
    except UnknownNameError:  # an operation that is not implemented has no policy
        return False


def choose(
    examined: Sequence[Examined],
    *,
    named: bool,
    judged: Judge,
    budget: Budget | None,
    request: Callable[[Decision], MaintenanceConfig],
    nights: Mapping[str, Budget] | None = None,
) -> Round:
    """Follow the decisions as ``judged``.

    A table that could not be measured is answered as failed. What is not to be done is answered as
    skipped with the reason: every such decision when the operations were ``named``, else only those that a
    budget cut: the one of the round, or of a backend's night (``nights``, by backend).
    """
    wanted: list[Decision] = []
    left: list[Decision] = []
    failed: list[MaintenanceResult] = []
    for health, _, decisions in examined:
        if health.problem is not None:
            failed.extend(
                _answer(request(decision), health.backend, MaintenanceStatus.FAILED, decision.reason, health.problem)
                for decision in (decisions if named else decisions[:1])
            )
            continue
        for decision in map(judged, decisions):
            if decision.act:
                wanted.append(decision)
            elif named:
                left.append(decision)
    wanted, covered = _once(wanted, examined)
    left += covered if named else []
    allowed: list[Decision] = []
    cut: list[Decision] = []
    for backend in dict.fromkeys(decision.table.backend for decision in wanted):
        within, beyond = rank(
            [decision for decision in wanted if decision.table.backend == backend],
            (nights or {}).get(backend, NO_BUDGET),
        )
        allowed += within
        cut += beyond
    to_do, left_out = rank(allowed, budget or NO_BUDGET)
    cut += left_out
    skipped = [
        _answer(request(decision), decision.table.backend, MaintenanceStatus.SKIPPED, decision.reason)
        for decision in (*cut, *left)
    ]
    return Round(to_do, [*skipped, *failed])


def _once(wanted: Sequence[Decision], examined: Sequence[Examined]) -> tuple[list[Decision], list[Decision]]:
    """What is to be done, and what is left to the whole database."""
    there = [one for _, _, decisions in examined for one in decisions if one.operation in _RULES]
    whole = {(one.table.backend, one.operation) for one in (*wanted, *there) if len(one.table.parts) == 1}
    covered = [
        replace(one, act=False, reason="it is left to the whole database, which is in the same round")
        for one in wanted
        if one.operation in _WITH_TABLES and len(one.table.parts) > 1 and (one.table.backend, one.operation) in whole
    ]
    tables = {(one.table, one.operation) for one in covered}
    return [one for one in wanted if (one.table, one.operation) not in tables], covered


def overriding(
    policy: PolicyLookup,
    operations: Mapping[str, BaseMaintenanceOperation],
    given: Mapping[str, Mapping[str, Any]],
    *,
    enable: bool,
) -> PolicyLookup:
    """The policies as they are for one round: with the parameters given, and enabled when that is asked for.

    ``given`` is by operation. Raises RequestError when an operation does not know a parameter.
    """
    updates: dict[str, dict[str, Any]] = {}
    for name, operation in operations.items():
        own = given.get(name, {})
        checked = operation.parameters(dict(own))
        updates[name] = {key: getattr(checked, key) for key in own} | ({"enabled": True} if enable else {})
    made: dict[int, tuple[BaseModel, BaseModel]] = {}

    def lookup(table: TableId, operation: str) -> BaseModel:
        base = policy(table, operation)
        update = updates.get(operation)
        if not update:
            return base
        if id(base) not in made:
            made[id(base)] = base, base.model_copy(update=update)  # base is kept: its id stays its own
        return made[id(base)][1]

    return lookup


def spent_on(results: Sequence[MaintenanceResult]) -> Spent:
    """What rounds took from a budget, as the history counts it: results that only looked did not take any."""
    worked = [one for one in results if not one.config.dry_run and one.status is not MaintenanceStatus.SKIPPED]
    return Spent(
        tables=frozenset(one.config.target_table for one in worked),
        bytes=sum(one.metrics.get(name, 0.0) for one in worked for name in ("bytes_rewritten", "bytes_added")),
        seconds=sum(one.seconds for one in worked),
    )


def _answer(
    config: MaintenanceConfig,
    backend: str,
    status: MaintenanceStatus,
    reason: str,
    problem: ProblemDetail | None = None,
) -> MaintenanceResult:
    now = datetime.now(UTC)
    return MaintenanceResult(
        config=config,
        backend=backend,
        status=status,
        reason=reason,
        problem=problem and problem.model_copy(update={"operation": str(config.operation_type)}),
        started_at=now,
        finished_at=now,
    )
