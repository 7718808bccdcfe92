"""How large the next batch is, and how long to wait before it, by how long the last ones took."""

from __future__ import annotations

from aurum_orchestration.maintenance.interfaces import RunContext

TARGET_SECONDS = 0.25
"""A batch that takes longer is followed by smaller ones, so that locks are short and replicas keep up."""

SMALLEST = 50
MOST_SLOWED = 8.0
LONGEST_PAUSE = 30.0
FORGETS = 1.05
"""By so much the best time per row is forgotten with each batch: what was in memory at first may not be later on."""


class Pace:
    """Keeps the load of a long deletion even: work as long as pause at best, and longer pauses when it slows down.

    ``rows``: of the next batch, never more than given. ``pause_ms``: pause at least.
    """

    def __init__(self, rows: int, pause_ms: float) -> None:
        self.rows = self._most = rows
        self._least_pause = pause_ms / 1000
        self._best: float | None = None

    def after(self, done: int, seconds: float) -> float:
        """Take note of a batch of ``done`` rows; seconds to wait before the next one."""
        if done <= 0:
            return 0.0
        per_row = max(seconds, 1e-6) / done
        # a short batch is all overhead, and says nothing about rows
        if done >= self.rows / 2 or self._best is None:
            self._best = per_row if self._best is None else min(self._best * FORGETS, per_row)
        slowed = min(MOST_SLOWED, per_row / self._best) if self._best else 1.0
        if seconds > TARGET_SECONDS:
            self.rows = max(min(SMALLEST, self._most), int(self.rows * TARGET_SECONDS / seconds))
        elif seconds < TARGET_SECONDS / 2:
            self.rows = min(self._most, int(self.rows * 1.5) + 1)
        return min(LONGEST_PAUSE, max(self._least_pause, seconds * max(1.0, slowed)))

    def rest(self, run: RunContext, done: int, seconds: float) -> None:
        """Wait as :meth:`after` says, unless the run is cancelled."""
        pause = self.after(done, seconds)
        if pause:
            run.cancelled.wait(pause)
