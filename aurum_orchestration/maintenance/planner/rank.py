"""Which decisions are carried out under a budget, and in which order. As in LinkedIn's AutoComp (docs/planner.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.interfaces import Decision
from aurum_orchestration.maintenance.planner.words import count, size

GAIN_WEIGHT = 0.7
COST_WEIGHT = 0.3


@dataclass(frozen=True, slots=True)
class Spent:
    """What was taken from a budget already: ids of tables worked on, bytes read and written, seconds."""

    tables: frozenset[str] = frozenset()
    bytes: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Budget:
    """What one round of maintenance may take at most: tables touched, bytes read and written, seconds. None: no cap.

    Bytes and seconds are the predicted ones, seconds added up as if nothing ran at the same time. ``spent``
    is taken off first; ``name`` is what reasons call it.
    """

    tables: int | None = None
    bytes: float | None = None
    seconds: float | None = None
    spent: Spent = Spent()
    name: str = "budget"

    @classmethod
    def of(cls, tables: int | None, minutes: float | None, gib: float | None) -> Budget:
        """The budget of caps in the units that people give them in; None is no cap."""
        return cls(
            tables=tables,
            bytes=None if gib is None else gib * 1024**3,
            seconds=None if minutes is None else minutes * 60,
        )


NO_BUDGET = Budget()
"""A budget without caps."""


def rank(decisions: Iterable[Decision], budget: Budget = NO_BUDGET) -> tuple[list[Decision], list[Decision]]:
    """The decisions to carry out, best first, and those to act that the budget cut (code ``budget``), best first.

    Each is taken in the order of its score unless it would exceed a cap; a smaller one behind it may still
    fit. Decisions not to act are left out. The order given makes no difference.
    """
    ordered = _by_score([decision for decision in decisions if decision.act])
    taken: list[Decision] = []
    cut: list[Decision] = []
    tables = set(budget.spent.tables)
    used_bytes, used_seconds = budget.spent.bytes, budget.spent.seconds
    for decision in ordered:
        new_table = str(decision.table) not in tables
        after_bytes = used_bytes + decision.cost.bytes
        after_seconds = used_seconds + decision.cost.seconds
        if budget.tables is not None and new_table and len(tables) >= budget.tables:
            why = f"the {budget.name} of {count(budget.tables, 'table')} is used up"
        elif budget.bytes is not None and after_bytes > budget.bytes:
            left = max(0.0, budget.bytes - used_bytes)
            moves = size(decision.cost.bytes)
            why = f"it moves {moves}, the {budget.name} of {size(budget.bytes)} has {size(left)} left"
        elif budget.seconds is not None and after_seconds > budget.seconds:
            left = max(0.0, budget.seconds - used_seconds)
            takes = f"{decision.cost.seconds:,.1f} s"
            why = f"it takes {takes}, the {budget.name} of {budget.seconds:,.1f} s has {left:,.1f} s left"
        else:
            taken.append(decision)
            tables.add(str(decision.table))
            used_bytes, used_seconds = after_bytes, after_seconds
            continue
        cut.append(replace(decision, act=False, code="budget", reason=f"{decision.reason}; not this time: {why}"))
    return taken, cut


def _by_score(decisions: Sequence[Decision]) -> list[Decision]:
    """The highest priority first, then the best.

    0.7 x gain (debt points) - 0.3 x cost (seconds), each scaled to 0..1 over what is ranked.
    """
    if not decisions:
        return []
    gain = _minmax([decision.gain.debt_score for decision in decisions])
    cost = _minmax([decision.cost.seconds for decision in decisions])

    def key(decision: Decision) -> tuple[float, float, float, float, float, TableId, str]:
        score = GAIN_WEIGHT * gain(decision.gain.debt_score) - COST_WEIGHT * cost(decision.cost.seconds)
        return (
            -decision.priority,
            -round(score, 12),
            -decision.gain.debt_score,
            -decision.gain.files,
            decision.cost.seconds,
            decision.table,
            decision.operation,
        )

    return sorted(decisions, key=key)


def _minmax(values: Sequence[float]) -> Callable[[float], float]:
    low = min(values)
    span = max(values) - low
    return (lambda value: (value - low) / span) if span > 0 else (lambda _value: 0.0)
