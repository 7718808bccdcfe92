"""Triggers of what gives space back: expired snapshots, old rows, orphan files.

All of it is routine: done once per cooldown where there is something to do, and a table that only waits for
its next turn is healthy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from pydantic import BaseModel

from aurum_orchestration.maintenance.interfaces import Cost, Gain
from aurum_orchestration.maintenance.operations.retention import RetentionPolicy
from aurum_orchestration.maintenance.operations.vacuum import VacuumPolicy
from aurum_orchestration.maintenance.planner.assessment import Assessment
from aurum_orchestration.maintenance.planner.debt import PENALTIES, number
from aurum_orchestration.maintenance.planner.facts import RunFacts

DAY = 86_400
START_SECONDS = 0.3
SECONDS_PER_SNAPSHOT = 0.001
SECONDS_PER_FILE = 0.00005
"""What expiry and the listing of files are taken to cost (measured locally; deletions come on top)."""


def retention(metrics: Mapping[str, float], policy: BaseModel, facts: RunFacts) -> Assessment | None:
    """Acts at ``trigger_snapshots`` snapshots that may go; an unfinished run down to ``clear_snapshots``.

    Also once per cooldown where rows go by a time column.
    """
    if metrics.get("expirable_snapshots") is None:
        return None
    rules = cast(RetentionPolicy, policy)
    expirable, total = number(metrics, "expirable_snapshots"), number(metrics, "snapshots")
    gain = cost = None
    if expirable:
        points = PENALTIES["snapshots"].points(total) - PENALTIES["snapshots"].points(total - expirable)
        gain = Gain(debt_score=round(points, 2), files=expirable)
        cost = Cost(seconds=START_SECONDS + SECONDS_PER_SNAPSHOT * total)
    told = f"{expirable:,.0f} of {total:,.0f} snapshots may go"
    carry_on = facts.engaged and rules.clear_snapshots < rules.trigger_snapshots
    threshold = max(1, rules.clear_snapshots) if carry_on else rules.trigger_snapshots
    if expirable >= threshold:
        told = f"carrying on with an unfinished run: {told}" if carry_on else told
        return Assessment(True, told, gain or Gain(), cost or Cost(), routine=True)
    if rules.time_column is not None and total:
        days = rules.retention_days if rules.row_days is None else rules.row_days
        rows = f"rows older than {days:g} days by {rules.time_column} are looked for"
        return Assessment(True, f"{rows}; {told}", gain or Gain(), cost or Cost(seconds=START_SECONDS), routine=True)
    return Assessment(
        False,
        f"{told}, acts at {threshold:,}",
        gain or Gain(),
        cost or Cost(),
        possible=expirable > 0,
    )


def vacuum(metrics: Mapping[str, float], policy: BaseModel, facts: RunFacts) -> Assessment | None:
    """Acts once per cooldown on a table old enough to have orphans: only looking tells whether there are any."""
    if metrics.get("snapshots") is None:
        return None
    rules = cast(VacuumPolicy, policy)
    if not number(metrics, "snapshots"):
        return Assessment(False, "the table has no snapshot")
    days = number(metrics, "oldest_snapshot_seconds") / DAY
    whole = not number(metrics, "history_expired")
    if whole and days < rules.older_than_days and facts.last_completed is None:
        told = f"its history is {days:.1f} days old, so nothing can be older than {rules.older_than_days:g} days"
        return Assessment(False, told, possible=True)
    when = "never looked for" if facts.last_completed is None else "looked for once per cooldown"
    cost = Cost(seconds=START_SECONDS + SECONDS_PER_FILE * number(metrics, "data_files"))
    return Assessment(True, f"orphan files are {when}", cost=cost, routine=True)
