"""The demo's last chapter: an operations table in PostgreSQL that nobody vacuumed, looked after by Dagster's jobs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import dagster as dg
import yaml
from rich.table import Table

from aurum_orchestration.cli.render.words import count, size
from aurum_orchestration.errors import InternalError, ProvisioningError, VerificationError
from aurum_orchestration.local import ops, show
from aurum_orchestration.local.code_location import CodeLocation
from aurum_orchestration.local.stack import Stack
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.maintenance.threads import run_sync

REPORT = "ops.json"
"""The figures, in the stack's folder."""

_JOBS = ("vacuum", "reindex")
_SHOWN = {"dead_tuples": count, "index_bytes": size, "index_bloat_bytes": size, "debt_score": "{:.0f}".format}


def tell(stack: Stack, days: int) -> None:
    """The chapter, on a stack whose lake is there. Raises AurumError when something is not as promised.

    The fleet of the stack's folder is the project's and this database; the database is ended again. Where no
    PostgreSQL can be had, says why and does nothing.
    """
    began, out = time.monotonic(), show.console()
    out.print("\n[bold cyan]6  The operations database: PostgreSQL, every flight written once and changed twice[/]\n")
    with ExitStack() as opened:
        try:
            database, port = opened.enter_context(ops.running(stack.home / "ops"))
        except ProvisioningError as error:
            out.print(f"Left out: {error.detail}")
            return
        path = stack.home / "fleet.yaml"
        path.write_text(
            yaml.safe_dump(
                ops.described(yaml.safe_load((stack.root / "fleet.yaml").read_text()), port), sort_keys=False
            )
        )
        os.environ["AURUM_FLEET"] = str(path)
        database.fill(days)
        rows = database.contents()
        service = MaintenanceService()
        opened.callback(lambda: run_sync(service.close()))
        run_sync(service.discover())
        from aurum_orchestration.dagster_edge.build import build_definitions

        dagster = CodeLocation(build_definitions(), opened.enter_context(dg.DagsterInstance.get()))
        key = service.fleet.asset_key(ops.TABLE)
        before = _look(dagster, key)
        for job in _JOBS:
            run = dagster.launch(job, {"ops": {job: {"config": {"tables": [str(ops.TABLE)]}}}})
            (result, *_) = service.history.operations(limit=1)
            out.print(f"Dagster's job {job} (run {run}): {result.reason}")
        after = _look(dagster, key)
        if database.contents() != rows:
            raise VerificationError(f"the rows of {ops.TABLE} are not the same as before")
    if after["dead_tuples"] or after["index_bytes"] >= before["index_bytes"]:
        raise InternalError(f"{ops.TABLE} is no better than before: {before}, {after}")
    out.print()
    out.print(_table(before, after))
    seconds = time.monotonic() - began
    out.print(
        f"\nAll {rows[0]:,} rows are still there, by count and by checksum. This took {seconds:.0f} s.",
        style="bold green",
    )
    out.print("The database is ended again; its last figures stay in Dagster.")
    figures = {"seconds": round(seconds, 1), "rows": rows[0], "before": before, "after": after}
    (stack.home / REPORT).write_text(json.dumps(figures, indent=2))


def _look(dagster: CodeLocation, key: Sequence[str]) -> Mapping[str, float]:
    """The table as Dagster's newest observation has it."""
    dagster.launch("health")
    seen = dagster.newest_observation(key)
    return {name: float(seen[name]) for name in _SHOWN}


def _table(before: Mapping[str, float], after: Mapping[str, float]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for heading in (str(ops.TABLE), "BEFORE", "AFTER"):
        table.add_column(heading, justify="left" if heading == str(ops.TABLE) else "right")
    for name, shown in _SHOWN.items():
        table.add_row(name.replace("_", " "), shown(before[name]), shown(after[name]))
    return table
