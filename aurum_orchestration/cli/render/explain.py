"""``aurum explain`` as a person reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from aurum_orchestration.cli.render import words
from aurum_orchestration.cli.render.problems import ProblemPanel
from aurum_orchestration.cli.render.records import Column, Records
from aurum_orchestration.maintenance.explanation import PolicyEntry, TableExplanation

_COLUMNS = (Column("KEY"), Column("VALUE"), Column("FROM"))


def render_explanation(told: TableExplanation, *, unicode: bool = True) -> RenderableType:
    """What holds for the table as a whole, then each operation with its decision and its policy."""
    return Group(*_parts(told, unicode=unicode))


def _parts(told: TableExplanation, *, unicode: bool) -> Iterator[RenderableType]:
    yield Text.assemble((words.safe(told.table), "bold"), "  debt ", words.debt(told.debt_score, unicode=unicode))
    if told.description:
        yield Text(words.safe(told.description))
    for label, values in (("owners", told.owners), ("asset key", ["/".join(told.asset_key)])):
        if values:
            yield Text(f"{label}: {words.safe(', '.join(values))}")
    if told.tags:
        yield Text("tags: " + words.safe(", ".join(f"{key}={value}" for key, value in told.tags.items())))
    yield Text(f"calendar ({told.time_zone}): {told.closed or 'work may start now'}")
    if told.budget:
        caps = ", ".join(f"{cap:g} {unit if cap != 1 else unit.removesuffix('s')}" for unit, cap in told.budget.items())
        yield Text(f"budget of a night on {words.safe(told.backend)}: {caps}")
    if told.problem:
        yield ProblemPanel(told.problem)
    yield from _section("calendar", None, told.calendar)
    yield from _section("checks", None, told.checks)
    for one in told.operations:
        reason = words.safe(one.decision.reason) if one.decision else "the planner never starts it by itself"
        yield from _section(one.operation, reason, one.policy)


def _section(name: str, reason: str | None, policy: Sequence[PolicyEntry]) -> Iterator[RenderableType]:
    yield Text()
    yield Text.assemble((name, "bold"), f": {reason}" if reason else "")
    if policy:
        rows = [(Text(f"  {one.key}"), Text(_value(one.value)), _source(one.source)) for one in policy]
        yield Records(_COLUMNS, rows)


def _value(value: Any) -> str:
    return words.safe(json.dumps(value, ensure_ascii=False, default=str))


def _source(source: str) -> Text:
    return Text(words.safe(source), style="dim" if source == "default" else "")
