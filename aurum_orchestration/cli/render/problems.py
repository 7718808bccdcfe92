"""A problem as a person reads it: what happened, to which table, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.panel import Panel
from rich.text import Text

from aurum_orchestration.cli.render.words import safe
from aurum_orchestration.errors import ProblemDetail


class MayFail(Protocol):
    """A shape that carries a problem when something went wrong."""

    @property
    def problem(self) -> ProblemDetail | None:
        """What went wrong."""
        ...


class ProblemPanel:
    """A problem in a red frame on a terminal, as indented lines elsewhere."""

    def __init__(self, problem: ProblemDetail) -> None:
        self.problem = problem

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        title = Text.assemble((self.problem.title, "bold red"), f" ({self.problem.type})")
        body = Group(*self._lines())
        if console.is_terminal:
            yield Panel(body, title=title, title_align="left", border_style="red")
        else:
            yield Text.assemble("error: ", title)
            yield Padding(body, (0, 0, 0, 2))

    def _lines(self) -> list[Text]:
        problem = self.problem
        where = " ".join(part for part in (problem.operation, "of" if problem.operation else "", problem.table) if part)
        lines = [Text(safe(where), style="bold")] if problem.table else []
        lines += [Text(safe(problem.detail, one_line=False))] if problem.detail else []
        if problem.hint:
            lines.append(Text.assemble(("What to do: ", "bold"), safe(problem.hint, one_line=False)))
        elif problem.transient:
            lines.append(Text.assemble(("What to do: ", "bold"), "run it again later; it may pass by itself."))
        return lines


def problem_panels(shapes: Iterable[MayFail]) -> list[RenderableType]:
    """A panel for each problem, set off from what comes before."""
    parts: list[RenderableType] = []
    for shape in shapes:
        if shape.problem:
            parts += [Text(), ProblemPanel(shape.problem)]
    return parts
