"""Which decisions are carried out under a budget, and in which order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aurum_orchestration.maintenance.interfaces import Decision


@dataclass(frozen=True, slots=True)
class Budget:
    """What one round of maintenance may take at most: tables touched, bytes read and written, seconds. None: no cap."""

    tables: int | None = None
    bytes: float | None = None
    seconds: float | None = None


def rank(decisions: Iterable[Decision], budget: Budget | None = None) -> tuple[list[Decision], list[Decision]]:
    """The decisions to carry out, best first, and those to act that the budget cut (code ``budget``)."""
    raise NotImplementedError
