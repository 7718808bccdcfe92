"""Planning with ``engine: auto``: both engines are asked as far as needed, and the plan says why it is the one's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import BaseModel

from aurum_orchestration.errors import BackendUnavailableError, UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.trino.choice import EMBEDDED, Choice, Facts, choose
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.iceberg.trino.engine import TrinoEngine

_BY_SIZE = {OperationType.COMPACTION.value, OperationType.PARTITION_EVOLUTION.value}
"""Operations that rewrite data. The others read and write metadata, however large the table is."""


def plan_auto(
    embedded: Callable[[], MaintenancePlan], trino: TrinoEngine, table: TableId, operation: str, parameters: BaseModel
) -> MaintenancePlan:
    """The plan of the engine that :func:`choose` names. Raises UnsupportedError when neither can."""
    above = trino.client.connection.trino_above_gib
    refusal: UnsupportedError | None = None
    plan: MaintenancePlan | None = None
    try:
        plan = embedded()
    except UnsupportedError as error:
        refusal = error
    facts = Facts(_rewrites(plan, operation), refusal.detail if refusal else None)
    choice = choose(facts, above)
    if choice.engine != EMBEDDED:
        try:
            return _told(trino.plan(table, operation, parameters), choice)
        except (UnsupportedError, BackendUnavailableError) as error:
            if plan is None and isinstance(error, BackendUnavailableError):
                raise
            choice = choose(Facts(facts.rewrites, facts.embedded_refuses, error.detail), above)
    if plan is None:
        raise UnsupportedError(f"{facts.embedded_refuses}; {choice.reason}", operation=operation) from refusal
    return _told(plan, choice) if plan.steps and operation in _BY_SIZE else plan


def _rewrites(plan: MaintenancePlan | None, operation: str) -> float:
    if plan is None or operation not in _BY_SIZE:
        return 0.0
    return float(sum(step.detail.get("bytes", 0) for step in plan.steps))


def _told(plan: MaintenancePlan, choice: Choice) -> MaintenancePlan:
    return plan.model_copy(update={"reason": f"{plan.reason}; {choice.reason}"})
