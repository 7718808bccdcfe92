"""The demo's tables and bars, as a person sees them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import IO

from pyiceberg.catalog import Catalog
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from aurum_orchestration.cli.render.words import count, size
from aurum_orchestration.local.lake import NAMESPACE
from aurum_orchestration.local.proof import Contents
from aurum_orchestration.local.questions import Answer

WIDTH = 118
_POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Observed:
    """A table at one moment: its debt as Dagster has it, and what a reader finds in its files."""

    table: str
    debt: float
    contents: Contents


@dataclass(frozen=True, slots=True)
class Outcome:
    """One table before and after."""

    before: Observed
    after: Observed

    @property
    def kept(self) -> bool:
        """True when no row was lost, added or changed."""
        return self.before.contents.same_rows(self.after.contents)


def console(stream: IO[str] | None = None) -> Console:
    """Where the demo prints; at least wide enough for its tables when nobody says how wide it is."""
    made = Console(file=stream, highlight=False)
    return made if made.is_terminal else Console(file=stream, highlight=False, width=WIDTH)


def outcomes_table(outcomes: Sequence[Outcome]) -> RenderableType:
    """What became of every table, and that its rows are the same."""
    table = columns("TABLE", "FILES", "SIZE", "DEBT", "ROWS", "SAME ROWS")
    for one in outcomes:
        old, new = one.before.contents, one.after.contents
        table.add_row(
            one.after.table,
            change(count(old.files), count(new.files)),
            change(size(old.bytes), size(new.bytes)),
            change(f"{one.before.debt:.0f}", f"{one.after.debt:.0f}"),
            count(new.rows),
            Text("yes", style="green") if one.kept else Text("NO", style="bold red"),
        )
    return table


def answers_table(before: Sequence[Answer], after: Sequence[Answer]) -> RenderableType:
    """The questions, what they took, and what was found."""
    table = columns("QUESTION", "BEFORE", "AFTER", "FASTER", "ANSWER", prose=1)
    for old, new in zip(before, after, strict=True):
        table.add_row(
            old.question,
            f"{old.seconds:.2f} s",
            f"{new.seconds:.2f} s",
            Text(f"{old.seconds / new.seconds:.0f} x", style="green"),
            Text(new.text, style="dim"),
        )
    return table


@contextmanager
def rows_coming(out: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Bars of tables being written, fed by calls with a table's name, its rows so far and its rows in the end."""
    tasks: dict[str, TaskID] = {}
    with _bars(out) as bars:

        def written(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, amount="")
            bars.update(tasks[name], completed=done, total=total, amount=f"{done:,} of {total:,} rows")

        yield written


@contextmanager
def files_going(out: Console, catalog: Catalog, names: Sequence[str]) -> Iterator[None]:
    """Bars of the tables' data files while a run compacts them, read from the tables themselves."""
    with _bars(out) as bars:
        tasks = {name: bars.add_task(name, total=files, amount="") for name, files in _files(catalog, names)}
        over = Event()
        watching = Thread(target=_watch, args=(catalog, tasks, bars, over), daemon=True)
        watching.start()
        try:
            yield
        finally:
            over.set()
            watching.join()


def _bars(out: Console) -> Progress:
    columns = (TextColumn("  {task.description:10}"), BarColumn(bar_width=30), TextColumn("{task.fields[amount]}"))
    return Progress(*columns, TimeElapsedColumn(), console=out)


def _watch(catalog: Catalog, tasks: Mapping[str, TaskID], bars: Progress, over: Event) -> None:
    last = False
    while not last:
        last = over.wait(_POLL_SECONDS)
        for name, files in _files(catalog, list(tasks)):
            total = bars.tasks[tasks[name]].total or 0
            bars.update(tasks[name], completed=total if last else total - files, amount=f"{files:,} data files")


def _files(catalog: Catalog, names: Sequence[str]) -> Iterator[tuple[str, int]]:
    for name in names:
        snapshot = catalog.load_table((NAMESPACE, name)).current_snapshot()
        summary = snapshot.summary if snapshot else None
        yield name, int(summary["total-data-files"] or 0) if summary else 0


def save_picture(path: Path, title: str, *parts: RenderableType) -> None:
    """Write what is shown as an SVG that refers to nothing outside of itself."""
    with path.with_suffix(".txt").open("w") as plain:
        recorder = Console(record=True, file=plain, width=WIDTH, highlight=False, force_terminal=True)
        recorder.print(Group(*parts))
    path.with_suffix(".txt").unlink()
    own_fonts = re.sub(r"@font-face \{\{.*?\}\}\n\s*|<!--.*?-->\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    recorder.save_svg(str(path), title=title, code_format=own_fonts)


def columns(first: str, *names: str, prose: int = 0) -> Table:
    """An empty table; numbers stand at the right, the last ``prose`` columns are text."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(first)
    for number, column in enumerate(names):
        is_prose = number >= len(names) - prose
        table.add_column(column, justify="left" if is_prose else "right", no_wrap=not is_prose)
    return table


def change(before: str, after: str) -> str:
    """What became of a value."""
    return after if before == after else f"{before} → {after}"
