"""What each operation should do to a table now, and why. Pure: the same input gives the same decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from msgspec.structs import replace

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.calendar import ALWAYS, CALENDAR, CalendarPolicy, Closed, closed
from aurum_orchestration.maintenance.interfaces import Decision, PolicyLookup, TableHealth
from aurum_orchestration.maintenance.operations.base import TriggerPolicy
from aurum_orchestration.maintenance.planner.assessment import Assessment
from aurum_orchestration.maintenance.planner.facts import NO_FACTS, RunFacts, as_utc
from aurum_orchestration.maintenance.planner.triggers import TRIGGERS
from aurum_orchestration.maintenance.planner.words import count, moment

FactsLookup = Mapping[tuple[str, str], RunFacts]
"""Facts by (id of the table as text, name of the operation)."""

WAITING = frozenset({"cooldown", "back-off", "gains-nothing", "not-due", "window", "blackout"})
"""Codes of decisions that would act if their time had come. A person who names the operation passes over them."""

FIRST_PAUSE = timedelta(minutes=40)
PAUSE_FACTOR = 3.0
LONGEST_PAUSE = timedelta(hours=24)
"""Pause after failures in a row: 40 minutes, 2 hours, 6 hours, 18 hours, then a day."""

IDLE_RUNS = 5
IDLE_FACTOR = 1.5
SHORTEST_IDLE = timedelta(minutes=15)
LONGEST_IDLE = timedelta(days=7)
"""From 5 runs in a row that gained nothing, each lengthens the cooldown (at least 15 minutes) by half, up to a week."""

_BELOW = "healthy: "
"""How the reason of a decision begins whose trigger is not crossed."""

_ORDER = {
    "recommended": 0,
    "cooldown": 1,
    "back-off": 1,
    "gains-nothing": 1,
    "window": 1,
    "blackout": 1,
    "refused": 2,
    "unmeasured": 3,
    "not-due": 4,
    "healthy": 4,
    "disabled": 5,
}


def decide(
    health: TableHealth,
    policy: PolicyLookup,
    facts: FactsLookup,
    now: datetime,
    operations: Sequence[str] | None = None,
) -> list[Decision]:
    """One decision per operation considered (none named: all that have a trigger), the most important first.

    ``now`` and the times in ``facts`` are taken as UTC when they have no zone; windows and blackouts are meant
    in the zone of ``now``. Odd numbers (NaN, negative,
    absent) never raise: they lead to a decision not to act.
    """
    name = str(health.table)
    names = TRIGGERS if operations is None else operations
    calendar = policy(health.table, CALENDAR)
    if not isinstance(calendar, CalendarPolicy):
        calendar = ALWAYS
    here = _Now(now, closed(calendar, now if now.tzinfo else as_utc(now)))
    decisions = [
        _decide_one(health, operation, policy, facts.get((name, operation), NO_FACTS), here) for operation in names
    ]
    if calendar.priority:
        decisions = [replace(decision, priority=calendar.priority) for decision in decisions]
    if len(decisions) > 1:
        decisions.sort(key=_importance)
    return decisions


def healthy(decisions: Iterable[Decision]) -> bool:
    """True when no trigger is crossed, not even one that waits, was cut or is refused. Unmeasured is not healthy."""
    return all(
        decision.code in {"healthy", "not-due", "disabled"} or (decision.code == "refused" and not decision.gain.files)
        for decision in decisions
    )


def closest(decisions: Iterable[Decision]) -> Decision | None:
    """Of the decisions (of any tables), the one closest to acting: first those that wait, then by predicted gain."""
    idle = [decision for decision in decisions if decision.code in {"healthy", "budget"} or decision.code in WAITING]
    return min(idle, key=lambda one: (one.reason.startswith(_BELOW), _importance(one)), default=None)


def pause_after(failures: int) -> timedelta:
    """How long the planner leaves a table alone after that many failures in a row."""
    if failures < 1:
        return timedelta()
    return min(LONGEST_PAUSE, FIRST_PAUSE * PAUSE_FACTOR ** min(failures - 1, 10))


def idle_interval(cooldown: timedelta, runs: int) -> timedelta:
    """The cooldown after that many runs in a row that gained nothing."""
    if runs < IDLE_RUNS:
        return cooldown
    longer = max(cooldown, SHORTEST_IDLE) * IDLE_FACTOR ** min(runs - IDLE_RUNS + 1, 40)
    return max(cooldown, min(LONGEST_IDLE, longer))


def _importance(decision: Decision) -> tuple[int, float, float, str, TableId]:
    return (
        _ORDER.get(decision.code, 1),
        -decision.gain.debt_score,
        -decision.gain.files,
        decision.operation,
        decision.table,
    )


@dataclass(frozen=True, slots=True)
class _Now:
    """The moment, and why the table's calendar lets no work start at it."""

    at: datetime
    shut: Closed | None


def _decide_one(health: TableHealth, operation: str, policy: PolicyLookup, facts: RunFacts, now: _Now) -> Decision:
    table = health.table
    trigger = TRIGGERS.get(operation)
    if trigger is None:
        return Decision(table, operation, False, "disabled", f"the planner never starts {operation} by itself")
    rules = policy(table, operation)
    if not cast(TriggerPolicy, rules).enabled:
        return Decision(table, operation, False, "disabled", "the table's policy says enabled: false")
    found = None if health.problem else trigger(health.metrics, rules, facts)
    refusal = health.refusals.get(operation)
    if refusal is not None and health.problem is None:
        return _refused(health, operation, refusal, found)
    if found is None:
        return Decision(table, operation, False, "unmeasured", _why_unmeasured(health, operation))
    if not found.crossed:
        code = "not-due" if found.possible else "healthy"
        return Decision(table, operation, False, code, f"{_BELOW}{found.reason}", found.gain, found.cost)
    code, waits = _wait(cast(TriggerPolicy, rules), facts, now.at, routine=found.routine)
    if code == "recommended" and now.shut is not None:
        code, waits = "not-due" if found.routine else now.shut.code, str(now.shut)
    reason = f"{found.reason}; {waits}" if waits else found.reason
    return Decision(table, operation, code == "recommended", code, reason, found.gain, found.cost)


def _refused(health: TableHealth, operation: str, refusal: str, found: Assessment | None) -> Decision:
    """A refusal. It carries what would be won only when the trigger is crossed."""
    if found is None or not found.crossed:
        return Decision(health.table, operation, False, "refused", refusal)
    return Decision(health.table, operation, False, "refused", f"{refusal} ({found.reason})", found.gain, found.cost)


def _why_unmeasured(health: TableHealth, operation: str) -> str:
    if health.problem is None:
        return f"what {operation} goes by was not measured"
    return f"could not be measured: {health.problem.detail or health.problem.title}"


def _wait(rules: TriggerPolicy, facts: RunFacts, now: datetime, *, routine: bool) -> tuple[str, str]:
    """The code and, when the time has not come, what is waited for.

    Routine work is done once per cooldown, whatever it gains. What was left undone is carried on without a
    cooldown: failures and runs that gain nothing have their own pauses.

    A last run further in the future than the pause itself comes from a wrong clock and is ignored.
    """
    if facts.last_finished is None:
        return "recommended", ""
    whole = timedelta(minutes=rules.cooldown_minutes)
    cooldown = timedelta() if facts.engaged else whole
    last = as_utc(facts.last_finished)
    elapsed = abs(as_utc(now) - last)
    pause = max(cooldown, pause_after(facts.consecutive_failures))
    interval = cooldown
    if facts.consecutive_no_gain >= IDLE_RUNS and (facts.engaged or not routine):
        interval = idle_interval(whole, facts.consecutive_no_gain)
    if facts.consecutive_failures > 0 and elapsed < pause and pause >= interval:
        row = count(facts.consecutive_failures, "failure")
        return "back-off", f"waits until {moment(last + pause)} after {row} in a row"
    if elapsed < cooldown and routine:
        return "not-due", f"due again at {moment(last + cooldown)}"
    if elapsed < cooldown:
        return "cooldown", f"cools down until {moment(last + cooldown)} ({rules.cooldown_minutes} minutes after a run)"
    if elapsed < interval:
        row = count(facts.consecutive_no_gain, "run")
        return "gains-nothing", f"waits until {moment(last + interval)}: {row} in a row gained nothing"
    return "recommended", ""
