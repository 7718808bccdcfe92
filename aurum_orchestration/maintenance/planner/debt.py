"""The debt score of a table: 0 (nothing to win) to 100. Formula and sources: docs/planner.md.

A score is the sum of penalties. Each one is a share of its cap that grows with a metric, slowly at
first, to one half at ``half`` and towards the whole cap from there, so that a table with a dozen
files does not alarm however bad its proportions are, and one with thousands always does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aurum_orchestration.maintenance.interfaces import TableHealth

MIB = 1024 * 1024
ENORMOUS = 1e18
"""Where odd numbers (infinity) are cut off, so that arithmetic on them stays finite."""

DELETED_SHARE_ALARM = 0.2
"""Share of rows deleted but still stored at which the penalty for deleted rows counts in full."""


@dataclass(frozen=True, slots=True)
class Penalty:
    """How much of the score a metric can make up: nothing up to ``free``, half of ``cap`` at ``half``."""

    cap: float
    free: float
    half: float
    source: str

    def points(self, value: float) -> float:
        """The penalty for a value of the metric, from 0 to less than ``cap``."""
        over = value - self.free
        return self.cap * over / (over + self.half - self.free) if over > 0 else 0.0


PENALTIES: Mapping[str, Penalty] = {
    "excess_files": Penalty(60, 0, 100, "files a compaction would save, as AutoComp counts them"),
    "delete_files": Penalty(15, 0, 100, "floe warns at 100 delete files"),
    "deleted_rows": Penalty(
        10, 0, 100_000, "Amoro acts at 10 % of rows deleted: half of the share that counts in full"
    ),
    "snapshots": Penalty(5, 100, 500, "floe warns at 100 and is critical at 500"),
    "metadata_bytes": Penalty(5, MIB, 6 * MIB, "measured: at 6 MB of metadata a commit takes a second"),
    "manifests": Penalty(5, 100, 500, "floe warns at 100 and is critical at 500"),
}
"""The penalties by what they count. The caps add up to 100."""


def number(metrics: Mapping[str, float], name: str) -> float:
    """A metric as a number that can be reckoned with: absent, negative and NaN are 0, infinity is enormous."""
    value = metrics.get(name, 0.0)
    if value > 0:
        return float(value) if value < ENORMOUS else ENORMOUS
    return 0.0


def files_points(metrics: Mapping[str, float]) -> float:
    """Penalty for files that a compaction would save: less by up to a half when they are a small share of all."""
    excess = number(metrics, "excess_files")
    if not excess:
        return 0.0
    share = excess / max(excess, number(metrics, "data_files"))
    return PENALTIES["excess_files"].points(excess) * (0.5 + 0.5 * share)


def deletes_points(metrics: Mapping[str, float]) -> float:
    """Penalty for delete files and for rows they delete, which every reader has to merge."""
    points = PENALTIES["delete_files"].points(number(metrics, "delete_files"))
    deleted = number(metrics, "position_delete_rows") + number(metrics, "equality_delete_rows")
    if deleted:
        share = deleted / max(deleted, number(metrics, "rows"))
        points += PENALTIES["deleted_rows"].points(deleted) * min(1.0, share / DELETED_SHARE_ALARM)
    return points


def history_points(metrics: Mapping[str, float]) -> float:
    """Penalty for snapshots, table metadata and manifests, which every commit and every plan read."""
    return sum(PENALTIES[name].points(number(metrics, name)) for name in ("snapshots", "metadata_bytes", "manifests"))


def debt_score(health: TableHealth) -> float:
    """Points of debt, 0 to 100, two decimals. 0 for a table that could not be measured."""
    metrics = health.metrics
    if not metrics:
        return 0.0
    if "table_bytes" in metrics or "database_bytes" in metrics:
        from aurum_orchestration.maintenance.planner import databases

        return round(databases.debt(metrics), 2)
    return round(files_points(metrics) + deletes_points(metrics) + history_points(metrics), 2)
