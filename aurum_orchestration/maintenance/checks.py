"""Checks of tables: a number of each against its thresholds, with what to do. Pure.

They complain later than the planner acts: where one fails, maintenance is off, failing or not enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple, Self, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.interfaces import Decision, PolicyLookup, TableHealth
from aurum_orchestration.maintenance.planner.decide import closest, healthy
from aurum_orchestration.maintenance.planner.facts import RunFacts

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.survey import Examined

CHECKS = "checks"
"""Name of the policy section that holds the thresholds; it stands beside the operations' sections."""

CheckName = Literal["file_count", "delete_files", "snapshots", "maintenance_recency", "debt"]
NAMES: tuple[CheckName, ...] = get_args(CheckName)

LARGE_FLEET = 1_000
"""Tables up to which a fleet has all checks unless its policies name them: each costs loading time (docs/adr/0006)."""


class ChecksPolicy(BaseModel):
    """The ``checks`` section of a policy: from which numbers on a table's checks warn and fail."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[CheckName, ...] | None = Field(
        default=None,
        description="Checks that the table has in Dagster. Left out: all five in a fleet of up to 1,000 tables, "
        "`debt` in a larger one.",
    )
    warn_excess_files: int | None = Field(
        default=100, ge=1, description="`file_count` warns from so many files that a compaction would save."
    )
    error_excess_files: int | None = Field(
        default=2000, ge=1, description="`file_count` fails from so many. `null`: never."
    )
    warn_delete_files: int | None = Field(default=200, ge=1, description="`delete_files` warns from so many of them.")
    error_delete_files: int | None = Field(
        default=2000, ge=1, description="`delete_files` fails from so many. `null`: never."
    )
    warn_snapshots: int | None = Field(default=2000, ge=1, description="`snapshots` warns from so many of them.")
    error_snapshots: int | None = Field(
        default=20000, ge=1, description="`snapshots` fails from so many. `null`: never."
    )
    warn_hours: float | None = Field(
        default=48,
        gt=0,
        description="`maintenance_recency` warns when a table in need had no completed maintenance for so many hours.",
    )
    error_hours: float | None = Field(
        default=168, gt=0, description="`maintenance_recency` fails after so many. `null`: never."
    )
    warn_debt: float | None = Field(default=40, gt=0, le=100, description="`debt` warns from such a debt score.")
    error_debt: float | None = Field(
        default=75, gt=0, le=100, description="`debt` fails from such a score. `null`: never."
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for name in ("excess_files", "delete_files", "snapshots", "hours", "debt"):
            warn, error = getattr(self, f"warn_{name}"), getattr(self, f"error_{name}")
            if warn is not None and error is not None and error < warn:
                raise ValueError(f"error_{name} ({error:g}) is below warn_{name} ({warn:g})")
        return self


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check says of a table. ``error``: worse than a warning, when it did not pass."""

    table: TableId
    name: CheckName
    passed: bool
    error: bool
    text: str
    numbers: Mapping[str, float] = field(default_factory=dict)


class _Measure(NamedTuple):
    """A check of one number: name, metric, its thresholds' name in the policy, words for it, what to do."""

    name: CheckName
    metric: str
    threshold: str
    noun: str
    rest: str
    advice: str


_MEASURES: Mapping[str, _Measure] = {
    measure.name: measure
    for measure in (
        _Measure(
            "file_count",
            "excess_files",
            "excess_files",
            "file",
            " could be saved",
            "Run compaction; if it runs already, look at its last runs, its windows and budgets.",
        ),
        _Measure(
            "delete_files",
            "delete_files",
            "delete_files",
            "delete file",
            "",
            "Every read applies them; run compaction, which folds them in.",
        ),
        _Measure(
            "snapshots",
            "snapshots",
            "snapshots",
            "snapshot",
            "",
            "Every commit writes their list anew; run retention, or keep fewer days. What a branch holds stays.",
        ),
        _Measure(
            "debt",
            "debt_score",
            "debt",
            "point",
            " of debt",
            "`aurum explain` says what it is made of and what the planner waits for.",
        ),
    )
}


def names_of(policy: BaseModel, tables: int) -> tuple[CheckName, ...]:
    """The checks that a table with this policy has in a fleet of so many tables."""
    named = cast(ChecksPolicy, policy).names
    if named is not None:
        return tuple(name for name in NAMES if name in named)
    return NAMES if tables <= LARGE_FLEET else ("debt",)


def all_verdicts(
    examined: Sequence[Examined],
    wanted: Mapping[TableId, Sequence[CheckName]],
    policy: PolicyLookup,
    completed: Mapping[TableId, datetime] | None,
    now: datetime,
) -> list[Verdict]:
    """The wanted checks of tables that were looked at. ``completed``: as for :func:`verdicts_of`."""
    return [
        verdict
        for one in examined
        if (names := wanted.get(one[0].table))
        for verdict in verdicts_of(one, cast(ChecksPolicy, policy(one[0].table, CHECKS)), completed, now, names)
    ]


def last_completed(facts: Mapping[tuple[str, str], RunFacts]) -> dict[TableId, datetime]:
    """When maintenance of any kind last completed on each table that had one."""
    newest: dict[TableId, datetime] = {}
    for (name, _), fact in facts.items():
        if fact.last_completed is not None:
            table = TableId.parse(name)
            newest[table] = max(fact.last_completed, newest.get(table, fact.last_completed))
    return newest


def verdicts_of(
    examined: Examined,
    policy: ChecksPolicy,
    completed: Mapping[TableId, datetime] | None,
    now: datetime,
    names: Sequence[CheckName] = NAMES,
) -> Iterator[Verdict]:
    """What each of the checks says. ``completed``: :func:`last_completed`, None when the history does not answer.

    A table that could not be measured is warned of by all its checks; a number that its engine does not
    tell passes and says so.
    """
    health, debt, decisions = examined
    for name in names:
        if health.problem is not None:
            problem = health.problem
            text = f"not measured: {problem.detail or problem.title}"
            yield Verdict(health.table, name, False, False, f"{text} {problem.hint}" if problem.hint else text)
        elif name == "maintenance_recency":
            yield _recency(health, decisions, policy, completed, now)
        else:
            yield _number(_MEASURES[name], health, debt, policy)


def _number(kind: _Measure, health: TableHealth, debt: float, policy: ChecksPolicy) -> Verdict:
    value = debt if kind.name == "debt" else health.metrics.get(kind.metric)
    if value is None:
        return Verdict(health.table, kind.name, True, False, f"the engine does not tell {kind.metric} of this table")
    return _judged(health.table, kind, value, policy, {kind.metric: value})


def _judged(
    table: TableId, kind: _Measure, value: float, policy: ChecksPolicy, numbers: Mapping[str, float]
) -> Verdict:
    warn, error = getattr(policy, f"warn_{kind.threshold}"), getattr(policy, f"error_{kind.threshold}")
    limits = {f"{level}_{kind.threshold}": float(limit) for level, limit in (("warn", warn), ("error", error)) if limit}
    crossed = [limit for limit in (error, warn) if limit is not None and value >= limit]
    told = f"{_plain(value)} {kind.noun}{'' if value == 1 else 's'}{kind.rest}"
    text = f"{told}, the limit is {_plain(crossed[0])}. {kind.advice}" if crossed else told
    bad = error is not None and value >= error
    return Verdict(table, kind.name, not crossed, bad, text, {**numbers, **limits})


def _recency(
    health: TableHealth,
    decisions: Sequence[Decision],
    policy: ChecksPolicy,
    completed: Mapping[TableId, datetime] | None,
    now: datetime,
) -> Verdict:
    name: CheckName = "maintenance_recency"
    if completed is None:
        return Verdict(health.table, name, False, False, "the history store does not answer; `aurum doctor` says why")
    last = completed.get(health.table)
    hours = None if last is None else max(0.0, (now - last).total_seconds() / 3600)
    numbers = {} if hours is None else {"hours_since_maintenance": round(hours, 2)}
    if healthy(decisions):
        return Verdict(health.table, name, True, False, "nothing is due", numbers)
    due = closest(decisions)
    needs = next((one for one in decisions if one.act), due)
    why = f"{needs.operation}: {needs.reason}" if needs else "it is in need"
    advice = f"{why}. Is the sensor or a schedule switched on? Has its last run failed?"
    if hours is None:
        off = policy.warn_hours is None and policy.error_hours is None
        return Verdict(health.table, name, off, False, f"no maintenance of it has completed yet. {advice}", numbers)
    kind = _Measure(name, "", "hours", "hour", " since maintenance last completed", advice)
    return _judged(health.table, kind, round(hours, 1), policy, numbers)


def _plain(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
