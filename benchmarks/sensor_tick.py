"""What 10,000 tables cost Dagster: loading the code location, and one evaluation of the compaction sensor.

The fleet is the one of ``measure_tables``: 2 % of its tables are sick. Fresh processes load and evaluate.
An evaluation is compared with its own measuring: the time inside the backend's ``discover`` and
``measure`` during that evaluation. Goal: at most 1.2 times that plus half a second.
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
from pathlib import Path
from typing import Any

from benchmarks.figures import figure, show
from benchmarks.measure_tables import SICK_SHARE, TABLES, build

FEW = 100
PASSES = 5
FLEET = """\
version: 1
backends:
  lake:
    type: iceberg
    catalog: {type: sql, uri: "sqlite:///${AURUM_HOME}/catalog.db", warehouse: "file://${AURUM_HOME}/warehouse"}
"""


def settings_of(home: Path) -> Any:
    """Settings of the code location whose lake is in ``home``."""
    from aurum_orchestration.settings import AurumSettings

    fleet = home / "fleet.yaml"
    fleet.write_text(FLEET)
    return AurumSettings(home=home, fleet=fleet)


def code_location(home: Path) -> Any:
    """The definitions as a code server imports them."""
    os.environ |= {"AURUM_HOME": str(home), "AURUM_FLEET": str(settings_of(home).fleet)}
    from aurum_orchestration.definitions import defs

    return defs


def load(home: Path) -> float:
    """Seconds from a bare interpreter to definitions that Dagster has accepted."""
    began = time.perf_counter()
    code_location(home).get_repository_def()
    return time.perf_counter() - began


def evaluate(home: Path) -> list[tuple[float, float, int]]:
    """(seconds of the evaluation, seconds of its measuring, runs requested): a cold one, then unchanged ones."""
    import dagster as dg

    definitions = code_location(home)
    repository = definitions.get_repository_def()
    resources = repository.get_top_level_resources()
    spent = _watched(definitions)
    sensor = repository.get_sensor_def("compaction_lake")
    found = []
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(1 + PASSES):
            spent.clear()
            with dg.build_sensor_context(instance, repository_def=repository, resources=resources) as context:
                began = time.perf_counter()
                tick = sensor.evaluate_tick(context)
                found.append((time.perf_counter() - began, sum(spent), len(tick.run_requests or [])))
    return found


def _watched(definitions: Any) -> list[float]:
    """A list that gets the seconds of each listing and each measurement of the backend."""
    backend = definitions.resources["aurum_service"].service.backends.get("lake")
    spent: list[float] = []

    def watch(name: str) -> None:
        inner = getattr(backend, name)

        def outer(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(*arguments, **named)
            finally:
                spent.append(time.perf_counter() - began)

        setattr(backend, name, outer)

    watch("discover")
    watch("measure")
    return spent


def remember(home: Path) -> None:
    """Fill the discovery cache, from which the code location loads."""
    from aurum_orchestration.maintenance.service import MaintenanceService
    from aurum_orchestration.maintenance.threads import run_sync

    run_sync(MaintenanceService(settings_of(home)).discover())


def figures(many: Path, few: Path, tables: int) -> list[dict[str, Any]]:
    """All figures, each from fresh processes."""
    ticks = _fresh("evaluate", many)
    loads, small = ([_fresh("load", home) for _ in range(3)] for home in (many, few))
    cold, warm = ticks[0], ticks[1:]
    wanted = -(-round(tables * SICK_SHARE) // 50)
    assert all(runs == wanted for _, _, runs in ticks), ticks
    return [
        figure("load_definitions", loads, "s"),
        figure(f"load_over_{FEW}_tables", [one / statistics.median(small) for one in loads], "ratio", goal=2.5),
        figure("tick_cold", [cold[0]], "s"),
        figure("tick_unchanged", [seconds for seconds, _, _ in warm], "s"),
        figure("tick_measuring_unchanged", [measuring for _, measuring, _ in warm], "s"),
        figure("tick_cold_over_allowance", [_over_allowance(cold)], "ratio", goal=1.0),
        figure("tick_unchanged_over_allowance", [_over_allowance(one) for one in warm], "ratio", goal=1.0),
        figure("runs_requested", [wanted], "runs"),
    ]


def _over_allowance(tick: tuple[float, float, int]) -> float:
    seconds, measuring, _ = tick
    return seconds / (1.2 * measuring + 0.5)


def _fresh(what: str, home: Path) -> Any:
    command = [sys.executable, "-m", "benchmarks.sensor_tick", "--in-process", what, "--home", str(home)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(ran.stdout.splitlines()[-1])


def main() -> None:
    """Build fleets in a temporary folder (or use given ones) and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, help="a folder with a fleet; built there when it is missing")
    parser.add_argument("--tables", type=int, default=TABLES)
    parser.add_argument("--in-process", choices=["load", "evaluate"])
    given = parser.parse_args()
    logging.getLogger("dagster").setLevel(logging.WARNING)
    if given.in_process:
        print(json.dumps({"load": load, "evaluate": evaluate}[given.in_process](given.home)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        many, few = given.home or Path(scratch) / "many", Path(scratch) / "few"
        for home, tables in ((many, given.tables), (few, FEW)):
            if not home.exists():
                build(home, tables)
            remember(home)
        show(figures(many, few, given.tables))


if __name__ == "__main__":
    main()
