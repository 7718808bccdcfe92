"""A table that stays readable at any width, and never cuts an id.

Three layouts, the first that fits: one line per record with its prose in the last column; the line
without prose and the prose under it; a short paragraph per record with the id on a line of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.text import Text

PROSE_CELLS = 26
"""Below this many cells prose wraps into a tall, thin column that nobody reads."""
_GAP = 2
_INDENT = (0, 0, 0, 2)


@dataclass(frozen=True, slots=True)
class Column:
    """A column's header, and whether its cells are numbers (aligned to the right)."""

    header: str
    number: bool = False


class Records:
    """Rows of an id, some short figures, and prose; ``columns`` has one entry for each of them."""

    def __init__(self, columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> None:
        self.columns = columns
        self.rows = rows
        self._widths = [
            max([len(column.header), *(row[index].cell_len for row in rows)])
            for index, column in enumerate(columns[:-1])
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        short = sum(self._widths) + _GAP * (len(self._widths) - 1)
        room = options.max_width - short - _GAP
        if room >= PROSE_CELLS:
            yield from self._prose_beside(console, room)
        elif short <= options.max_width:
            yield self._prose_below()
        else:
            yield self._paragraphs()

    def _prose_beside(self, console: Console, room: int) -> RenderResult:
        """Line by line: a rich table of ten thousand rows takes seconds."""
        styled = console.color_system is not None
        indent = " " * (sum(self._widths) + _GAP * len(self._widths))
        header = [Text(column.header, style="bold") for column in self.columns]
        for *short, prose in (header, *self.rows):
            fits = prose.cell_len <= room and "\n" not in prose.plain
            first, *more = [prose] if fits else prose.wrap(console, room, overflow="fold")
            if styled:
                yield Text.assemble(self._line(short), " " * _GAP, first, no_wrap=True, overflow="ignore")
                for text in more:
                    yield Text.assemble(indent, text, no_wrap=True, overflow="ignore")
            else:
                lines = [self._plain(short) + first.plain, *(indent + text.plain for text in more)]
                yield Segment("\n".join(lines) + "\n")

    def _plain(self, cells: Sequence[Text]) -> str:
        """What :meth:`_line` makes of the cells, with the gap after it, where nothing has a colour."""
        parts = []
        for cell, column, width in zip(cells, self.columns, self._widths, strict=False):
            blanks = " " * (width - cell.cell_len)
            parts.append(f"{blanks}{cell.plain}" if column.number else f"{cell.plain}{blanks}")
        return (" " * _GAP).join([*parts, ""])

    def _prose_below(self) -> RenderableType:
        parts: list[RenderableType] = [self._line([Text(column.header, style="bold") for column in self.columns[:-1]])]
        for *short, prose in self.rows:
            parts += [self._line(short), Padding(prose, _INDENT)]
        return Group(*parts)

    def _line(self, cells: Sequence[Text]) -> Text:
        aligned = [cell.copy() for cell in cells]
        for cell, column, width in zip(aligned, self.columns, self._widths, strict=False):
            cell.align("right" if column.number else "left", width)
        return Text(" " * _GAP).join(aligned)

    def _paragraphs(self) -> RenderableType:
        parts: list[RenderableType] = []
        for title, *figures, prose in self.rows:
            line = Text(", ").join(
                Text.assemble((f"{column.header.lower()} ", "dim"), (figure.plain.strip(), figure.style))
                for column, figure in zip(self.columns[1:-1], figures, strict=True)
                if figure.plain.strip() != "-"
            )
            name = Text.assemble(title, no_wrap=True, overflow="ignore")
            parts += [name, Padding(line, _INDENT), Padding(prose, _INDENT)]
        return Group(*parts)
