"""``aurum status`` and ``aurum discover`` as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from aurum_orchestration.cli.render import words
from aurum_orchestration.cli.render.problems import problem_panels
from aurum_orchestration.cli.render.records import Column, Records
from aurum_orchestration.maintenance.shapes import TableStatus

_COLUMNS = (
    Column("TABLE"),
    Column("FILES", number=True),
    Column("SIZE", number=True),
    Column("DEBT"),
    Column("NEEDS"),
)


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


def _needs(table: TableStatus) -> Text:
    decision = table.decision
    reason = words.safe(decision.reason)
    if table.problem:
        return Text.assemble(("not measured", "red"), f": {reason}")
    if decision.operation:
        return Text.assemble((decision.operation, "bold yellow"), f": {reason}")
    return Text(reason, style="dim" if table.healthy else "yellow")


def _summary(tables: Sequence[TableStatus]) -> Text:
    if not tables:
        return Text("No table. Does 'discover' in the fleet file leave any?")
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
