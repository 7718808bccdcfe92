"""Compaction of other kinds of rows against each one's floor: distinct strings, 200 columns, nested, TPC-H lineitem.

The floor is decoding the same files and encoding the same rows with bare pyarrow on two threads, strings that
repeat as dictionaries (which columns these are is told by hand), in the same process, alternating with the
compaction through the service, verification on. Peak memory is that of a process with one compaction. Lineitem
needs the command ``tpchgen-cli`` of the Python package of that name; without it this part is left out and said so.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.compaction import THREADS, compact, timed
from benchmarks.figures import figure, show
from benchmarks.processes import in_new_process, peak_mib
from benchmarks.tables import append_files, catalog_at

ROUNDS = 3
GROUPS_AT_ONCE = 500_000


@dataclass(frozen=True)
class Workload:
    """Rows to make, in so many files."""

    rows: int
    files: int
    make: Callable[[np.random.Generator, int, Path], pa.Table]
    strings: list[str] = field(default_factory=list)
    """Columns read as dictionaries by the floor."""
    dictionaries: list[str] | bool = False
    """Columns that the floor encodes with a dictionary."""


def distinct(rng: np.random.Generator, rows: int, _: Path) -> pa.Table:
    """Strings of which hardly one comes twice, of fixed and of different lengths."""
    numbers = rng.integers(0, 2**62, (4, rows))
    return pa.table(
        {
            "id": np.char.add(np.char.mod("%016x", numbers[0]), np.char.mod("%016x", numbers[1])),
            "url": np.char.add("https://example.org/items/", numbers[2].astype(str)),
            "session": np.char.mod("%012x", numbers[3] >> 16),
            "at": np.arange(rows),
        }
    )


def wide(rng: np.random.Generator, rows: int, _: Path) -> pa.Table:
    """200 columns: measurements, counters, flags and codes."""
    makers: list[Callable[[], Any]] = [
        lambda: rng.normal(0, 1, rows),
        lambda: rng.integers(0, 1000, rows),
        lambda: rng.integers(0, 2, rows).astype(bool),
        lambda: np.array([f"code-{number:02d}" for number in range(40)])[rng.integers(0, 40, rows)],
    ]
    return pa.table({f"{'fibs'[number % 4]}_{number:03d}": makers[number % 4]() for number in range(200)})


def nested(rng: np.random.Generator, rows: int, _: Path) -> pa.Table:
    """A struct, a list of structs and a map, with nulls."""
    lengths = rng.integers(0, 5, rows)
    offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32))
    count = int(lengths.sum())
    point = pa.StructArray.from_arrays(
        [pa.array(rng.normal(50, 5, rows)), pa.array(rng.normal(8, 3, rows)), pa.array(rng.integers(0, 99, rows))],
        ["lat", "lon", "quality"],
        mask=pa.array(rng.random(rows) < 0.1),
    )
    item = pa.StructArray.from_arrays(
        [pa.array(rng.integers(0, 10_000, count)), pa.array(rng.random(count), mask=rng.random(count) < 0.1)],
        ["sku", "price"],
    )
    # taken from few: millions of strings from numpy would come in chunks
    keys = pa.array([f"key-{number}" for number in range(20)]).take(pa.array(np.arange(count) % 20))
    values = pa.array([str(number) for number in range(100)]).take(pa.array(rng.integers(0, 100, count)))
    tags = pa.MapArray.from_arrays(offsets, keys, values)
    return pa.table(
        {"id": np.arange(rows), "point": point, "items": pa.ListArray.from_arrays(offsets, item), "tags": tags}
    )


def _tpchgen() -> str | None:
    """Where the generator of TPC-H tables is: in this Python's environment or on the path."""
    return shutil.which("tpchgen-cli", path=str(Path(sys.executable).parent)) or shutil.which("tpchgen-cli")


def lineitem(_: np.random.Generator, __: int, scratch: Path) -> pa.Table:
    """TPC-H lineitem at scale factor 1, without the dictionaries and the field ids of its generator."""
    subprocess.run(
        [_tpchgen() or "tpchgen-cli", "parquet", "-s", "1", "--tables", "lineitem", "--output-dir", str(scratch)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    [path] = scratch.rglob("lineitem*.parquet")
    rows = pq.read_table(path)
    path.unlink()
    plain = {pa.string_view(): pa.string(), pa.large_string(): pa.string()}
    return rows.cast(pa.schema([pa.field(one.name, plain.get(one.type, one.type)) for one in rows.schema]))


_CODES = [f"s_{number:03d}" for number in range(3, 200, 4)]
_FLAGS = ["l_returnflag", "l_linestatus", "l_shipinstruct", "l_shipmode"]
_FEW = ["l_linenumber", "l_quantity", "l_discount", "l_tax", "l_shipdate", "l_commitdate", "l_receiptdate", "l_suppkey"]
WORKLOADS = {
    "distinct_strings": Workload(3_000_000, 500, distinct),
    "wide": Workload(400_000, 200, wide, _CODES, [*_CODES, *(f"i_{number:03d}" for number in range(1, 200, 4))]),
    "nested": Workload(2_000_000, 500, nested, dictionaries=True),
    "lineitem": Workload(6_001_215, 1_000, lineitem, _FLAGS, _FLAGS + _FEW),
}


def build(home: Path, name: str, factor: float) -> None:
    """The table ``bench.NAME``."""
    work = WORKLOADS[name]
    rows = work.make(np.random.default_rng(20260103), int(work.rows * factor), home)
    catalog = catalog_at(home)
    catalog.create_namespace_if_not_exists("bench")
    table = catalog.create_table(f"bench.{name}", rows.schema, properties={"write.parquet.compression-codec": "zstd"})
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    rows = rows.cast(schema_to_pyarrow(table.schema()))
    folder = Path(table.location().removeprefix("file://")) / "data"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    each = -(-rows.num_rows // work.files)
    for start in range(0, rows.num_rows, each):
        paths.append(folder / f"{uuid.uuid4()}.parquet")
        pq.write_table(rows.slice(start, each), paths[-1], compression="zstd", compression_level=3)
    append_files(table, [f"file://{path}" for path in paths])


def floor(paths: list[str], work: Workload, scratch: Path) -> None:
    """Decode + encode of the files by two threads, each its half, a row group at a time."""

    def half(number: int) -> None:
        mine = paths[number::THREADS]
        groups = max(1, round(work.rows / THREADS / GROUPS_AT_ONCE))
        writer = None
        for part in np.array_split(np.array(mine), groups):
            tables = [
                pq.ParquetFile(path, read_dictionary=work.strings, pre_buffer=False).read(use_threads=False)
                for path in part
            ]
            rows = pa.concat_tables(tables).unify_dictionaries()
            if writer is None:
                writer = pq.ParquetWriter(
                    scratch / f"floor-{number}.parquet",
                    rows.schema,
                    compression="zstd",
                    compression_level=3,
                    use_dictionary=work.dictionaries,
                    store_schema=False,
                )
            writer.write_table(rows, row_group_size=rows.num_rows)
        assert writer is not None
        writer.close()

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(half, range(THREADS)))


def ratios(home: Path, name: str) -> Iterator[dict[str, Any]]:
    """The compaction against the floor, alternating."""
    pa.set_cpu_count(THREADS)
    table = catalog_at(home).load_table(f"bench.{name}")
    base = table.metadata.current_snapshot_id
    assert base is not None
    paths = [task.file.file_path.removeprefix("file://") for task in table.scan().plan_files()]
    floors, ours = [], []
    for _ in range(ROUNDS + 1):
        floors.append(timed(lambda: floor(paths, WORKLOADS[name], home)))
        # in two groups, so that both threads have work: the floor has halves too
        ours.append(timed(lambda: compact(home, name, **_halves(paths))))
        table = catalog_at(home).load_table(f"bench.{name}")
        for task in table.scan().plan_files():
            Path(task.file.file_path.removeprefix("file://")).unlink()
        table.manage_snapshots().set_current_snapshot(snapshot_id=base).commit()
    yield figure(f"{name}_floor_seconds", floors[1:], "s")
    yield figure(f"{name}_seconds", ours[1:], "s")
    shares = [least / one for least, one in zip(floors[1:], ours[1:], strict=True)]
    yield figure(f"{name}_share_of_floor", shares, "ratio", 0.6, "higher")


def _halves(paths: list[str]) -> dict[str, Any]:
    size = sum(Path(path).stat().st_size for path in paths) / 2**20
    return {"max_group_size_mb": int(size / 2) + 1}


def main() -> None:
    """Every kind of rows in processes of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["build", "ratios", "memory"])
    parser.add_argument("--home", type=Path)
    parser.add_argument("--name", choices=WORKLOADS)
    parser.add_argument("--factor", type=float, default=1.0, help="make so many times the rows")
    arguments = parser.parse_args()
    if arguments.part == "build":
        build(arguments.home, arguments.name, arguments.factor)
        show([])
    elif arguments.part == "ratios":
        show(list(ratios(arguments.home, arguments.name)))
    elif arguments.part == "memory":
        paths = [str(path) for path in arguments.home.rglob("data/*.parquet")]
        compact(arguments.home, arguments.name, **_halves(paths))
        show([figure(f"{arguments.name}_peak_rss", [peak_mib()], "MiB", 512)])
    else:
        found: list[dict[str, Any]] = []
        for name in [arguments.name] if arguments.name else WORKLOADS:
            if name == "lineitem" and _tpchgen() is None:
                print("lineitem is left out: no command tpchgen-cli (pip install tpchgen-cli)", file=sys.stderr)
                continue
            with tempfile.TemporaryDirectory() as scratch:
                given = ("--name", name, "--home", scratch)
                in_new_process("workloads", "--part", "build", *given, "--factor", arguments.factor)
                for part in ("ratios", "memory"):
                    found += in_new_process("workloads", "--part", part, *given)
        show(found)


if __name__ == "__main__":
    main()
