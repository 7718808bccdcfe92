"""What is told of a result or a run, to whom. Pure: the history writes it down."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aurum_orchestration.errors import redact
from aurum_orchestration.fleet.notifications import Destination
from aurum_orchestration.history.records import Notice, Notices
from aurum_orchestration.maintenance.interfaces import MaintenanceResult, MaintenanceStatus

_LONGEST = 1000
"""Characters of one text at most: a channel refuses messages that are too long."""


@dataclass(frozen=True, slots=True)
class Telling:
    """What one run or batch has to tell. ``origin`` says in a few words whose run it is."""

    destinations: Sequence[Destination]
    origin: str
    group: str = field(default_factory=lambda: uuid.uuid4().hex)

    def of(self, result: MaintenanceResult) -> Notices:
        """The notices of one result: one for each destination whose rule wants it."""
        config = result.config
        if config.dry_run or result.status in {MaintenanceStatus.RUNNING, MaintenanceStatus.PENDING}:
            return Notices(self.group)
        operation, table = str(config.operation_type), config.target_table
        wanted = [one.name for one in self.destinations if one.rule.wants(result.status.value, operation, table)]
        return Notices(self.group, _for(wanted, about_result(result, self.origin)) if wanted else ())

    def of_all(self, results: Iterable[MaintenanceResult]) -> Notices:
        """The notices of several results."""
        return Notices(self.group, [item for result in results for item in self.of(result).items])


def about_result(result: MaintenanceResult, origin: str) -> dict[str, str]:
    """What happened, to which table, and what to do: the texts of one notice."""
    problem = result.problem
    told = {
        "status": result.status.value,
        "operation": str(result.config.operation_type),
        "table": result.config.target_table,
        "what": (problem.detail or problem.title) if problem else "; ".join([result.reason, *result.warnings]),
        "do": (problem.hint or "") if problem else "",
        "undo": result.undo or "",
        "operation_id": result.operation_id,
        "origin": origin,
    }
    return _shortened(told)


RUNS = "dagster-runs"
"""Group of the runs that failed as a whole: those of one host that went down are one message."""


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A run that failed as a whole. ``tables`` are the globs it was asked for, as far as they are known."""

    run_id: str
    job: str
    operation: str
    tables: Sequence[str]
    what: str
    do: str


def of_run(destinations: Iterable[Destination], run: FailedRun) -> Notices:
    """The notices of a failed run: to all that want failures and are not about other tables or operations."""
    wanted = [
        one.name
        for one in destinations
        if "failed" in one.rule.on
        and one.rule.covers_operation(run.operation)
        and (not run.tables or any("*" in glob or one.rule.covers_table(glob) for glob in run.tables))
    ]
    told = {
        "status": MaintenanceStatus.FAILED.value,
        "operation": run.operation,
        "table": ", ".join(run.tables[:5]) + (f" and {len(run.tables) - 5} more" if len(run.tables) > 5 else ""),
        "what": run.what,
        "do": run.do,
        "run_id": run.run_id,
        "origin": f"Dagster run {run.run_id} of the job {run.job}",
    }
    return Notices(RUNS, _for(wanted, _shortened(told)))


def _for(destinations: Iterable[str], about: Mapping[str, str]) -> list[Notice]:
    return [Notice(name, about) for name in destinations]


def _shortened(texts: Mapping[str, str]) -> dict[str, str]:
    """Without what is empty, without secrets, and none too long."""
    cleaned = {name: redact(text) for name, text in texts.items() if text}
    return {name: text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…" for name, text in cleaned.items()}
