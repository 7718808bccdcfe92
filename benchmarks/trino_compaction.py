"""Both engines' compaction of the same tables side by side, on a Trino of this machine: 1M, 3M and 10M rows.

Each compaction goes through the service in a process of its own, which has compacted a small table before; Trino has
one full-size rewrite of each table behind it before the first that counts. CPU and memory are those of the processes
that did the work: ours, and with Trino ours and its JVM, whose memory follows the limit of its heap (4 GiB). After
every compaction DuckDB counts and hashes the rows; then the table goes back to its small files.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from pyiceberg.table import Table

from aurum_orchestration.local.engines.lake import Lake
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from benchmarks.figures import figure, show
from benchmarks.processes import in_new_process
from benchmarks.tables import build_curves
from benchmarks.trino_lake import catalog_of, fleet_of, forget_peak, java, peak_mib, service_of, trino_lake

ROUNDS, ROWS_A_FILE = 3, 5_000
SIZES = {"1m": 1_000_000, "3m": 3_000_000, "10m": 10_000_000}
ENGINES = {"pyiceberg": "embedded", "trino": "trino"}
WARM_ROWS = 40_000
GIB = 1024**3


def one(fleet: Path, table: str, *, verify: bool) -> list[dict[str, Any]]:
    """Compact a small table, then the table itself; what the latter took in this process."""

    async def compact(name: str) -> dict[str, float]:
        result = await service.execute_maintenance(
            backend_type="lake",
            operation_type="compaction",
            target_table=f"lake.bench.{name}",
            parameters={"verify": verify, "max_concurrent_groups": 2},
        )
        if result.status != MaintenanceStatus.COMPLETED:
            raise RuntimeError(f"compaction ended {result.status}: {result.problem}")
        return result.metrics

    async def both() -> tuple[float, float, dict[str, float]]:
        await compact("warm")
        wall, cpu = time.perf_counter(), time.process_time()
        metrics = await compact(table)
        await service.close()
        return time.perf_counter() - wall, time.process_time() - cpu, metrics

    service = service_of(fleet)
    seconds, cpu, metrics = asyncio.run(both())
    told = ("bytes_rewritten", "bytes_added", "files_added", "verify_seconds")
    return [
        figure("seconds", [seconds], "s"),
        figure("cpu", [cpu], "s"),
        figure("peak", [peak_mib(os.getpid())], "MiB"),
        *(figure(name, [metrics[name]], "") for name in told if name in metrics),
    ]


def paths(table: Table) -> list[str]:
    """The data files of the table as it is."""
    return sorted(task.file.file_path.removeprefix("file://") for task in table.scan().plan_files())


def digest(files: list[str]) -> Any:
    """Count and sum of hashes of the rows."""
    with duckdb.connect() as connection:
        query = "SELECT count(*), sum(hash(t)::HUGEINT) FROM read_parquet($paths, hive_partitioning = false) t"
        return connection.execute(query, {"paths": files}).fetchone()


class Bench:
    """The lake with its tables, before every compaction in many small files."""

    def __init__(self, found: Lake) -> None:
        self._lake = found
        self._catalog = catalog_of(found)
        self._fleets = {engine: fleet_of(found, engine) for engine in ENGINES}
        self._bases: dict[str, tuple[int, list[str], Any]] = {}

    def build(self, name: str, rows: int, rows_a_file: int = ROWS_A_FILE) -> None:
        """A table of so many rows."""
        table = build_curves(self._lake.place, rows, rows // rows_a_file, name=name, catalog=self._catalog)
        files = paths(table.refresh())
        base = table.metadata.current_snapshot_id
        assert base is not None
        self._bases[name] = (base, files, digest(files))

    def once(self, name: str, engine: str, *, verify: bool) -> dict[str, float]:
        """One compaction, checked, then taken back."""
        process = java(self._lake)
        forget_peak(process.pid)
        before = process.cpu_times()
        given = ["--part", "one", "--fleet", self._fleets[engine], "--table", name, *([] if verify else ["--plain"])]
        found = {told["name"]: told["value"] for told in in_new_process("trino_compaction", *given)}
        after = process.cpu_times()
        if engine == "trino":
            found["cpu"] += after.user + after.system - before.user - before.system
            found["peak"] += peak_mib(process.pid)
        self._reset("warm", check=False)
        self._reset(name, check=True)
        return found

    def _reset(self, name: str, *, check: bool) -> None:
        base, files, expected = self._bases[name]
        table = self._catalog.load_table(f"bench.{name}")
        written = paths(table)
        if check and (len(written) >= len(files) / 10 or digest(written) != expected):
            raise RuntimeError(f"{name}: {len(files)} files became {len(written)}, or the rows changed")
        table.manage_snapshots().set_current_snapshot(snapshot_id=base).commit()
        for path in set(written) - set(files):
            Path(path).unlink()


def measured(name: str, bench: Bench, rounds: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Both engines alternating, with and without verification; and each engine's median seconds."""
    runs: dict[tuple[str, bool], list[dict[str, float]]] = {}
    for number in range(rounds + 1):  # the first round warms both
        for engine in ENGINES:
            for verify in (True, False):
                print(f"  {name}, {engine}, round {number} of {rounds}", file=sys.stderr, flush=True)
                found = bench.once(name, engine, verify=verify)
                if number:
                    runs.setdefault((engine, verify), []).append(found)
    figures = []
    for engine, word in ENGINES.items():
        proven, plain = runs[engine, True], runs[engine, False]
        gib = proven[0]["bytes_rewritten"] / GIB
        figures += [
            figure(f"{word}_{name}_seconds", [one["seconds"] for one in proven], "s"),
            figure(f"{word}_{name}_seconds_unverified", [one["seconds"] for one in plain], "s"),
            figure(f"{word}_{name}_cpu_seconds", [one["cpu"] for one in proven], "s"),
            figure(f"{word}_{name}_peak", [one["peak"] for one in proven], "MiB"),
            figure(f"{word}_{name}_files_out", [one["files_added"] for one in proven], "files"),
            figure(f"{word}_{name}_mib_out", [one["bytes_added"] / 2**20 for one in proven], "MiB"),
            figure(f"{word}_{name}_gib_an_hour", [gib / one["seconds"] * 3600 for one in proven], "GiB"),
        ]
    for verify, word in ((True, ""), (False, "_unverified")):
        pairs = zip(runs["trino", verify], runs["pyiceberg", verify], strict=True)
        ratios = [theirs["seconds"] / ours["seconds"] for theirs, ours in pairs]
        figures.append(figure(f"trino_times_embedded_{name}{word}", ratios, "ratio"))
    medians = {engine: statistics.median(one["seconds"] for one in runs[engine, True]) for engine in ENGINES}
    return figures, medians


def crossover(seconds: dict[int, dict[str, float]]) -> list[dict[str, Any]]:
    """Of the lines through the engines' seconds by rows: start, slope, and the rows at which Trino would be faster.

    -1 where it never is.
    """
    rows = np.array(sorted(seconds), dtype=float)
    lines = {engine: np.polyfit(rows, [seconds[int(row)][engine] for row in rows], 1) for engine in ENGINES}
    (ours_slope, ours_start), (their_slope, their_start) = lines["pyiceberg"], lines["trino"]
    never = their_slope >= ours_slope
    meet = -1.0 if never else (their_start - ours_start) / (ours_slope - their_slope)
    return [
        figure("crossover_rows", [meet], "rows"),
        *(figure(f"{ENGINES[engine]}_start", [line[1]], "s") for engine, line in lines.items()),
        *(figure(f"{ENGINES[engine]}_seconds_a_million_rows", [line[0] * 1e6], "s") for engine, line in lines.items()),
    ]


def main() -> None:
    """Build the tables and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["one"])
    parser.add_argument("--fleet", type=Path)
    parser.add_argument("--table")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    given = parser.parse_args()
    if given.part == "one":
        show(one(given.fleet, given.table, verify=not given.plain))
        return
    figures: list[dict[str, Any]] = []
    seconds = {}
    with trino_lake() as found:
        bench = Bench(found)
        bench.build("warm", WARM_ROWS, WARM_ROWS // 80)
        for name in given.sizes:
            bench.build(name, SIZES[name])
            told, seconds[SIZES[name]] = measured(name, bench, given.rounds)
            figures += told
    show([*figures, *(crossover(seconds) if len(seconds) > 1 else [])])


if __name__ == "__main__":
    main()
