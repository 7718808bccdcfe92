"""A small bar chart as markdown: what files of each table were before an operation and after it.

An SVG in a data URI: Dagster's pages show images that markdown carries within itself, and nothing is
fetched, stored or depended on.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

MOST_BARS = 12
"""Tables in a chart at most: it is part of an event, which is read whole."""

_WIDTH, _LABEL, _ROW, _BAR = 640, 220, 34, 12
_TEXT = 'font-family="sans-serif" font-size="11" fill="#555"'


class Bar(NamedTuple):
    """One table: its name, and how many files there were before and after."""

    name: str
    before: float
    after: float


def chart(bars: Sequence[Bar], title: str) -> str:
    """Markdown with the picture of the tables that changed most; empty when there is none."""
    if not bars:
        return ""
    shown = sorted(bars, key=lambda bar: (bar.after - bar.before, bar.name))[:MOST_BARS]
    picture = base64.b64encode(_svg(shown).encode()).decode()
    return f"![{title}](data:image/svg+xml;base64,{picture})"


def _svg(bars: Sequence[Bar]) -> str:
    height = _ROW * len(bars) + 20
    most = max(max(bar.before, bar.after) for bar in bars) or 1
    rows = "".join(_row(bar, number, most) for number, bar in enumerate(bars))
    legend = (
        f'<text x="{_LABEL}" y="{height - 5}" {_TEXT}>files: <tspan fill="#c2410c">before</tspan>, '
        '<tspan fill="#15803d">after</tspan></text>'
    )
    size = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{rows}{legend}</svg>'


def _row(bar: Bar, number: int, most: float) -> str:
    top = number * _ROW + 4
    name = bar.name if len(bar.name) <= 34 else f"…{bar.name[-33:]}"
    label = f'<text x="{_LABEL - 8}" y="{top + 16}" text-anchor="end" {_TEXT}>{escape(name)}</text>'
    return label + _line(bar.before, most, top, "#c2410c") + _line(bar.after, most, top + _BAR + 1, "#15803d")


def _line(value: float, most: float, top: int, colour: str) -> str:
    width = max(1, round(value / most * (_WIDTH - _LABEL - 70)))
    bar = f'<rect x="{_LABEL}" y="{top}" width="{width}" height="{_BAR}" rx="2" fill="{colour}"/>'
    return f'{bar}<text x="{_LABEL + width + 5}" y="{top + _BAR - 2}" {_TEXT}>{value:,.0f}</text>'
