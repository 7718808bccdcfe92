"""What a benchmark prints: figures as data, one JSON array on stdout."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from typing import Any


def figure(
    name: str,
    samples: Sequence[float],
    unit: str,
    goal: float | None = None,
    better: str = "lower",
) -> dict[str, Any]:
    """A figure from repeated measurements: their median, and half their range as the spread.

    Only figures with the unit ``ratio`` are compared between machines. ``goal`` is what the project asks
    for; ``better`` says on which side of it a value should be.
    """
    shown: dict[str, Any] = {
        "name": name,
        "value": round(statistics.median(samples), 4),
        "unit": unit,
        "spread": round((max(samples) - min(samples)) / 2, 4),
        "samples": len(samples),
        "better": better,
    }
    if goal is not None:
        shown["goal"] = goal
    return shown


def show(figures: Sequence[dict[str, Any]]) -> None:
    """Print the figures for the runner."""
    json.dump(list(figures), sys.stdout, indent=1)
    print()
