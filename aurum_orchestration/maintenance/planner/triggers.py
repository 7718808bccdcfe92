"""When an operation is worth running, and what it would win and take: one small function for each operation.

A trigger sees numbers only. Everything that is the same for all operations (refusals, policy switches,
cooldown, back-off) is in :mod:`~aurum_orchestration.maintenance.planner.decide`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

from pydantic import BaseModel

from aurum_orchestration.maintenance.interfaces import Cost, Gain, OperationType
from aurum_orchestration.maintenance.operations.compaction import MIB, CompactionPolicy
from aurum_orchestration.maintenance.planner import database_files, databases, reclaim, upkeep
from aurum_orchestration.maintenance.planner.assessment import Assessment, Trigger
from aurum_orchestration.maintenance.planner.binpack import SMALL_SHARE
from aurum_orchestration.maintenance.planner.debt import deletes_points, files_points, number
from aurum_orchestration.maintenance.planner.facts import GIB, RunFacts
from aurum_orchestration.maintenance.planner.words import count, size

START_SECONDS = 0.5
SECONDS_PER_FILE = 0.003
SECONDS_PER_GIB = 10.0
"""What a rewrite is taken to cost until the history knows better: start, each file opened, each GiB moved."""

OVERHEAD_BYTES = 8 * 1024
"""What a data file of 19 columns takes without a row (measured): what each file saved frees once snapshots expire."""


def compaction(metrics: Mapping[str, float], policy: BaseModel, facts: RunFacts) -> Assessment | None:
    """Acts at ``trigger_excess_files`` files that could be saved; an unfinished run down to ``clear_excess_files``.

    Also when deletes weigh on the table: ``max_delete_files`` of them, or ``max_deleted_ratio`` of the rows.
    """
    if metrics.get("excess_files") is None:
        return None
    rules = cast(CompactionPolicy, policy)
    excess = number(metrics, "excess_files")
    carry_on = facts.engaged and rules.clear_excess_files < rules.trigger_excess_files
    threshold = max(1, rules.clear_excess_files) if carry_on else rules.trigger_excess_files
    gain, cost = Gain(), Cost()
    if excess:
        rewritten = _bytes_to_rewrite(metrics, excess, rules.target_file_size_mb * MIB)
        freed = min(excess * OVERHEAD_BYTES, rewritten / 2)
        gain = Gain(debt_score=round(files_points(metrics), 2), files=excess, bytes=freed)
        cost = Cost(seconds=_seconds(2 * rewritten, metrics, facts), bytes=2 * rewritten)
    if excess < threshold:
        if _deletes_weigh(metrics, rules):
            return _deletes(metrics, gain, facts)
        return Assessment(False, f"{count(excess, 'file')} could be saved, acts at {threshold:,}", gain, cost)
    return Assessment(True, _numbers(metrics, excess, rules.target_file_size_mb, carry_on=carry_on), gain, cost)


def _deletes_weigh(metrics: Mapping[str, float], rules: CompactionPolicy) -> bool:
    """Whether a plan would fold deletes in whatever the size of the files: the same rules, for the whole table."""
    files, rows = number(metrics, "delete_files"), number(metrics, "rows")
    return files >= rules.max_delete_files or bool(
        files and rows and _deleted_rows(metrics) / rows >= rules.max_deleted_ratio
    )


def _deleted_rows(metrics: Mapping[str, float]) -> float:
    return number(metrics, "position_delete_rows") + number(metrics, "equality_delete_rows")


def _deletes(metrics: Mapping[str, float], small: Gain, facts: RunFacts) -> Assessment:
    """Folding deletes in rewrites the files that they touch: at most all of them."""
    moved = 2 * number(metrics, "data_bytes")
    rows = number(metrics, "rows")
    share = min(1.0, _deleted_rows(metrics) / rows) if rows else 0.0
    return Assessment(
        True,
        f"{count(number(metrics, 'delete_files'), 'delete file')} with {_deleted_rows(metrics):,.0f} entries weigh on "
        f"{rows:,.0f} rows; compaction would fold them in",
        Gain(
            debt_score=round(small.debt_score + deletes_points(metrics), 2),
            files=small.files,
            bytes=small.bytes + share * number(metrics, "data_bytes"),
        ),
        Cost(seconds=_seconds(moved, metrics, facts), bytes=moved),
    )


def _first_of(*triggers: Trigger) -> Trigger:
    """What the first trigger says that is meant for this kind of table."""

    def trigger(metrics: Mapping[str, float], policy: BaseModel, facts: RunFacts) -> Assessment | None:
        for one in triggers:
            if (found := one(metrics, policy, facts)) is not None:
                return found
        return None

    return trigger


TRIGGERS: Mapping[str, Trigger] = {
    OperationType.COMPACTION.value: _first_of(databases.compaction, compaction),
    OperationType.MANIFESTS.value: upkeep.manifests,
    OperationType.BACKUP.value: _first_of(databases.whole_database, upkeep.by_the_calendar),
    OperationType.BLOAT.value: upkeep.by_the_calendar,
    OperationType.STATS.value: _first_of(databases.stats, upkeep.by_the_calendar),
    OperationType.RETENTION.value: _first_of(databases.retention, reclaim.retention),
    OperationType.VACUUM.value: _first_of(database_files.vacuum, databases.vacuum, reclaim.vacuum),
    OperationType.REINDEX.value: _first_of(database_files.reindex, databases.reindex),
    OperationType.CLEANUP.value: databases.groups_of(OperationType.CLEANUP.value),
    OperationType.LOGS.value: databases.groups_of(OperationType.LOGS.value),
    OperationType.SESSIONS.value: databases.groups_of(OperationType.SESSIONS.value),
    OperationType.VIEWS.value: databases.views,
}
"""The operations that the planner starts by itself. A trigger goes by the metrics that its kind of table has."""


def _numbers(metrics: Mapping[str, float], excess: float, target_mb: int, *, carry_on: bool) -> str:
    files = max(excess + 1, number(metrics, "data_files"))
    small = max(excess + 1, number(metrics, "small_files"))
    limit = size(target_mb * MIB * SMALL_SHARE)
    start = "carrying on with an unfinished run: " if carry_on else ""
    most, about = ("up to ", "about ") if metrics.get("exact") == 0 else ("", "")
    return (
        f"{start}{most}{small:,.0f} of {files:,.0f} files are smaller than {limit}; "
        f"compaction would leave {about}{files - excess:,.0f}"
    )


def _bytes_to_rewrite(metrics: Mapping[str, float], excess: float, target: float) -> float:
    """Bytes of the files that would be rewritten: as measured, else the lowest of what they cannot exceed."""
    if (measured := metrics.get("small_bytes")) is not None and measured >= 0:
        return number(metrics, "small_bytes")
    small = max(excess + 1, number(metrics, "small_files"))
    return min(
        number(metrics, "data_bytes"),
        small * SMALL_SHARE * target,
        (small - excess) * (2 - SMALL_SHARE) * target,
    )


def _seconds(moved: float, metrics: Mapping[str, float], facts: RunFacts) -> float:
    if facts.seconds_per_gib is not None and facts.seconds_per_gib > 0:
        seconds = facts.seconds_per_gib * moved / GIB
        if math.isfinite(seconds):
            return seconds
    return START_SECONDS + SECONDS_PER_FILE * number(metrics, "small_files") + SECONDS_PER_GIB * moved / GIB
