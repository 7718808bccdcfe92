"""What Dagster and the command add to the work itself, at 100, 1,000 and 10,000 tables.

- ``definitions validate`` as a command; goal: at 10,000 tables at most 2.5 times that of 100 without checks, 4 times
  with the default ones (one for each table at 10,000, five at 100).
- a batch of 100 sick tables through the job ``compaction`` (in process, and as ``dagster job execute``), against
  the same batch through the service alone; goals per table: 10 ms in process, 60 ms with the launch.
- events and bytes of event log that one maintained table leaves; goals: 1.1 events, 3 KB.
- ``aurum status`` of 10,000 tables as a command; goal: 2 s from a cold start.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import figure, show
from benchmarks.measure_tables import build
from benchmarks.sensor_tick import FLEET, remember, settings_of
from benchmarks.tables import build_curves

SIZES = (100, 1_000, 10_000)
WITHOUT_CHECKS = "without_checks.yaml"
BATCH = 100
ROUNDS = 3
FILES, ROWS = 24, 480
"""Of each table in the batch: enough files to be compacted, so few rows that the work itself is short."""


def batch(home: Path, tables: int) -> None:
    """A lake of ``tables`` small tables that all need compaction."""
    for number in range(tables):
        build_curves(home, ROWS, FILES, days=1, name=f"t{number:03d}", commits=1)
    settings_of(home)
    remember(home)


def environment(home: Path, fleet: str) -> dict[str, str]:
    """Of a command that works on the lake in ``home`` by a fleet file there, with a Dagster home of its own."""
    dagster = home / "dagster"
    dagster.mkdir(exist_ok=True)
    (dagster / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    return {
        **os.environ,
        "AURUM_HOME": str(home),
        "AURUM_FLEET": str(home / fleet),
        "DAGSTER_HOME": str(dagster),
    }


def command(home: Path, *words: str, fleet: str = "fleet.yaml") -> float:
    """Wall seconds of a command of this environment."""
    began = time.perf_counter()
    binary = Path(sys.executable).with_name(words[0])
    subprocess.run([binary, *words[1:]], check=True, env=environment(home, fleet), capture_output=True)
    return time.perf_counter() - began


def by_service(home: Path) -> float:
    """Seconds of one round over the batch through the service."""
    from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
    from aurum_orchestration.maintenance.service import MaintenanceService
    from aurum_orchestration.maintenance.threads import run_sync

    service = MaintenanceService(settings_of(home))
    began = time.perf_counter()
    results = run_sync(service.maintain([], ["compaction"]))
    seconds = time.perf_counter() - began
    assert all(result.status is MaintenanceStatus.COMPLETED for result in results), results
    run_sync(service.close())
    return seconds


def by_job(home: Path) -> tuple[float, int, int]:
    """(seconds of the job in process, its events, their bytes)."""
    import dagster as dg

    from aurum_orchestration.definitions import build_definitions

    definitions = build_definitions(settings=settings_of(home))
    (home / "instance").mkdir()
    with dg.DagsterInstance.local_temp(str(home / "instance")) as instance:
        job = definitions.resolve_job_def("compaction")
        began = time.perf_counter()
        result = job.execute_in_process(instance=instance)
        seconds = time.perf_counter() - began
        assert result.success
        entries = instance.all_logs(result.run_id)
    return seconds, len(entries), sum(len(dg.serialize_value(entry)) for entry in entries)


def orchestration() -> list[dict[str, Any]]:
    """What the job and its launch cost per table, and what it leaves in the event log."""
    plain, job, launched = [], [], []
    events = size = base_events = base_size = 0
    for _ in range(ROUNDS):
        for kind in ("service", "job", "launch", "empty"):
            with tempfile.TemporaryDirectory() as folder:
                home = Path(folder)
                batch(home, 1 if kind == "empty" else BATCH)
                if kind == "service":
                    plain.append(_fresh("by_service", home))
                elif kind == "job":
                    seconds, events, size = _fresh("by_job", home)
                    job.append(seconds)
                elif kind == "launch":
                    launched.append(
                        command(
                            home,
                            "dagster",
                            "job",
                            "execute",
                            "-m",
                            "aurum_orchestration.definitions",
                            "-j",
                            "compaction",
                        )
                    )
                else:
                    _, base_events, base_size = _fresh("by_job", home)
    base = statistics.median(plain)
    more = BATCH - 1
    return [
        figure("service_batch_of_100", plain, "s"),
        figure("job_over_service_per_table", [(one - base) / BATCH * 1000 for one in job], "ms", goal=10),
        figure("launch_over_service_per_table", [(one - base) / BATCH * 1000 for one in launched], "ms", goal=60),
        figure("events_per_table", [(events - base_events) / more], "events", goal=1.1),
        figure("event_log_per_table", [(size - base_size) / more / 1024], "KiB", goal=3),
    ]


def loading(sizes: Sequence[int]) -> list[dict[str, Any]]:
    """What a growing fleet costs those who only look at it."""
    seconds: dict[int, list[float]] = {}
    unchecked: dict[int, list[float]] = {}
    found: list[dict[str, Any]] = []
    for tables in sizes:
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            build(home, tables)
            settings_of(home)
            remember(home)
            validate = ("dagster", "definitions", "validate", "-m", "aurum_orchestration.definitions")
            seconds[tables] = [command(home, *validate) for _ in range(ROUNDS)]
            found.append(figure(f"validate_{tables}", seconds[tables], "s"))
            (home / WITHOUT_CHECKS).write_text(f"{FLEET}policy: {{checks: {{names: []}}}}\n")
            unchecked[tables] = [command(home, *validate, fleet=WITHOUT_CHECKS) for _ in range(ROUNDS)]
            found.append(figure(f"validate_{tables}_without_checks", unchecked[tables], "s"))
            status = [command(home, "aurum", "status", "--output", "json") for _ in range(ROUNDS)]
            goal = 2.0 if tables == max(SIZES) else None
            found.append(figure(f"status_{tables}", status, "s", goal=goal))
    return [
        *found,
        figure("validate_most_over_fewest", _growth(seconds), "ratio", goal=4),
        figure("validate_without_checks_most_over_fewest", _growth(unchecked), "ratio", goal=2.5),
    ]


def _growth(seconds: dict[int, list[float]]) -> list[float]:
    few = statistics.median(seconds[min(seconds)])
    return [one / few for one in seconds[max(seconds)]]


def _fresh(what: str, home: Path) -> Any:
    words = [sys.executable, "-m", "benchmarks.code_location", "--in-process", what, "--home", str(home)]
    ran = subprocess.run(words, check=True, capture_output=True, text=True)
    return json.loads(ran.stdout.splitlines()[-1])


def main() -> None:
    """Build fleets in temporary folders and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["orchestration", "loading"])
    parser.add_argument("--tables", type=int, nargs="*", default=SIZES)
    parser.add_argument("--in-process", choices=["by_service", "by_job"])
    parser.add_argument("--home", type=Path)
    given = parser.parse_args()
    logging.getLogger("dagster").setLevel(logging.WARNING)
    if given.in_process:
        print(json.dumps({"by_service": by_service, "by_job": by_job}[given.in_process](given.home)))
        return
    figures = orchestration() if given.part != "loading" else []
    show([*figures, *(loading(given.tables) if given.part != "orchestration" else [])])


if __name__ == "__main__":
    main()
