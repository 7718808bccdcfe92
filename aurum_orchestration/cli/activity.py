"""What is going on, on stderr, while a terminal is there to show it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from rich.console import Console

from aurum_orchestration.cli.render.words import safe, size
from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, MaintenanceResult

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Activity:
    """A line for the command as a whole and a bar per table being worked on. Silent without a terminal.

    ``progress`` and ``ended`` are the service's hooks; they may be called from any thread.
    """

    def __init__(self, console: Console, doing: str) -> None:
        self._bars = _bars(console) if console.is_terminal else None
        self._all = self._bars.add_task(doing, total=None, amount="") if self._bars is not None else None
        self._of: dict[tuple[str, str], TaskID] = {}
        self._told: dict[TaskID, dict[str, str]] = {}
        self._finished = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def progress(self, request: MaintenanceConfig, done: float, total: float, unit: str) -> None:
        """Move the bar of a table's operation. Steps move it; what a step itself counts is told beside it."""
        if self._bars is None:
            return
        key = (request.target_table, str(request.operation_type))
        with self._lock:
            if key not in self._of:
                self._of[key] = self._bars.add_task(f"{safe(key[0])} {key[1]}", total=None, amount="")
            task = self._of[key]
            told = self._told.setdefault(task, {})
            told[unit] = f"{size(done)} of {size(total)}" if unit == "bytes" else f"{done:,.0f} of {total:,.0f} {unit}"
            amount = ", ".join(told.values())
        self._bars.update(task, amount=amount)
        if unit == "steps":
            self._bars.update(task, completed=done, total=total)

    def ended(self, result: MaintenanceResult) -> None:
        """Take the bar of an ended operation away and count it."""
        if self._bars is None or self._all is None:
            return
        with self._lock:
            task = self._of.pop((result.config.target_table, str(result.config.operation_type)), None)
            self._finished += 1
        if task is not None:
            self._bars.remove_task(task)
        self._bars.update(self._all, amount=f"{self._finished:,} done")


def _bars(console: Console) -> Progress:
    # imported for a terminal only: it takes as long as everything else about the console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
