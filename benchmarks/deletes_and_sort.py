"""Compaction under row-level deletes and in sort order, against plain bin-packing in the same process.

10M rows in 2,000 files over 4 partitions. Deletes: 200,000 positions in 4 delete files, one per partition; then
200,000 keys in 4 equality delete files. Sort: by curve_id and ts. Rounds alternate; every time is through the
service with verification on. Peak memory is that of a process which does nothing but one sort.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyiceberg.typedef import Record

from aurum_orchestration_tests.iceberg_deletes import add_equality_deletes, add_position_deletes, live_data_files
from benchmarks.compaction import THREADS, compact, load, timed
from benchmarks.figures import figure, show
from benchmarks.processes import in_new_process, peak_mib
from benchmarks.tables import build_curves

ROUNDS = 3
DELETED = 200_000
SORT = {"strategy": "sort", "sort_columns": "curve_id, ts"}


def move(home: Path, snapshot_id: int, keep: set[str]) -> None:
    """Main to a snapshot; files that are not in ``keep`` are deleted."""
    table = load(home)
    for file in live_data_files(table):
        if file.file_path not in keep:
            Path(file.file_path.removeprefix("file://")).unlink()
    table.manage_snapshots().set_current_snapshot(snapshot_id=snapshot_id).commit()


def head(home: Path) -> int:
    """The current snapshot."""
    snapshot = load(home).metadata.current_snapshot_id
    assert snapshot is not None
    return snapshot


def add_deletes(home: Path, base: int, keep: set[str]) -> tuple[int, int]:
    """Snapshots with position deletes and with equality deletes on top of ``base``."""
    rng = np.random.default_rng(5)
    table = load(home)
    by_day: defaultdict[Record, list[Any]] = defaultdict(list)
    for file in live_data_files(table):
        by_day[file.partition].append(file)
    each = DELETED // len(by_day)
    positions: dict[str, list[int]] = {}
    for files in by_day.values():
        rows = files[0].record_count
        for at in rng.choice(rows * len(files), each, replace=False):
            positions.setdefault(files[at // rows].file_path, []).append(int(at % rows))
    add_position_deletes(table, positions)
    with_positions = head(home)
    move(home, base, keep)
    rows = sum(file.record_count for files in by_day.values() for file in files)
    for number, day in enumerate(sorted(by_day, key=str)):
        first, last = (rows * at // len(by_day) for at in (number, number + 1))
        keys = pa.table({"trade_id": np.sort(rng.choice(np.arange(first, last), each, replace=False))})
        add_equality_deletes(load(home), keys, ["trade_id"], partition=day)
    with_keys = head(home)
    move(home, base, keep)
    return with_positions, with_keys


def ratios(home: Path) -> list[dict[str, Any]]:
    """Everything against plain bin-packing, alternating in this process."""
    pa.set_cpu_count(THREADS)
    base = head(home)
    keep = {file.file_path for file in live_data_files(load(home))}
    with_positions, with_keys = add_deletes(home, base, keep)
    works: dict[str, tuple[int, dict[str, Any]]] = {
        "binpack": (base, {}),
        "position_deletes": (with_positions, {}),
        "equality_deletes": (with_keys, {}),
        "sort": (base, SORT),
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    sizes: dict[str, float] = {}
    for _ in range(ROUNDS + 1):
        for name, (snapshot, parameters) in works.items():
            move(home, snapshot, keep)
            done: dict[str, float] = {}

            def once(done: dict[str, float] = done, parameters: dict[str, Any] = parameters) -> None:
                done.update(compact(home, **parameters))

            seconds[name].append(timed(once))
            sizes[name] = done["bytes_added"] / 2**20
            if name.endswith("deletes") and (done["deleted_rows_folded"], done["delete_files_removed"]) != (DELETED, 4):
                raise RuntimeError(f"{name}: {done}")
            move(home, base, keep)
    # the first round warms the page cache and the imports
    seconds = {name: samples[1:] for name, samples in seconds.items()}

    def against(name: str) -> list[float]:
        return [one / plain for one, plain in zip(seconds[name], seconds["binpack"], strict=True)]

    return [
        *(figure(f"{name}_seconds", samples, "s") for name, samples in seconds.items()),
        figure("position_deletes_over_binpack", against("position_deletes"), "ratio", 1.1),
        figure("equality_deletes_over_binpack", against("equality_deletes"), "ratio"),
        figure("sort_over_binpack", against("sort"), "ratio", 1.4),
        figure("sorted_bytes_over_binpacked", [sizes["sort"] / sizes["binpack"]], "ratio"),
        figure("sorted_mib", [sizes["sort"]], "MiB"),
    ]


def peak_memory(home: Path) -> list[dict[str, Any]]:
    """Peak resident memory of a process that does nothing but one verified sort."""
    compact(home, **SORT)
    return [figure("sort_peak_rss", [peak_mib()], "MiB", 1024)]


def main() -> None:
    """Build the table and measure, each part in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["build", "ratios", "memory"])
    parser.add_argument("--home", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    arguments = parser.parse_args()
    if arguments.part == "build":
        build_curves(arguments.home, arguments.rows, 2_000)
        show([])
    elif arguments.part == "ratios":
        show(ratios(arguments.home))
    elif arguments.part == "memory":
        show(peak_memory(arguments.home))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            in_new_process("deletes_and_sort", "--part", "build", "--home", scratch, "--rows", arguments.rows)
            parts = (
                in_new_process("deletes_and_sort", "--part", part, "--home", scratch) for part in ("ratios", "memory")
            )
            show([one for figures in parts for one in figures])


if __name__ == "__main__":
    main()
