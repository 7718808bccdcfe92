"""REINDEX of a SQLite database: indexes that do not agree with their table, or all that are asked for, built anew."""

from __future__ import annotations

import re
from collections.abc import Iterator

from aurum_orchestration.errors import RequestError, nearest
from aurum_orchestration.maintenance.backends.reports import DirectUnit
from aurum_orchestration.maintenance.backends.sqlite.catalog import MAIN, Target, indexes_of, integrity
from aurum_orchestration.maintenance.backends.sqlite.connection import name, transaction
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    OperationType,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
)
from aurum_orchestration.maintenance.operations.reindex import ReindexParameters

_RISK = "None for rows: each index is built anew in one transaction. Writers wait for it meanwhile."
_WRONG = re.compile(r"(?:in|from) index (?P<index>.+)$")


def plan(target: Target, parameters: ReindexParameters) -> MaintenancePlan:
    """A step for each index. Scope ``bloated``: those in which SQLite's integrity check finds something wrong.

    Raises RequestError for an index that is not there.
    """
    with target.database.look() as connection:
        known = dict(indexes_of(connection, target.table))
        looked = parameters.scope == "bloated" and not parameters.indexes
        wrong = integrity(connection, target.table) if looked else []
    for index in parameters.indexes:
        if index not in known:
            raise RequestError(
                f"no index {index!r} on the target", operation=OperationType.REINDEX, hint=nearest(index, known)
            )
    damaged = {found["index"] for text in wrong if (found := _WRONG.search(text))}
    chosen = parameters.indexes or [index for index in known if parameters.scope != "bloated" or index in damaged]
    steps = [_step(number, index, known[index]) for number, index in enumerate(chosen, 1)]
    reason = f"{len(chosen):,} of {len(known):,} indexes"
    if not steps:
        reason = f"SQLite finds nothing wrong in {len(known):,} indexes, and no b-tree of its bloats"
        if not known:
            reason = "there is no index"
    elif damaged and not parameters.indexes:
        reason += f" do not agree with their table: {', '.join(sorted(damaged))}"
    return target.plan(OperationType.REINDEX, parameters.model_dump(mode="json"), reason, steps)


def _step(number: int, index: str, table: str) -> PlanStep:
    return PlanStep(
        number=number,
        action="sql",
        summary=f"Build index {index} of {table} anew.",
        risk=_RISK,
        detail={"sql": _statement(index), "index": index},
    )


def _statement(index: str) -> str:
    return f"REINDEX {name(MAIN, index)}"


def execution(plan: MaintenancePlan, target: Target) -> _Execution:
    """The indexes, one after the other."""
    return _Execution(plan, target)


class _Execution:
    workers = 1

    def __init__(self, plan: MaintenancePlan, target: Target) -> None:
        self._plan, self._target = plan, target

    def units(self) -> Iterator[Unit]:
        """One unit per step."""
        return (_Reindex(step, self._target) for step in self._plan.steps)


class _Reindex(DirectUnit):
    def __init__(self, step: PlanStep, target: Target) -> None:
        super().__init__(step)
        self._target = target

    def commit(self, run: RunContext) -> UnitOutcome:
        """Build it. Raises LockTimeoutError."""
        index = self.step.detail["index"]
        with self._target.database.work(run) as connection:
            if index not in dict(indexes_of(connection, self._target.table)):
                return UnitOutcome(warnings=[f"{index} was dropped meanwhile"])
            with transaction(connection):
                connection.execute(_statement(index))
        return UnitOutcome({"indexes_rebuilt": 1}, undo="nothing to undo: no row was changed")
