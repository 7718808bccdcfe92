"""Checks of tables: a number of each against its thresholds, with what to do. Pure.

They complain later than the planner acts: where one fails, maintenance is off, failing or not enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple, Self, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.interfaces import Decision, PolicyLookup, TableHealth
from aurum_orchestration.maintenance.operations.compaction import MIB
from aurum_orchestration.maintenance.planner.decide import closest, healthy
from aurum_orchestration.maintenance.planner.facts import RunFacts

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.survey import Examined

CHECKS = "checks"
"""Name of the policy section that holds the thresholds; it stands beside the operations' sections."""

CheckName = Literal[
    "file_count",
    "delete_files",
    "snapshots",
    "bloat",
    "xid_age",
    "autovacuum_debt",
    "invalid_indexes",
    "unused_indexes",
    "long_transactions",
    "maintenance_recency",
    "debt",
]
Family = Literal["files", "table", "database"]
"""What is checked: a table of files (Iceberg), a table of a database, a database."""

NAMES: tuple[CheckName, ...] = ("file_count", "delete_files", "snapshots", "maintenance_recency", "debt")
"""The checks of a table of files."""

BY_FAMILY: Mapping[Family, tuple[CheckName, ...]] = {
    "files": NAMES,
    "table": (
        "bloat",
        "xid_age",
        "autovacuum_debt",
        "invalid_indexes",
        "unused_indexes",
        "maintenance_recency",
        "debt",
    ),
    "database": ("long_transactions", "maintenance_recency", "debt"),
}
_DATABASES = frozenset({"postgres", "timescale"})

LARGE_FLEET = 1_000
"""Tables up to which a fleet has all checks unless its policies name them: each costs loading time (docs/adr/0006)."""


class ChecksPolicy(BaseModel):
    """The ``checks`` section of a policy: from which numbers on a table's checks warn and fail."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[CheckName, ...] | None = Field(
        default=None,
        description="Checks that the table has in Dagster, of those that its kind of table may have. Left out: all of "
        "them in a fleet of up to 1,000 tables, `debt` in a larger one.",
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
    warn_bloat_percent: float | None = Field(
        default=40, gt=0, le=100, description="PostgreSQL: `bloat` warns from such a share of unused space."
    )
    error_bloat_percent: float | None = Field(
        default=75, gt=0, le=100, description="PostgreSQL: `bloat` fails from such a share. `null`: never."
    )
    min_bloat_mb: float = Field(
        default=64, ge=0, description="PostgreSQL: `bloat` passes over tables with less unused space than that."
    )
    warn_xid_percent: float | None = Field(
        default=100, gt=0, description="PostgreSQL: `xid_age` warns from so many % of autovacuum_freeze_max_age."
    )
    error_xid_percent: float | None = Field(
        default=200, gt=0, description="PostgreSQL: `xid_age` fails from so many %. `null`: never."
    )
    warn_autovacuum_debt: float | None = Field(
        default=3,
        gt=0,
        description="PostgreSQL: `autovacuum_debt` warns from so many times the dead rows at which autovacuum comes.",
    )
    error_autovacuum_debt: float | None = Field(
        default=20, gt=0, description="PostgreSQL: `autovacuum_debt` fails from so many times. `null`: never."
    )
    warn_invalid_indexes: int | None = Field(
        default=1, ge=1, description="PostgreSQL: `invalid_indexes` warns from so many of them."
    )
    error_invalid_indexes: int | None = Field(
        default=None, ge=1, description="PostgreSQL: `invalid_indexes` fails from so many. `null`: never."
    )
    warn_unused_index_mb: float | None = Field(
        default=256,
        gt=0,
        description="PostgreSQL: `unused_indexes` warns from such a size of indexes that no query used.",
    )
    error_unused_index_mb: float | None = Field(
        default=None, gt=0, description="PostgreSQL: `unused_indexes` fails from such a size. `null`: never."
    )
    warn_transaction_seconds: float | None = Field(
        default=1800, gt=0, description="PostgreSQL: `long_transactions` warns when one has been open for so long."
    )
    error_transaction_seconds: float | None = Field(
        default=14400, gt=0, description="PostgreSQL: `long_transactions` fails after so long. `null`: never."
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
        thresholds = (name.removeprefix("warn_") for name in type(self).model_fields if name.startswith("warn_"))
        for name in thresholds:
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
            "bloat",
            "bloat_percent",
            "bloat_percent",
            "",
            "% of the table and its indexes are unused",
            "Look at its vacuums and at who holds dead rows back; reindex, or a rewrite where it is allowed.",
        ),
        _Measure(
            "xid_age",
            "xid_percent",
            "xid_percent",
            "",
            "% of autovacuum_freeze_max_age",
            "Run vacuum; `aurum doctor` says who holds the oldest transaction back.",
        ),
        _Measure(
            "autovacuum_debt",
            "autovacuum_debt",
            "autovacuum_debt",
            "",
            "times the dead rows at which autovacuum comes",
            "Run vacuum; look at autovacuum's settings for the table and at `aurum doctor`.",
        ),
        _Measure(
            "invalid_indexes",
            "invalid_indexes",
            "invalid_indexes",
            "invalid index",
            ", written to and never read",
            "Run reindex, or drop it.",
        ),
        _Measure(
            "unused_indexes",
            "unused_index_mb",
            "unused_index_mb",
            "",
            "MiB of indexes that no query has used",
            "`aurum report` names them. Look at replicas before one is dropped.",
        ),
        _Measure(
            "long_transactions",
            "longest_transaction_seconds",
            "transaction_seconds",
            "second",
            " since the oldest transaction began",
            "No vacuum removes what it can still see; `aurum report` says whose it is.",
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


def family_of(backend_type: str, table: TableId) -> Family:
    """What kind of thing a table of such a backend is."""
    if backend_type not in _DATABASES:
        return "files"
    return "database" if len(table.parts) == 1 else "table"


def names_of(policy: BaseModel, tables: int, family: Family = "files") -> tuple[CheckName, ...]:
    """The checks that a table with this policy has in a fleet of so many tables."""
    named, names = cast(ChecksPolicy, policy).names, BY_FAMILY[family]
    if named is not None:
        return tuple(name for name in names if name in named)
    return names if tables <= LARGE_FLEET else ("debt",)


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
    value = debt if kind.name == "debt" else _value(kind.metric, health.metrics, policy)
    if value is None:
        return Verdict(health.table, kind.name, True, False, f"the engine does not tell {kind.metric} of this table")
    return _judged(health.table, kind, value, policy, {kind.metric: value})


def _judged(
    table: TableId, kind: _Measure, value: float, policy: ChecksPolicy, numbers: Mapping[str, float]
) -> Verdict:
    warn, error = getattr(policy, f"warn_{kind.threshold}"), getattr(policy, f"error_{kind.threshold}")
    limits = {f"{level}_{kind.threshold}": float(limit) for level, limit in (("warn", warn), ("error", error)) if limit}
    crossed = [limit for limit in (error, warn) if limit is not None and value >= limit]
    told = f"{_plain(value)} {_nouns(kind.noun, value)}{kind.rest}"
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


def _value(metric: str, metrics: Mapping[str, float], policy: ChecksPolicy) -> float | None:
    """The number that a check goes by, None where the engine does not tell it."""
    match metric:
        case "bloat_percent" if "table_bytes" in metrics:
            unused = metrics.get("table_bloat_bytes", 0.0) + metrics.get("index_bloat_bytes", 0.0)
            whole = metrics["table_bytes"] + metrics.get("index_bytes", 0.0)
            return round(100 * unused / whole, 1) if whole and unused >= policy.min_bloat_mb * MIB else 0.0
        case "xid_percent" if "xid_age_share" in metrics:
            return round(100 * metrics["xid_age_share"], 1)
        case "unused_index_mb" if "unused_index_bytes" in metrics:
            return round(metrics["unused_index_bytes"] / MIB, 1)
        case _:
            return metrics.get(metric)


def _nouns(noun: str, value: float) -> str:
    if value == 1 or not noun:
        return noun
    return f"{noun}es" if noun.endswith("x") else f"{noun}s"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
