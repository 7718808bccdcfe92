"""Python's garbage collector in processes that hold ten thousand tables, which are no garbage."""

from __future__ import annotations

import gc


def seldom_looked_for() -> None:
    """Look through everything less often, in the whole process: it took up to a third of a command's or tick's time."""
    gc.set_threshold(100_000, 20, 100)
