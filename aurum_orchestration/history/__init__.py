"""What was done and who is doing something now: the operation log, facts for the planner, health series, leases.

:class:`History` is the door to it. It is imported when first used, because it brings SQLAlchemy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurum_orchestration.history.records import HealthPoint, Lease, Pruned
from aurum_orchestration.lazy import lazy_exports

if TYPE_CHECKING:
    from aurum_orchestration.history.store import History

__all__ = ["HealthPoint", "History", "Lease", "Pruned"]

__getattr__ = lazy_exports(__name__, {"History": "store"})
