"""Python's garbage collector in processes that hold ten thousand tables, which are no garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


def seldom_looked_for() -> None:
    """Look through everything less often, in the whole process: it took up to a third of a command's or tick's time."""
    gc.set_threshold(100_000, 20, 100)


@contextmanager
def not_looked_for() -> Iterator[None]:
    """For a command that keeps what it makes until it ends: within, nothing is looked through at all."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
