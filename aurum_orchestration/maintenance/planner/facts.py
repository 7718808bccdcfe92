"""What the history knows about one operation on one table, condensed to what the planner needs.

:func:`facts_of` is the definition: whoever keeps the history may compute the same in SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from aurum_orchestration.maintenance.interfaces import MaintenanceStatus

GIB = 1024**3
NEVER_STARTED = frozenset({"lease-held"})
"""Types of problems of runs that did not touch their table: they are neither failures nor runs."""

_WON = (
    "rows_deleted",
    "rows_archived",
    "dead_tuples_removed",
    "bytes_freed",
    "xids_frozen",
    "indexes_rebuilt",
    "views_refreshed",
    "tables_analyzed",
    "partitions_dropped",
    "backups_made",
)
"""Numbers of operations on databases that show a gain."""

_INTERRUPTED = frozenset({MaintenanceStatus.FAILED, MaintenanceStatus.CANCELLED})
_ENDED = _INTERRUPTED | {MaintenanceStatus.COMPLETED, MaintenanceStatus.SKIPPED}


@dataclass(frozen=True, slots=True)
class RunFacts:
    """How the last runs of one operation on one table went. Dry runs and runs that never started do not count.

    ``last_finished``, ``last_status``: end and status of the newest run; None when there was none.
    ``last_completed``: end of the newest run that completed.
    ``consecutive_failures``: newest runs in a row that failed; a cancelled run neither counts nor ends the row.
    ``consecutive_no_gain``: newest runs in a row that completed or were skipped and gained nothing
    (see :func:`gained`); a failed or cancelled run neither counts nor ends the row.
    ``seconds_per_gib``: wall seconds per GiB read plus written, over the newest completed runs that
    moved bytes; None when there is none.
    ``engaged``: the newest run left planned work undone: it failed, was cancelled, or reported
    ``groups_left`` above 0. The planner then carries on without a cooldown, down to the lower of its two thresholds.
    """

    last_finished: datetime | None = None
    last_status: MaintenanceStatus | None = None
    last_completed: datetime | None = None
    consecutive_failures: int = 0
    consecutive_no_gain: int = 0
    seconds_per_gib: float | None = None
    engaged: bool = False


NO_FACTS = RunFacts()
"""The facts of an operation that never ran."""


@dataclass(frozen=True, slots=True)
class PastRun:
    """One recorded run. ``problem`` is the problem's type, ``metrics`` the operation's numbers."""

    status: MaintenanceStatus
    finished_at: datetime
    seconds: float = 0.0
    metrics: Mapping[str, float] | None = None
    problem: str | None = None


def gained(metrics: Mapping[str, float]) -> bool:
    """True when a run left fewer files, manifests or rows than it found."""
    return (
        metrics.get("files_rewritten", 0) > metrics.get("files_added", 0)
        or metrics.get("manifests_rewritten", 0) > metrics.get("manifests_added", 0)
        or metrics.get("files_deleted", 0) > 0
        or metrics.get("files_quarantined", 0) > 0
        or metrics.get("snapshots_expired", 0) > 0
        or any(metrics.get(name, 0) > 0 for name in _WON)
    )


def facts_of(runs: Iterable[PastRun]) -> RunFacts:
    """Facts from the runs of one operation on one table, newest first. Twenty runs are plenty."""
    ended = [run for run in runs if run.status in _ENDED and run.problem not in NEVER_STARTED]
    if not ended:
        return NO_FACTS
    newest = ended[0]
    completed = [run for run in ended if run.status is MaintenanceStatus.COMPLETED]
    return RunFacts(
        last_finished=as_utc(newest.finished_at),
        last_status=newest.status,
        last_completed=as_utc(completed[0].finished_at) if completed else None,
        consecutive_failures=_failures_in_a_row(ended),
        consecutive_no_gain=_no_gain_in_a_row(ended),
        seconds_per_gib=_rate(completed[:5]),
        engaged=newest.status in _INTERRUPTED or (newest.metrics or {}).get("groups_left", 0) > 0,
    )


def as_utc(moment: datetime) -> datetime:
    """``moment`` with a time zone: one without is taken as UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _failures_in_a_row(runs: Iterable[PastRun]) -> int:
    count = 0
    for run in runs:
        if run.status is MaintenanceStatus.FAILED:
            count += 1
        elif run.status is not MaintenanceStatus.CANCELLED:
            break
    return count


def _no_gain_in_a_row(runs: Iterable[PastRun]) -> int:
    count = 0
    for run in runs:
        if run.status in _INTERRUPTED:
            continue
        if gained(run.metrics or {}):
            break
        count += 1
    return count


def _rate(completed: Iterable[PastRun]) -> float | None:
    seconds = moved = 0.0
    for run in completed:
        metrics = run.metrics or {}
        size = metrics.get("bytes_rewritten", 0.0) + metrics.get("bytes_added", 0.0)
        if size > 0:
            seconds, moved = seconds + run.seconds, moved + size
    return seconds / (moved / GIB) if moved else None
