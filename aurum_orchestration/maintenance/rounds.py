"""One round of maintenance: from the tables as they are to requests, and to answers for those left alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from aurum_orchestration.errors import ProblemDetail
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.interfaces import (
    Decision,
    MaintenanceConfig,
    MaintenanceResult,
    MaintenanceStatus,
    PolicyLookup,
)
from aurum_orchestration.maintenance.operations.base import BaseMaintenanceOperation
from aurum_orchestration.maintenance.planner.decide import WAITING
from aurum_orchestration.maintenance.planner.rank import NO_BUDGET, Budget, rank
from aurum_orchestration.maintenance.survey import Examined

_A_PERSON_MAY = WAITING | {"disabled", "unmeasured"}
"""Codes that a person passes over by naming the operation: neither thresholds nor refusals are among them."""


@dataclass
class Round:
    """What is to be done, best first, and the answers that need no doing."""

    to_do: list[Decision] = field(default_factory=list)
    answered: list[MaintenanceResult] = field(default_factory=list)


def choose(
    examined: Sequence[Examined],
    *,
    named: bool,
    budget: Budget | None,
    request: Callable[[Decision], MaintenanceConfig],
    nights: Mapping[str, Budget] | None = None,
) -> Round:
    """Follow the decisions, or, when a person ``named`` the operations, everything but thresholds and refusals.

    A table that could not be measured is answered as failed. What is not to be done is answered as
    skipped with the reason: every such decision when named, else only those that a budget cut: the one of
    the round, or of a backend's night (``nights``, by backend).
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
        for decision in decisions:
            if decision.act or (named and decision.code in _A_PERSON_MAY):
                wanted.append(replace(decision, act=True))
            elif named:
                left.append(decision)
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


def overriding(
    policy: PolicyLookup, operations: Mapping[str, BaseMaintenanceOperation], given: Mapping[str, Any], *, named: bool
) -> PolicyLookup:
    """The policies as they are for one round: with the parameters given, and enabled when named.

    Raises RequestError when an operation does not know a parameter.
    """
    updates: dict[str, dict[str, Any]] = {}
    for name, operation in operations.items():
        checked = operation.parameters(dict(given))
        updates[name] = {key: getattr(checked, key) for key in given} | ({"enabled": True} if named else {})
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
