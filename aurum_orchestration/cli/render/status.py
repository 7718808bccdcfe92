"""``aurum status`` and ``aurum discover`` as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from aurum_orchestration.cli.render import words
from aurum_orchestration.cli.render.problems import problem_panels
from aurum_orchestration.cli.render.records import Column, Records
from aurum_orchestration.maintenance.shapes import TableEntry, TableStatus

_COLUMNS = (
    Column("TABLE"),
    Column("FILES", number=True),
    Column("SIZE", number=True),
    Column("DEBT"),
    Column("NEEDS"),
)
_NO_TABLE = Text("No table. Does 'discover' in the fleet file leave any?")


def render_status(tables: Sequence[TableStatus], *, unicode: bool = True) -> RenderableType:
    """The worst table first; a line that sums up; then what could not be measured."""
    ranked = sorted(tables, key=lambda table: (table.problem is None, -table.debt_score, table.table))
    rows = [
        (
            Text(words.safe(table.table)),
            Text(words.count(table.metrics.get("data_files"))),
            Text(words.size(table.metrics.get("data_bytes"))),
            words.debt(table.debt_score, unicode=unicode) if table.problem is None else Text("  -"),
            _needs(table),
        )
        for table in ranked
    ]
    table: list[RenderableType] = [Records(_COLUMNS, rows), Text()] if rows else []
    return Group(*table, _summary(tables), *problem_panels(ranked))


def render_discovered(tables: Sequence[TableEntry]) -> RenderableType:
    """A row per table that the backends list."""
    if not tables:
        return _NO_TABLE
    rows = [
        (
            Text(words.safe(table.table)),
            Text(words.safe(table.kind)),
            Text(words.count(len(table.columns)) if table.columns else "-"),
            Text(words.safe(table.comment or table.location)),
        )
        for table in tables
    ]
    columns = (Column("TABLE"), Column("KIND"), Column("COLUMNS", number=True), Column("WHAT OR WHERE"))
    noun = "table" if len(tables) == 1 else "tables"
    return Group(Records(columns, rows), Text(), Text(f"{len(tables):,} {noun}."))


def _needs(table: TableStatus) -> Text:
    decision = table.decision
    reason = words.safe(decision.reason)
    if table.problem:
        return Text(reason, style="red")
    if decision.operation:
        return Text.assemble((decision.operation, "bold yellow"), f": {reason}")
    return Text(reason, style="dim" if table.healthy else "yellow")


def _summary(tables: Sequence[TableStatus]) -> Text:
    if not tables:
        return _NO_TABLE
    unmeasured = sum(table.problem is not None for table in tables)
    needing = sum(table.decision.operation is not None for table in tables)
    waiting = sum(table.problem is None and not table.healthy and not table.decision.operation for table in tables)
    healthy = len(tables) - unmeasured - needing - waiting
    parts = [f"{healthy} healthy", f"{needing} to be maintained now"]
    parts += [f"{waiting} waiting"] if waiting else []
    parts += [f"{unmeasured} not measured"] if unmeasured else []
    noun = "table" if len(tables) == 1 else "tables"
    advice = " See it with: aurum plan. Do it with: aurum run." if needing else ""
    return Text(f"{len(tables)} {noun}: {', '.join(parts)}.{advice}")
