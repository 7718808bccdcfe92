"""``aurum maintenance`` as a person reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from aurum_orchestration.cli.render import words
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration.maintenance.summary import MaintenanceSummary, OperationSummary

if TYPE_CHECKING:
    from aurum_orchestration.cli.scheduling import SwitchedSchedule


_REASONS = 3
"""Reasons that are told where nothing was done, those of most tables first."""


def render_summary(summary: MaintenanceSummary) -> RenderableType:
    """A heading per operation with its counts, then what went wrong; a line at the end that sums up."""
    parts: list[RenderableType] = []
    for name, one in summary.operations.items():
        parts += _operation(name, one)
    told = summary.metadata
    where = told.database if isinstance(told.database, str) else ", ".join(told.database)
    dry = "Dry run: nothing was changed. " if told.dry_run else ""
    parts.append(Text(f"{dry}{words.safe(where) or 'no backend'}, {words.duration(told.duration_seconds)}"))
    return Group(*parts)


def render_switched(one: SwitchedSchedule) -> RenderableType:
    """What was switched on, or would be."""
    what = ", ".join(one.operations) or "what each table needs"
    done = "switched on" if one.switched_on else "would be switched on"
    off = f"To switch it off: dagster schedule stop {one.schedule} -m aurum_orchestration.definitions"
    lines = [f"{one.schedule} {done}: {one.cron} in {one.time_zone}", f"  {what}, where a backend has it"]
    return Text("\n".join([*lines, *([f"  {off}"] if one.switched_on else [])]))


def _operation(name: str, one: OperationSummary) -> Iterator[Text]:
    yield Text.assemble((f"{words.safe(name):<12}", "bold"), words.status(one.status), f"  {words.safe(one.message)}")
    if one.status is MaintenanceStatus.SKIPPED:
        for why, tables in Counter(detail.message for detail in one.details.values()).most_common(_REASONS):
            yield Text(f"  {words.safe(why)}{f' ({tables:,} times)' if tables > 1 else ''}", "dim")
    counts = [f"{key} {value:,}" for key, value in one.__pydantic_extra__.items()]
    if counts:
        yield Text(f"  {', '.join(counts)}")
    for warning in one.warnings:
        yield Text.assemble(("  Warning: ", "yellow"), words.safe(warning))
    for problem in one.errors:
        yield Text(f"  {words.safe(problem.table or '')}: {words.safe(problem.detail or problem.title)}", "red")
        if problem.hint:
            yield Text(f"    {words.safe(problem.hint)}")
