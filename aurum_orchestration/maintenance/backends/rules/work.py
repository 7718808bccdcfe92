"""Plans and carries out the chores of an operation on a database that a :class:`RuleEngine` stands for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from aurum_orchestration.errors import AurumError, EngineError, TableNotFoundError, UnsupportedError
from aurum_orchestration.fleet.rule_groups import RuleGroups
from aurum_orchestration.maintenance.backends.reports import DirectUnit
from aurum_orchestration.maintenance.backends.rules.chores import (
    OPERATIONS,
    Chore,
    chores_of,
    chosen_groups,
)
from aurum_orchestration.maintenance.backends.rules.clock import cutoff
from aurum_orchestration.maintenance.backends.rules.pace import Pace
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    PlanStep,
    RunContext,
    UnitOutcome,
    Verification,
)
from aurum_orchestration.maintenance.operations.rule_groups import RuleGroupParameters

STUCK_AFTER = 3
"""So many batches in a row that find old rows and delete none: something in the database keeps them."""

RISKS = {
    "delete": "The rows are gone for good: old ones by the database's clock and no others, batch by batch.",
    "move": "None for the rows: each transaction copies and deletes the same ones, or does neither.",
    "export": "None for the rows: they are on storage and counted before their deletion is committed.",
}


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a chore would do now. ``rows``: that are old, None when counting takes too long. ``sql``: of one batch.

    ``leftovers``: files of killed runs that have to be settled.
    """

    rows: int | None
    sql: str
    leftovers: int = 0
    warnings: Sequence[str] = ()
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Taken:
    """One committed batch. ``picked``: old rows that nobody had locked. ``more``: whether another is worth a try.

    ``counted``: rows that left the table in its transaction, by whatever, as the database counts; None: it does not.
    """

    deleted: int
    picked: int
    more: bool
    archived: int = 0
    counted: int | None = None


Take = Callable[[int], Taken]
"""Takes a batch of at most so many rows, in a transaction of its own that is committed when it returns."""


class RuleEngine(Protocol):
    """What a family of databases brings. Errors are typed; rows that others have locked are passed over."""

    def now(self) -> datetime:
        """The database's clock, aware."""
        ...

    def look(self, chore: Chore, before: datetime) -> Outlook:
        """What the chore would do, writing nothing. Raises when it cannot be done."""
        ...

    def batches(
        self, chore: Chore, before: datetime, run: RunContext, measured: dict[str, float], warnings: list[str]
    ) -> AbstractContextManager[Take]:
        """Begin: what is left of killed runs is settled. At the end ``measured`` gets further metrics."""
        ...


def plan_rules(
    engine: RuleEngine, config: RuleGroups, table: Sequence[str] | None, parameters: RuleGroupParameters
) -> tuple[str, list[PlanStep], list[str]]:
    """Reason, steps and warnings of the chores: of one table, given by its name's parts, or of all.

    A group that cannot be done is a warning while another can. Raises its error when none can.
    """
    operation = OPERATIONS[type(parameters)]
    now = engine.now()
    steps: list[PlanStep] = []
    warnings: list[str] = []
    failed: list[AurumError] = []
    groups = chosen_groups(config, operation, table, parameters.groups)
    for group in groups:
        try:
            chores = chores_of(group, operation, parameters.batch_size)
            looked = [(one, cutoff(now, one.days)) for one in chores]
            seen = [(chore, before, engine.look(chore, before)) for chore, before in looked]
        except (UnsupportedError, TableNotFoundError) as error:
            failed.append(error)
            warnings.append(" ".join(filter(None, (f"{group.title} is left out: {error.detail}", error.hint))))
            continue
        for chore, before, outlook in seen:
            warnings += [f"{group.title}: {text}" for text in outlook.warnings]
            if outlook.rows != 0 or outlook.leftovers or _gets_rows(chore, seen):
                steps.append(step_of(len(steps) + 1, chore, before, outlook))
    if len(failed) == len(groups):
        raise failed[0]
    total = sum(step.detail["rows"] or 0 for step in steps)
    told = f"{total:,} rows of {len(groups):,} rule groups are past their time"
    if not steps:
        told = f"no row of {len(groups):,} rule groups is past its time"
    return told, steps, warnings


def _gets_rows(chore: Chore, seen: Sequence[tuple[Chore, datetime, Outlook]]) -> bool:
    """Whether rows are moved into the table right before, some of which may be old enough to leave it again."""
    return any(one.archive == chore.table and outlook.rows != 0 for one, _, outlook in seen)


def step_of(number: int, chore: Chore, before: datetime, outlook: Outlook) -> PlanStep:
    """The step of a plan that carries a chore out. A chore without a title belongs to no rule group."""
    rows = "Rows" if outlook.rows is None else f"{outlook.rows:,} rows"
    target = {
        "delete": "are deleted",
        "move": f"are moved to {'.'.join(chore.archive or ())}",
        "export": f"are written to {chore.path} and deleted",
    }[chore.action]
    age = f"older than {chore.days:g} days by {chore.column}" if chore.days else f"past their {chore.column}"
    return PlanStep(
        number=number,
        action=chore.action,
        summary=f"{_prefix(chore)}{rows} of {chore.name} {age} {target}.",
        risk=RISKS[chore.action],
        detail={
            **({"group": chore.title} if chore.title else {}),
            "days": chore.days,
            "rows": outlook.rows,
            "before": before.astimezone(UTC).isoformat(),
            "sql": outlook.sql,
            "chore": chore.as_json(),
            **outlook.detail,
        },
    )


def _prefix(chore: Chore) -> str:
    return f"{chore.title}: " if chore.title else ""


class RulesExecution:
    """The chores of a plan, one after the other."""

    workers = 1

    def __init__(self, plan: MaintenancePlan, engine: RuleEngine) -> None:
        self._plan, self._engine = plan, engine

    def units(self) -> Iterator[ChoreUnit]:
        """One unit per step. What a unit committed before it failed counts; the failure is raised after it."""
        given = self._plan.parameters
        for step in self._plan.steps:
            unit = ChoreUnit(step, self._engine, float(given["pause_ms"]), given["max_rows"])
            yield unit
            if unit.failure is not None:
                raise unit.failure


class ChoreUnit(DirectUnit):
    """One chore: batches until no old row is left, each committed by itself.

    ``failure``: what ended it after it had committed something; that much is its outcome.
    """

    verify_first = False

    def __init__(self, step: PlanStep, engine: RuleEngine, pause_ms: float, max_rows: int | None) -> None:
        super().__init__(step)
        self._engine, self._pause_ms, self._max_rows = engine, pause_ms, max_rows
        self._chore = Chore.of_json(step.detail["chore"])
        self._deleted = self._archived = 0
        self._counted: int | None = 0
        self.failure: AurumError | None = None

    def commit(self, run: RunContext) -> UnitOutcome:
        """Delete, move or export. Raises what went wrong before the first batch."""
        before = datetime.fromisoformat(self.step.detail["before"])
        measured: dict[str, float] = {}
        warnings: list[str] = []
        batches = 0
        try:
            with self._engine.batches(self._chore, before, run, measured, warnings) as take:
                batches = self._go(take, run)
        except AurumError as error:
            if not self._deleted:
                raise
            self.failure = error
        archived = {} if self._chore.action == "delete" else {"rows_archived": float(self._archived)}
        self.step = self.step.model_copy(
            update={"detail": {**self.step.detail, "rows_deleted": self._deleted, **archived}}
        )
        rows = float(self._deleted)
        return UnitOutcome(
            metrics={"rows_processed": rows, "rows_deleted": rows, "batches": float(batches), **archived, **measured},
            undo=self._undo(),
            warnings=[f"{_prefix(self._chore)}{text}" for text in warnings],
        )

    def _go(self, take: Take, run: RunContext) -> int:
        pace = Pace(self._chore.batch, self._pause_ms)
        total = self.step.detail["rows"]
        batches = stuck = 0
        while self._max_rows is None or self._deleted < self._max_rows:
            run.check()
            run.still_mine()
            rows = pace.rows if self._max_rows is None else min(pace.rows, self._max_rows - self._deleted)
            started = time.monotonic()
            taken = take(rows)
            seconds = time.monotonic() - started
            self._deleted += taken.deleted
            self._archived += taken.archived
            self._count(taken)
            batches += taken.deleted > 0
            run.progress(self._deleted, max(total or 0, self._deleted), "rows")
            if not taken.more:
                break
            stuck = stuck + 1 if taken.picked and not taken.deleted else 0
            if stuck >= STUCK_AFTER:
                raise EngineError(
                    f"old rows of {self._chore.name} are found, but deleting them deletes none",
                    hint="Look for a trigger, rule or policy on the table that keeps its rows.",
                )
            pace.rest(run, taken.deleted, seconds)
        return batches

    def _count(self, taken: Taken) -> None:
        known = self._counted is not None and (taken.counted is not None or not taken.deleted)
        self._counted = (self._counted or 0) + (taken.counted or 0) if known else None

    def verify(self, run: RunContext) -> Verification | None:  # noqa: ARG002 - the base's signature
        """Old rows that were deleted against what left the table, and what reached the archive."""
        archived = None if self._chore.action == "delete" else self._archived
        proofs = {"rows-counted-by-database": self._counted, "rows-archived": archived}
        found = {method: rows for method, rows in proofs.items() if rows is not None}
        if not found:
            return None
        return Verification(
            method="+".join(found),
            rows_before=self._deleted,
            rows_after=next((rows for rows in found.values() if rows != self._deleted), self._deleted),
            checksum_equal=all(rows == self._deleted for rows in found.values()),
        )

    def take_back(self, run: RunContext) -> None:
        """Never needed: each transaction compares its own numbers before it is committed."""

    def _undo(self) -> str:
        match self._chore.action:
            case "move":
                return f"INSERT the rows from {'.'.join(self._chore.archive or ())} again, and delete them there"
            case "export":
                return f"load the Parquet files under {self._chore.path} into {self._chore.name}"
        return "nothing takes deleted rows back but a backup"
