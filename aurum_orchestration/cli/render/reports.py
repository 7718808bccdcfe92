"""``aurum plan``, ``aurum run`` and ``aurum history`` as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from aurum_orchestration.cli.render import words
from aurum_orchestration.cli.render.problems import problem_panels
from aurum_orchestration.cli.render.records import Column, Records
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus, PlanStep, Verification
from aurum_orchestration.maintenance.shapes import HistoryEntry, OperationReport

_RUN_COLUMNS = (
    Column("TABLE"),
    Column("RESULT"),
    Column("FILES", number=True),
    Column("ROWS OK", number=True),
    Column("TIME", number=True),
    Column("WHAT"),
)
_HISTORY_COLUMNS = (Column("TABLE"), Column("WHEN"), *_RUN_COLUMNS[1:])


def render_run(reports: Sequence[OperationReport], *, unicode: bool = True) -> RenderableType:
    """A row per operation, a line that sums up, and a panel for each problem."""
    rows = [(Text(words.safe(report.table)), *_figures(report, unicode=unicode)) for report in reports]
    table: list[RenderableType] = [Records(_RUN_COLUMNS, rows), Text()] if rows else []
    return Group(*table, _summary(reports), *_warnings(reports), *problem_panels(reports))


def render_history(entries: Sequence[HistoryEntry], *, unicode: bool = True) -> RenderableType:
    """A row per recorded operation, the newest first."""
    if not entries:
        return Text("Nothing is recorded for that.")
    rows = [
        (
            Text(words.safe(entry.table)),
            Text(words.when(entry.started_at)),
            *_figures(entry, unicode=unicode)[:-1],
            _what(entry).append(_undo(entry), style="dim"),
        )
        for entry in entries
    ]
    return Records(_HISTORY_COLUMNS, rows)


def render_plans(reports: Sequence[OperationReport], *, max_steps: int | None) -> RenderableType:
    """Each plan with its steps (at most ``max_steps``, None for all) and risks; then what is left alone and why."""
    planned = [report for report in reports if report.steps]
    idle = [report for report in reports if not report.steps]
    parts: list[RenderableType] = []
    for report in planned:
        parts += [*_plan(report, report.steps or [], max_steps), Text()]
    if idle:
        rows = [(Text(words.safe(report.table)), words.status(report.status), _what(report)) for report in idle]
        parts += [Records((Column("TABLE"), Column("RESULT"), Column("WHY")), rows), Text()]
    return Group(*parts, _summary(reports), *_warnings(idle), *problem_panels(reports))


def _plan(report: OperationReport, steps: Sequence[PlanStep], max_steps: int | None) -> list[RenderableType]:
    head = Text.assemble(
        (words.safe(report.table), "bold"), ": ", (report.operation, "bold cyan"), no_wrap=True, overflow="ignore"
    )
    shown = steps[:max_steps]
    lines: list[RenderableType] = [Text(words.safe(report.reason)), _step_list(shown)]
    if len(shown) < len(steps):
        more = f"and {len(steps) - len(shown):,} more steps (-v or --output json shows all)"
        lines.append(Text(more, style="dim"))
    risks = dict.fromkeys(step.risk for step in shown)
    lines += [Text.assemble(("Risk: ", "yellow"), words.safe(risk)) for risk in risks]
    lines += _warnings([report])
    lines.append(Text(f"Plan {report.plan_id}", style="dim"))
    return [head, Padding(Group(*lines), (0, 0, 0, 2))]


def _step_list(steps: Sequence[PlanStep]) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column()
    for step in steps:
        grid.add_row(f"{step.number}.", Text(words.safe(step.summary)))
    return grid


def _figures(report: OperationReport, *, unicode: bool) -> tuple[Text, Text, Text, Text, Text]:
    return (
        words.status(report.status),
        Text(_files(report.metrics, arrow="→" if unicode else "->")),
        _verified(report.verification),
        Text(words.duration(report.seconds)),
        _what(report),
    )


def _files(metrics: dict[str, float], *, arrow: str) -> str:
    before, after = metrics.get("files_rewritten"), metrics.get("files_added")
    return f"{words.count(before)} {arrow} {words.count(after)}" if before or after else "-"


def _verified(verification: Verification | None) -> Text:
    if verification is None:
        return Text("-")
    if verification.ok:
        return Text(words.count(verification.rows_after), style="green")
    return Text(f"{words.count(verification.rows_after)} of {words.count(verification.rows_before)}", style="bold red")


def _what(report: OperationReport) -> Text:
    reason = report.reason or (report.problem.title if report.problem else "")
    return Text.assemble((report.operation, "bold"), f": {words.safe(reason)}" if reason else "")


def _undo(entry: HistoryEntry) -> str:
    changed = entry.status is MaintenanceStatus.COMPLETED or entry.steps
    return f"\nundo: {words.safe(entry.undo, one_line=False)}" if changed else ""


def _warnings(reports: Sequence[OperationReport]) -> list[Text]:
    return [
        Text.assemble(("Warning: ", "yellow"), f"{words.safe(report.table)}: {words.safe(warning)}")
        for report in reports
        for warning in report.warnings
    ]


def _summary(reports: Sequence[OperationReport]) -> Text:
    if not reports:
        return Text("Nothing to do now. What waits, and for what: aurum status.")
    counts = {status: sum(report.status is status for report in reports) for status in MaintenanceStatus}
    told = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    operations = "operation" if len(reports) == 1 else "operations"
    return Text(f"{len(reports)} {operations}: {told}.", style="bold red" if counts[MaintenanceStatus.FAILED] else "")
