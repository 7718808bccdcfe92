"""What each operation should do to a table now, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from aurum_orchestration.maintenance.interfaces import Decision, PolicyLookup, TableHealth
from aurum_orchestration.maintenance.planner.facts import RunFacts

FactsLookup = Mapping[tuple[str, str], RunFacts]
"""Facts by (id of the table as text, name of the operation)."""


def decide(
    health: TableHealth,
    policy: PolicyLookup,
    facts: FactsLookup,
    now: datetime,
    operations: Sequence[str] | None = None,
) -> list[Decision]:
    """One decision per operation considered (none named: all the planner knows), the most important first."""
    raise NotImplementedError


def healthy(decisions: Sequence[Decision]) -> bool:
    """True when no trigger is crossed, not even one that waits for a cooldown."""
    raise NotImplementedError


def closest(decisions: Sequence[Decision]) -> Decision | None:
    """Of the decisions (of any tables) not to act, the one closest to acting."""
    raise NotImplementedError
