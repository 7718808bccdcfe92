"""Triggers of databases that are one file: SQLite."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from aurum_orchestration.maintenance.interfaces import Cost, Gain
from aurum_orchestration.maintenance.operations.compaction import MIB
from aurum_orchestration.maintenance.planner.assessment import Assessment
from aurum_orchestration.maintenance.planner.debt import number
from aurum_orchestration.maintenance.planner.facts import RunFacts
from aurum_orchestration.maintenance.planner.words import size

FILE = "free_pages"
"""The metric that such a database has."""

FREE_SHARE, FREE_BYTES = 0.25, 64 * MIB
"""A vacuum writes the whole file anew: it has to be worth that."""


def vacuum(metrics: Mapping[str, float], policy: BaseModel, facts: RunFacts) -> Assessment | None:  # noqa: ARG001 - a trigger's signature
    """Acts where a quarter of the file and 64 MiB are free."""
    if FILE not in metrics:
        return None
    free, whole = number(metrics, "free_bytes"), number(metrics, "database_bytes")
    share = free / whole if whole else 0.0
    told = f"{size(free)} ({share:.0%}) of the database are free pages"
    gain, cost = Gain(bytes=free), Cost(seconds=1 + 2 * whole / (200 * MIB), bytes=2 * whole)
    if share >= FREE_SHARE and free >= FREE_BYTES:
        return Assessment(True, told, gain, cost)
    waits = f"{told}; acts at {FREE_SHARE:.0%} and {size(FREE_BYTES)}"
    return Assessment(False, waits, gain, cost, possible=free > 0)


def reindex(metrics: Mapping[str, float], policy: BaseModel, facts: RunFacts) -> Assessment | None:  # noqa: ARG001 - a trigger's signature
    """Never by itself: its indexes do not bloat; a person may ask for a look at them."""
    if FILE not in metrics:
        return None
    return Assessment(False, "SQLite's indexes do not bloat; asked for, damaged ones are built anew", possible=True)
