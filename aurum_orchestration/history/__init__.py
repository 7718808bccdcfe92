"""What was done and who is doing something now: the operation log, facts for the planner, health series, leases.

:class:`History` is the door to it. It is imported when first asked for, because it brings SQLAlchemy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aurum_orchestration.history.records import HealthPoint, Lease, Pruned

if TYPE_CHECKING:
    from aurum_orchestration.history.store import History

__all__ = ["HealthPoint", "History", "Lease", "Pruned"]


def __getattr__(name: str) -> Any:
    if name == "History":
        from aurum_orchestration.history.store import History

        return History
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
