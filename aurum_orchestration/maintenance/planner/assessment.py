"""What a trigger says about one operation on one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from pydantic import BaseModel

from aurum_orchestration.maintenance.interfaces import Cost, Gain
from aurum_orchestration.maintenance.planner.facts import RunFacts

NO_GAIN, NO_COST = Gain(), Cost()


class Assessment(msgspec.Struct, frozen=True, gc=False):
    """Is the threshold crossed, the numbers in a sentence, what a run would win and take.

    ``routine``: work that is due by the calendar, such as a backup. A table that only waits for its next
    one is healthy.
    ``possible``: something could be done below the threshold, which is only when the planner starts it by itself.
    """

    crossed: bool
    reason: str
    gain: Gain = NO_GAIN
    cost: Cost = NO_COST
    routine: bool = False
    possible: bool = False


Trigger = Callable[[Mapping[str, float], BaseModel, RunFacts], Assessment | None]
"""Metrics, the operation's policy on the table and its last runs -> an assessment; None: its metric is missing."""
