"""Compaction of 10M rows in 2,000 small files against the floor of this machine and against the naive way.

The floor is decoding the same files and encoding the same rows with bare pyarrow on two threads, without
planning, committing, verifying or holding more than one day in memory; it is measured in the same process,
alternating with the compaction. Peak memory is measured in processes of their own, on 10M and on 40M rows.
Everything goes through the service: plan, lease, verification, commit and record are in the time.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.table import Table

from aurum_orchestration.fleet.load import load_fleet
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.settings import AurumSettings
from benchmarks.figures import figure, show
from benchmarks.processes import in_new_process, peak_mib
from benchmarks.tables import build_curves, catalog_at

ROUNDS = 3
ROWS_A_FILE = 5_000
THREADS = 2
STRINGS = ["curve_id", "region", "product", "source", "currency"]
NUMBERS_WITH_DICTIONARY = ["day", "version", "volume", "quality"]


def timed(work: Callable[[], Any]) -> float:
    """Wall seconds of ``work``."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def floor_seconds(paths: list[str], scratch: Path) -> float:
    """Decode + encode of the files, a day at a time, two threads."""

    def decode(part: list[str]) -> pa.Table:
        return pa.concat_tables(
            [pq.ParquetFile(path, read_dictionary=STRINGS, pre_buffer=False).read(use_threads=False) for path in part]
        )

    def encode(job: tuple[int, pa.Table]) -> None:
        number, rows = job
        with pq.ParquetWriter(
            scratch / f"floor-{number}.parquet",
            rows.schema,
            compression="zstd",
            compression_level=3,
            use_dictionary=STRINGS + NUMBERS_WITH_DICTIONARY,
            store_schema=False,
        ) as writer:
            writer.write_table(rows, row_group_size=500_000)

    seconds = 0.0
    with ThreadPoolExecutor(THREADS) as pool:
        for _, day in groupby(sorted(paths), key=lambda path: path.rsplit("/", 1)[0]):
            files = list(day)
            half = len(files) // THREADS
            began = time.perf_counter()
            parts = list(pool.map(decode, [files[:half], files[half:]]))
            seconds += time.perf_counter() - began
            parts = [part.unify_dictionaries() for part in parts]
            began = time.perf_counter()
            list(pool.map(encode, enumerate(parts)))
            seconds += time.perf_counter() - began
    return seconds


def service_at(home: Path) -> MaintenanceService:
    """A service over the benchmark's catalog."""
    fleet = home / "fleet.yaml"
    fleet.write_text(
        "version: 1\nbackends:\n  lake:\n    type: iceberg\n    engine: pyiceberg\n"
        f'    catalog: {{type: sql, uri: "sqlite:///{home}/catalog.db", warehouse: "file://{home}/warehouse"}}\n'
    )
    settings = AurumSettings(home=home, fleet=fleet, history_url=f"sqlite:///{home}/history.db")
    return MaintenanceService(settings, fleet=load_fleet(fleet, settings))


def compact(home: Path, table: str = "curves", **parameters: Any) -> dict[str, float]:
    """Compact a table once through the service; the operation's metrics."""

    async def once() -> dict[str, float]:
        async with service_at(home) as service:
            result = await service.execute_maintenance(
                backend_type="lake",
                operation_type="compaction",
                target_table=f"lake.bench.{table}",
                parameters={"max_concurrent_groups": THREADS, **parameters},
            )
        if result.status != MaintenanceStatus.COMPLETED:
            raise RuntimeError(f"compaction ended {result.status}: {result.problem}")
        return result.metrics

    return asyncio.run(once())


def load(home: Path) -> Table:
    """The benchmark's table."""
    return catalog_at(home).load_table("bench.curves")


def reset(home: Path, snapshot_id: int) -> None:
    """Back to the small files, without what the compaction wrote."""
    table = load(home)
    written = [task.file.file_path for task in table.scan().plan_files()]
    table.manage_snapshots().set_current_snapshot(snapshot_id=snapshot_id).commit()
    kept = {task.file.file_path for task in load(home).scan().plan_files()}
    for path in set(written) - kept:
        Path(path.removeprefix("file://")).unlink()


def ratios(home: Path) -> list[dict[str, Any]]:
    """Compaction against floor and naive overwrite, alternating in this process."""
    table = load(home)
    base = table.metadata.current_snapshot_id
    assert base is not None
    paths = [task.file.file_path.removeprefix("file://") for task in table.scan().plan_files()]
    pa.set_cpu_count(THREADS)
    floors: list[float] = []
    verified: list[float] = []
    plain: list[float] = []
    for _ in range(ROUNDS + 1):
        floors.append(floor_seconds(paths, home))
        for verify, seconds in ((True, verified), (False, plain)):
            seconds.append(timed(partial(compact, home, verify=verify)))
            reset(home, base)
    # the first round warms the page cache and the imports
    floors, verified, plain = floors[1:], verified[1:], plain[1:]
    table = load(home)
    naive = timed(lambda: table.overwrite(table.scan().to_arrow()))
    reset(home, base)
    return [
        figure("compaction_floor_seconds", floors, "s"),
        figure("compaction_seconds", verified, "s"),
        figure("compaction_seconds_unverified", plain, "s"),
        figure("naive_overwrite_seconds", [naive], "s"),
        figure(
            "compaction_share_of_floor",
            [floor / ours for floor, ours in zip(floors, verified, strict=True)],
            "ratio",
            0.75,
            "higher",
        ),
        figure(
            "compaction_share_of_floor_unverified",
            [floor / ours for floor, ours in zip(floors, plain, strict=True)],
            "ratio",
            0.85,
            "higher",
        ),
        figure("compaction_times_naive", [naive / ours for ours in verified], "ratio", 4.0, "higher"),
    ]


def peak_memory(home: Path, name: str) -> list[dict[str, Any]]:
    """Peak resident memory of a process that does nothing but one verified compaction."""
    metrics = compact(home, verify=True)
    return [
        figure(f"compaction_peak_rss_{name}", [peak_mib()], "MiB", 512),
        figure(f"rows_{name}", [metrics["rows_rewritten"]], "rows"),
    ]


def main() -> None:
    """Build the tables and measure, each part in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["build", "ratios", "memory"])
    parser.add_argument("--home", type=Path)
    parser.add_argument("--name", default="10m")
    parser.add_argument("--rows", type=int, default=10_000_000)
    arguments = parser.parse_args()
    if arguments.part == "build":
        build_curves(arguments.home, arguments.rows, arguments.rows // ROWS_A_FILE)
        show([])
    elif arguments.part == "ratios":
        show(ratios(arguments.home))
    elif arguments.part == "memory":
        show(peak_memory(arguments.home, arguments.name))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            figures = []
            for name, factor in (("10m", 1), ("40m", 4)):
                home = Path(scratch) / name
                in_new_process("compaction", "--part", "build", "--home", home, "--rows", arguments.rows * factor)
                if factor == 1:
                    figures += in_new_process("compaction", "--part", "ratios", "--home", home)
                figures += in_new_process("compaction", "--part", "memory", "--home", home, "--name", name)
            show(figures)


if __name__ == "__main__":
    main()
