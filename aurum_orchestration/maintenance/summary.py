"""What ``aurum maintenance`` prints: one object per operation, over all tables it was done to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from aurum_orchestration.errors import ProblemDetail
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.interfaces import MaintenanceResult, MaintenanceStatus
from aurum_orchestration.maintenance.metrics import METRICS
from aurum_orchestration.maintenance.planner.words import count
from aurum_orchestration.maintenance.shapes import Shape

_WORST_FIRST = (
    MaintenanceStatus.FAILED,
    MaintenanceStatus.CANCELLED,
    MaintenanceStatus.COMPLETED,
    MaintenanceStatus.PLANNED,
    MaintenanceStatus.SKIPPED,
)


_WITHIN_DATABASE = frozenset({"bloat_bytes", "live_bytes", "unused_index_bytes", "duplicate_index_bytes"})
"""What reports tell of a table and, with it, of its database."""

_OF_DATABASE = frozenset({"database_bytes", "cache_hit_ratio"})
"""What the report on each table tells of its database."""


class _Counting(BaseModel):
    """Counts stand beside the other keys, under the names of docs/metrics.md."""

    model_config = ConfigDict(frozen=True, extra="allow", json_schema_serialization_defaults_required=True)
    __pydantic_extra__: dict[str, int | float]


class TableSummary(_Counting):
    """One table, or one group of rules, in the ``details`` of an operation, with its own counts."""

    status: MaintenanceStatus
    message: str = Field(description="What was done and why, or why nothing was.")


class OperationSummary(_Counting):
    """One operation over all tables, with the counts added up: ``files_rewritten``, ``rows_deleted``, ...

    Shares are not added up, and what a database's report tells is not counted again by table.
    """

    status: MaintenanceStatus = Field(
        description="failed or cancelled when one table was, else completed, else planned, else skipped."
    )
    operation: str
    message: str = Field(description="How many tables ended how, or why there was nothing to do.")
    details: dict[str, TableSummary] = Field(
        description="By table id; of cleanup, logs and sessions by title of the rule group, with deleted and days."
    )
    errors: list[ProblemDetail] = Field(description="What went wrong, with its table.")
    warnings: list[str] = Field(
        default_factory=list,
        description="What stands in the way and what to look at, such as long-running queries, each once.",
    )

    @classmethod
    def of(cls, operation: str, results: Sequence[MaintenanceResult], nothing: str = "") -> OperationSummary:
        """The summary of an operation's results; ``nothing`` says why there are none."""
        statuses = Counter(result.status for result in results)
        status = next((one for one in _WORST_FIRST if statuses[one]), MaintenanceStatus.SKIPPED)
        told = ", ".join(f"{statuses[one]:,} {one}" for one in _WORST_FIRST if statuses[one])
        return cls(
            status=status,
            operation=operation,
            message=f"{count(len(results), 'table')}: {told}" if results else nothing,
            details=_details(results),
            errors=[result.problem for result in results if result.problem is not None],
            warnings=list(dict.fromkeys(warning for result in results for warning in result.warnings)),
            **_numbers(_totals(results)),
        )


class SummaryMetadata(BaseModel):
    """When it was, how long it took, and on what."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    timestamp: datetime = Field(description="When it began, in UTC.")
    duration_seconds: float
    dry_run: bool
    database: str | list[str] = Field(description="Name of the backend; a list when it was not exactly one.")


class MaintenanceSummary(Shape):
    """What ``aurum maintenance`` did. Each further key is the name of an operation, in the order they were done."""

    model_config = ConfigDict(frozen=True, extra="allow", json_schema_serialization_defaults_required=True)
    __pydantic_extra__: dict[str, OperationSummary]

    metadata: SummaryMetadata

    @property
    def operations(self) -> Mapping[str, OperationSummary]:
        """The operations by name."""
        return self.__pydantic_extra__


def _details(results: Sequence[MaintenanceResult]) -> dict[str, TableSummary]:
    """By rule group where a result has them, and then of tables, which groups are not for, those that failed."""
    found: dict[str, TableSummary] = {}
    by_group = any("group" in step.detail for result in results for step in result.steps or ())
    for result in results:
        groups = [step for step in result.steps or () if "group" in step.detail]
        if not groups and (not by_group or result.problem is not None):
            found[result.config.target_table] = _table(result)
        for step in groups:
            # a group has two steps when it has an archive of its own: its days are those after which rows are deleted
            title, detail = step.detail["group"], step.detail
            before = found.get(title)
            deleted = int(detail.get("rows_deleted") or 0) + (_count(before, "deleted") if before else 0)
            counts = {"deleted": deleted, "days": detail["days"]}
            message = f"{before.message} {step.summary}" if before else step.summary
            found[title] = TableSummary(status=result.status, message=message, **_numbers(counts))
    return found


def _totals(results: Sequence[MaintenanceResult]) -> dict[str, float]:
    sums: dict[str, float] = {}
    by_database = {(one.backend, name) for one in results if _is_of_database(one) for name in one.metrics}
    told: Counter[str] = Counter()
    once: set[tuple[str, str]] = set()
    for result in results:
        for name, value in _finite(result.metrics).items():
            key = (result.backend, name)
            if name in _WITHIN_DATABASE and key in by_database and not _is_of_database(result):
                continue
            if name in _OF_DATABASE and key in once:
                continue
            once.add(key)
            told[name] += 1
            sums[name] = sums.get(name, 0.0) + value
    return {name: value for name, value in sums.items() if told[name] == 1 or not _is_share(name)}


def _is_of_database(result: MaintenanceResult) -> bool:
    return len(TableId.parse(result.config.target_table).parts) == 1


def _is_share(name: str) -> bool:
    known = METRICS.get(name)
    return known is not None and known.unit == "share"


def _count(summary: TableSummary, name: str) -> int:
    return int((summary.__pydantic_extra__ or {}).get(name, 0))


def _table(result: MaintenanceResult) -> TableSummary:
    return TableSummary(status=result.status, message=result.reason, **_numbers(_finite(result.metrics)))


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _numbers(metrics: Mapping[str, float]) -> dict[str, int | float]:
    return {name: int(value) if float(value).is_integer() else value for name, value in metrics.items()}
