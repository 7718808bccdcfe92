"""Bin-packing by Spark and Trino beside ours, in the same run: 10M rows in 2,000 files, the same local disk.

Spark has 2 threads, 4 GB and one full-size rewrite behind it before the first that counts; its start is not in its
time. So has Trino, where it is provisioned: the same rows in a catalog of its own, its bare ``optimize``, which proves
nothing. Ours goes through the service with verification on. After every rewrite the rows are counted and hashed by
DuckDB. Without Java, or before Spark was provisioned, this says what is missing and measures nothing.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb
from trino.dbapi import connect

from aurum_orchestration.local.engines.lake import Lake
from aurum_orchestration.local.engines.trino import ENGINE as TRINO
from aurum_orchestration_tests.servers import absence
from aurum_orchestration_tests.servers.spark import ENGINE, SparkCatalog, running
from benchmarks.compaction import ROWS_A_FILE, compact, floor_seconds, load, timed
from benchmarks.figures import figure, show
from benchmarks.processes import in_new_process
from benchmarks.tables import build_curves
from benchmarks.trino_lake import catalog_of, trino_lake

ROUNDS = 3
MEMORY = "4g"
TARGET_BYTES = 128 * 1024 * 1024
OPTIMIZE = "ALTER TABLE lake.bench.curves EXECUTE optimize(file_size_threshold => '96MB')"


def local(location: str) -> str:
    """The path of a data file: Java records ``file:/x`` where we record ``file:///x``."""
    return re.sub(r"^file:/+", "/", location)


def live_paths(home: Path) -> list[str]:
    """The data files of the table as it is."""
    return sorted(local(task.file.file_path) for task in load(home).scan().plan_files())


def digest(home: Path) -> Any:
    """Count and sum of hashes of the table's rows."""
    return digest_of(live_paths(home))


def digest_of(paths: list[str]) -> Any:
    """Count and sum of hashes of the rows of files."""
    with duckdb.connect() as connection:
        query = "SELECT count(*), sum(hash(t)::HUGEINT) FROM read_parquet($paths, hive_partitioning = false) t"
        return connection.execute(query, {"paths": paths}).fetchone()


def by_spark(java: SparkCatalog, options: str) -> Callable[[], Any]:
    """Spark's own rewrite."""
    text = (
        "CALL lake.system.rewrite_data_files(table => 'bench.curves', options => "
        f"map('target-file-size-bytes', '{TARGET_BYTES}'{options}))"
    )
    return lambda: java.sql(text)


def once(home: Path, work: Callable[[], Any], expected: Any) -> float:
    """Seconds of one rewrite of the small files, checked, then taken back."""
    table = load(home)
    base, before = table.metadata.current_snapshot_id, set(live_paths(home))
    assert base is not None
    seconds = timed(work)
    after = set(live_paths(home))
    if len(after) >= len(before) / 10 or digest(home) != expected:
        raise RuntimeError(f"{len(before)} files became {len(after)}, or the rows changed")
    load(home).manage_snapshots().set_current_snapshot(snapshot_id=base).commit()
    for path in after - before:
        Path(path).unlink()
    return seconds


class ByTrino:
    """The same rows in small files, in a catalog that Trino shares with PyIceberg."""

    def __init__(self, found: Lake, rows: int) -> None:
        self._lake, self._catalog = found, catalog_of(found)
        build_curves(found.place, rows, rows // ROWS_A_FILE, catalog=self._catalog)
        self._before = self._paths()

    def once(self) -> float:
        """Seconds of one optimize of the small files, counted, then taken back. Raises RuntimeError."""
        table = self._catalog.load_table("bench.curves")
        base = table.metadata.current_snapshot_id
        assert base is not None
        connection = connect(host="127.0.0.1", port=self._lake.trino_port, user="bench")  # type: ignore[no-untyped-call]
        cursor = connection.cursor()
        seconds = timed(lambda: cursor.execute(OPTIMIZE).fetchall())
        after = self._paths()
        if len(after) >= len(self._before) / 10 or digest_of(sorted(after)) != digest_of(sorted(self._before)):
            raise RuntimeError(f"Trino: {len(self._before)} files became {len(after)}, or the rows changed")
        self._catalog.load_table("bench.curves").manage_snapshots().set_current_snapshot(snapshot_id=base).commit()
        for path in after - self._before:
            Path(path).unlink()
        return seconds

    def _paths(self) -> set[str]:
        return {local(it.file.file_path) for it in self._catalog.load_table("bench.curves").scan().plan_files()}


def measure(home: Path, rounds: int, trino: ByTrino | None) -> list[dict[str, Any]]:
    """Floor, ours, Spark and Trino (None: not provisioned), alternating."""
    expected, paths = digest(home), live_paths(home)
    settings = {"spark.sql.shuffle.partitions": "2"}
    with running(home, memory=MEMORY, settings=settings) as spark:
        java = spark.catalog(home)
        works = {
            "ours": lambda: compact(home, verify=True),
            "spark": by_spark(java, ""),
            "spark_2_groups": by_spark(java, ", 'max-concurrent-file-group-rewrites', '2'"),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ("floor", *works, *(["trino"] if trino else []))}
        for number in range(rounds + 1):  # the first round warms all of them
            print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
            taken = {"floor": floor_seconds(paths, home)}
            taken |= {name: once(home, work, expected) for name, work in works.items()}
            taken |= {"trino": trino.once()} if trino else {}
            for name, one in taken.items() if number else ():
                seconds[name].append(one)
    best = min(("spark", "spark_2_groups"), key=lambda name: statistics.median(seconds[name]))
    return [
        *(figure(f"peer_{name}_seconds", found, "s") for name, found in seconds.items()),
        figure(
            "times_faster_than_spark",
            [theirs / ours for theirs, ours in zip(seconds[best], seconds["ours"], strict=True)],
            "ratio",
            3.3,
            "higher",
        ),
        *(
            [
                figure(
                    "times_faster_than_trino",
                    [theirs / ours for theirs, ours in zip(seconds["trino"], seconds["ours"], strict=True)],
                    "ratio",
                    better="higher",
                )
            ]
            if trino
            else []
        ),
    ]


def main() -> None:
    """Build the table and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    if ENGINE.find() is None:
        print(f"{absence(ENGINE)}\nJava 17 or newer and Maven are needed for it.", file=sys.stderr)
        sys.exit(1)
    with ExitStack() as opened:
        scratch = opened.enter_context(tempfile.TemporaryDirectory())
        home = Path(scratch) / "peers"
        in_new_process("compaction", "--part", "build", "--home", home, "--rows", arguments.rows)
        assert len(live_paths(home)) == arguments.rows // ROWS_A_FILE
        trino = None
        if TRINO.find() is None:
            print(f"without Trino: {absence(TRINO)}", file=sys.stderr)
        else:
            trino = ByTrino(opened.enter_context(trino_lake()), arguments.rows)
        show(measure(home, arguments.rounds, trino))


if __name__ == "__main__":
    main()
