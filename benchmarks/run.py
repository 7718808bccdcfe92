"""Run every benchmark, each in a process of its own, and keep the figures as data.

``python -m benchmarks.run [NAME ...]`` writes benchmarks/results/latest.json and prints a table; with
``--keep`` the result also becomes the stored one that ``benchmarks.compare`` compares with.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

BENCHMARKS = [
    "compaction",
    "deletes_and_sort",
    "workloads",
    "point_queries",
    "manifests",
    "row_group_copy",
    "expiry",
    "orphans",
    "measure_tables",
    "sensor_tick",
    "code_location",
    "postgres_measure",
    "postgres_overhead",
    "postgres_retention",
]
TRINO = ["trino_compaction", "trino_overhead", "trino_measure"]
"""``make bench-trino``. They leave with :data:`NO_TRINO` and a sentence where there is none."""

NO_TRINO = 3
RESULTS = Path(__file__).parent / "results"
PACKAGES = ["pyarrow", "pyiceberg", "dagster", "numpy", "duckdb"]


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def met(figure: dict[str, Any]) -> bool | None:
    """Whether a figure reaches its goal; None when it has none."""
    if "goal" not in figure:
        return None
    if figure.get("better") == "higher":
        return bool(figure["value"] >= figure["goal"])
    return bool(figure["value"] <= figure["goal"])


def run(name: str) -> list[dict[str, Any]]:
    """One benchmark's figures."""
    began = time.perf_counter()
    print(f"benchmark {name} ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if answer.returncode == NO_TRINO and name in TRINO:
        return []
    answer.check_returncode()
    print(f"benchmark {name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return [{"benchmark": name, **one} for one in json.loads(answer.stdout)]


def show(figures: list[dict[str, Any]]) -> None:
    """Print the figures for a person."""
    table = Table("benchmark", "figure", "value", "± spread", "goal", "met")
    words = {True: "yes", False: "NO", None: ""}
    for one in figures:
        sign = "≥" if one.get("better") == "higher" else "≤"
        goal = f"{sign} {one['goal']:g}" if "goal" in one else ""
        table.add_row(
            one["benchmark"],
            one["name"],
            f"{one['value']:g} {one['unit']}",
            f"{one.get('spread', 0):g}",
            goal,
            words[met(one)],
        )
    Console(width=max(120, Console().width)).print(table)


def main() -> None:
    """Run, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"benchmarks to run; default: {', '.join(BENCHMARKS)}")
    parser.add_argument("--trino", action="store_true", help=f"those that need a Trino: {', '.join(TRINO)}")
    parser.add_argument("--keep", action="store_true", help="make this the stored result")
    arguments = parser.parse_args()
    figures = [one for name in arguments.names or (TRINO if arguments.trino else BENCHMARKS) for one in run(name)]
    result = {"measured_at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), "figures": figures}
    RESULTS.mkdir(exist_ok=True)
    for target in ["latest.json", *(["stored.json"] if arguments.keep else [])]:
        (RESULTS / target).write_text(json.dumps(result, indent=1) + "\n")
    show(figures)


if __name__ == "__main__":
    main()
