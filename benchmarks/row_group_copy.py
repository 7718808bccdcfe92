"""Compaction of a lake whose bytes sit in good row groups: copied, against copying files and against decoding all.

4 GB (``--gigabytes``) in files of about 64 MB, each one row group of 1M rows and 18 columns, and 500 files of
1,000 rows; target 512 MB. Everything goes through the service: plan, lease, verification, commit and record are
in the time. "Copying the same bytes" reads and writes the same files on two threads, 4 MiB at a time, into as
many files; dirty pages are written to disk before every measurement. Everything written is deleted at the end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import DoubleType, NestedField, StringType

from benchmarks.compaction import compact
from benchmarks.figures import figure, show
from benchmarks.processes import in_new_process, peak_mib
from benchmarks.tables import CURVES, append_files, catalog_at, curve_rows

THREADS = 2
ROUNDS = 3
DISTINCT = 4
LARGE_ROWS, SMALL_ROWS, SMALL_FILES = 1_000_000, 1_000, 500
PIECE = 4 * 1024 * 1024
WIDE = Schema(
    *CURVES.fields,
    *(NestedField(13 + number, f"factor_{number}", DoubleType(), required=False) for number in range(5)),
    NestedField(18, "hash", StringType(), required=False),
)


def rows_of(rng: np.random.Generator, count: int) -> pa.Table:
    """Rows with some columns that hardly compress, so that 1M rows take about 64 MB."""
    rows = curve_rows(rng, 0, count, first_id=0)
    for number in range(5):
        rows = rows.append_column(f"factor_{number}", pa.array(rng.random(count)))
    rows = rows.append_column("hash", pa.array(np.char.mod("%016x", rng.integers(0, 2**62, count))))
    return rows.cast(schema_to_pyarrow(WIDE))


def build(home: Path, gigabytes: float) -> Table:
    """The table ``bench.wide``."""
    catalog = catalog_at(home)
    catalog.create_namespace_if_not_exists("bench")
    table = catalog.create_table("bench.wide", WIDE, properties={"write.parquet.compression-codec": "zstd"})
    folder = Path(table.location().removeprefix("file://")) / "data"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20260102)
    large: list[Path] = []
    while sum(path.stat().st_size for path in large) < gigabytes * 1e9:
        path = folder / f"{uuid.UUID(bytes=rng.bytes(16))}.parquet"
        if len(large) < DISTINCT:
            rows = rows_of(rng, LARGE_ROWS)
            pq.write_table(rows, path, compression="zstd", compression_level=3, row_group_size=LARGE_ROWS)
        else:
            shutil.copyfile(large[len(large) % DISTINCT], path)
        large.append(path)
    small = []
    rows = rows_of(rng, SMALL_FILES * SMALL_ROWS)
    for number in range(SMALL_FILES):
        small.append(folder / f"{uuid.UUID(bytes=rng.bytes(16))}.parquet")
        pq.write_table(rows.slice(number * SMALL_ROWS, SMALL_ROWS), small[-1], compression="zstd", compression_level=3)
    # a large file, then its share of the small ones
    each = -(-len(small) // len(large))
    paths = [path for number, one in enumerate(large) for path in (one, *small[number * each : (number + 1) * each])]
    append_files(table, [f"file://{path}" for path in paths])
    return table


def timed(work: Callable[[], Any]) -> float:
    """Wall seconds of ``work``, begun with nothing left to be written to disk."""
    os.sync()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def live(home: Path) -> list[Path]:
    """The table's data files."""
    tasks = catalog_at(home).load_table("bench.wide").scan().plan_files()
    return [Path(task.file.file_path.removeprefix("file://")) for task in tasks]


def copy_files(paths: list[Path], folder: Path) -> None:
    """Copy the bytes of files on two threads."""
    folder.mkdir()

    def copy(path: Path) -> None:
        buffer = memoryview(bytearray(PIECE))
        with path.open("rb", buffering=0) as source, (folder / path.name).open("wb", buffering=0) as sink:
            while count := source.readinto(buffer):
                sink.write(buffer[:count])

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(copy, paths))


def reset(home: Path, snapshot_id: int, paths: list[Path]) -> None:
    """Back to the files ``paths``, without what a compaction wrote."""
    written = set(live(home)) - set(paths)
    table = catalog_at(home).load_table("bench.wide")
    table.manage_snapshots().set_current_snapshot(snapshot_id=snapshot_id).commit()
    for path in written:
        path.unlink()


def ratios(home: Path, rounds: int) -> list[dict[str, Any]]:
    """Copying row groups against copying files and against decoding, alternating in this process."""
    paths = live(home)
    base = catalog_at(home).load_table("bench.wide").metadata.current_snapshot_id
    assert base is not None
    ways: dict[str, dict[str, Any]] = {
        "copied": {},
        "copied_unverified": {"verify": False},
        "decoded": {"row_group_copy": False},
    }
    seconds: dict[str, list[float]] = {name: [] for name in ("files", *ways)}
    copied = 0.0
    for number in range(rounds + 1):
        seconds["files"].append(timed(lambda: copy_files(paths, home / "copies")))
        shutil.rmtree(home / "copies")
        for name, parameters in ways.items():
            if name == "decoded" and number > 1:
                continue  # long, and steady enough
            metrics: dict[str, float] = {}

            def once(found: dict[str, float] = metrics, given: dict[str, Any] = parameters) -> None:
                found.update(compact(home, "wide", target_file_size_mb=512, **given))

            seconds[name].append(timed(once))
            copied = max(copied, metrics.get("row_groups_copied", 0))
            reset(home, base, paths)
    # the first round warms the page cache and the imports
    files, ours, plain, decoded = (seconds[name][1:] for name in ("files", *ways))
    return [
        figure("files_copied_seconds", files, "s"),
        figure("row_group_copy_seconds", ours, "s"),
        figure("row_group_copy_seconds_unverified", plain, "s"),
        figure("decoded_seconds", decoded, "s"),
        figure("row_groups_copied", [copied], "row groups"),
        figure(
            "row_group_copy_share_of_file_copy",
            [floor / one for floor, one in zip(files, ours, strict=True)],
            "ratio",
            0.5,
            "higher",
        ),
        figure(
            "row_group_copy_share_of_file_copy_unverified",
            [floor / one for floor, one in zip(files, plain, strict=True)],
            "ratio",
            better="higher",
        ),
        figure("row_group_copy_times_decoding", [decoded[0] / one for one in ours], "ratio", 5.0, "higher"),
    ]


def peak_memory(home: Path) -> list[dict[str, Any]]:
    """Peak resident memory of a process that does nothing but one verified compaction."""
    compact(home, "wide", target_file_size_mb=512)
    return [figure("row_group_copy_peak_rss", [peak_mib()], "MiB", 512)]


def main() -> None:
    """Build the table and measure, each part in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["build", "ratios", "memory"])
    parser.add_argument("--home", type=Path)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    if arguments.part == "build":
        build(arguments.home, arguments.gigabytes)
        show([])
    elif arguments.part == "ratios":
        show(ratios(arguments.home, arguments.rounds))
    elif arguments.part == "memory":
        show(peak_memory(arguments.home))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            # a process's peak counts for those that it starts: build in one that ends
            in_new_process("row_group_copy", "--part", "build", "--home", scratch, "--gigabytes", arguments.gigabytes)
            figures = in_new_process(
                "row_group_copy", "--part", "ratios", "--home", scratch, "--rounds", arguments.rounds
            )
            show([*figures, *in_new_process("row_group_copy", "--part", "memory", "--home", scratch)])


if __name__ == "__main__":
    main()
