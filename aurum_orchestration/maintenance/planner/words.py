"""Numbers as they stand in the planner's sentences."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def count(number: float, noun: str) -> str:
    """A count with its noun: '1 file', '2,931 files', 'no files'."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,.0f} {noun}s" if number else f"no {noun}s"


@lru_cache(maxsize=1024)
def size(number: float) -> str:
    """A size in the unit that fits: '48 MiB', '1.5 GiB'."""
    unit = 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:,.2f}".rstrip("0").rstrip(".") + f" {_UNITS[unit]}"


def moment(when: datetime) -> str:
    """A moment to the minute, in UTC as given."""
    return f"{when:%Y-%m-%d %H:%M} UTC"
