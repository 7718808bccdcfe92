"""The debt score of a table: 0 (nothing to win) to 100."""

from __future__ import annotations

from aurum_orchestration.maintenance.interfaces import TableHealth


def debt_score(health: TableHealth) -> float:
    """Points of debt, 0 to 100, two decimals. 0 for a table that could not be measured."""
    raise NotImplementedError
