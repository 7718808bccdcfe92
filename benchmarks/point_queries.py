"""What compaction is for: two queries before it, after it, and after a sort; and what its commit costs per file.

10M rows in 2,000 files over 4 days, read by PyIceberg: one curve on one day, and one curve over all days. Then the
milliseconds that a commit takes per file that it replaces, from the same compactions.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from aurum_orchestration.maintenance.backends.iceberg.commit import commit_replace
from aurum_orchestration.maintenance.backends.iceberg.compact import execute
from benchmarks.compaction import compact, load, timed
from benchmarks.figures import figure, show
from benchmarks.processes import in_new_process
from benchmarks.tables import build_curves

FILES = 2_000
QUERIES = {
    "curve_and_day": "curve_id == 'CURVE.0042' and day == '2026-01-02'",
    "curve_over_all_days": "curve_id == 'CURVE.0042'",
}
SORT = {"strategy": "sort", "sort_columns": "curve_id, ts"}
ROUNDS = 5


def query(home: Path) -> dict[str, tuple[list[float], int]]:
    """Seconds of every query, and the rows it found; the first round warms the page cache."""
    found = {}
    for name, condition in QUERIES.items():
        rows: list[int] = []

        def scan(condition: str = condition, rows: list[int] = rows) -> None:
            rows.append(load(home).scan(row_filter=condition).to_arrow().num_rows)

        seconds = [timed(scan) for _ in range(ROUNDS + 1)][1:]
        found[name] = seconds, rows[0]
    return found


def committing(home: Path, **parameters: Any) -> float:
    """Compact; the milliseconds that its commits took per file replaced."""
    seconds = 0.0

    def timed_commit(*given: Any) -> Any:
        nonlocal seconds
        began = time.perf_counter()
        try:
            return commit_replace(*given)
        finally:
            seconds += time.perf_counter() - began

    with mock.patch.object(execute, "commit_replace", timed_commit):
        # one after the other: threads that encode meanwhile would be in the time
        metrics = compact(home, max_concurrent_groups=1, **parameters)
    return seconds * 1000 / metrics["files_rewritten"]


def measure(home: Path) -> list[dict[str, Any]]:
    """Queries on the table as it was written, compacted, and sorted."""
    before = query(home)
    per_file = committing(home)
    compacted = query(home)
    compact(home, rewrite_all=True, **SORT)
    after = query(home)
    figures = [figure("commit_ms_per_replaced_file", [per_file], "ms", 0.15)]
    for name in QUERIES:
        if len({one[name][1] for one in (before, compacted, after)}) != 1:
            raise RuntimeError(f"{name}: other rows after maintenance")
        slow = before[name][0]
        figures += [
            figure(f"{name}_seconds", slow, "s"),
            figure(f"{name}_compacted_seconds", compacted[name][0], "s"),
            figure(f"{name}_sorted_seconds", after[name][0], "s"),
            figure(f"{name}_times_compacted", _times(slow, compacted[name][0]), "ratio", 8.0, "higher"),
            figure(f"{name}_times_sorted", _times(slow, after[name][0]), "ratio", 15.0, "higher"),
        ]
    return figures


def _times(slow: list[float], fast: list[float]) -> list[float]:
    return [one / other for one, other in zip(sorted(slow), sorted(fast), strict=True)]


def main() -> None:
    """Build the table and measure, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["build", "measure"])
    parser.add_argument("--home", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    arguments = parser.parse_args()
    if arguments.part == "build":
        build_curves(arguments.home, arguments.rows, FILES)
        show([])
    elif arguments.part == "measure":
        show(measure(arguments.home))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            in_new_process("point_queries", "--part", "build", "--home", scratch, "--rows", arguments.rows)
            show(in_new_process("point_queries", "--part", "measure", "--home", scratch))


if __name__ == "__main__":
    main()
