"""The demo's story: a lake of real flights goes sick, Dagster finds it, compacts it, and every row is still there.

It goes the way it would in production: a tick of the compaction sensor measures the lake and requests
runs, the jobs do the work, observations in Dagster's storage carry the numbers. Only the daemon, which
would call the sensor every minute, is played by this module.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

import dagster as dg
from rich.console import RenderableType
from rich.text import Text

from aurum_orchestration.cli.render.reports import render_run
from aurum_orchestration.cli.render.status import render_status
from aurum_orchestration.errors import InternalError, VerificationError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.local import show, side_by_side
from aurum_orchestration.local.code_location import CodeLocation
from aurum_orchestration.local.lake import NAMESPACE, RECIPES, create_lake, fill_lake
from aurum_orchestration.local.proof import contents
from aurum_orchestration.local.questions import QUESTIONS, Answer, ask
from aurum_orchestration.local.show import Observed, Outcome
from aurum_orchestration.local.side_by_side import Compaction
from aurum_orchestration.local.stack import BACKEND, Stack, create_catalog
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.maintenance.shapes import OperationReport
from aurum_orchestration.maintenance.threads import run_sync

SENSOR = f"compaction_{BACKEND}"
WATCHED, LOOKS = "flights", (0.2, 0.4, 0.6, 0.8, 1.0)
"""The table whose growth is followed while it is written, and the shares of its rows after which it is measured."""

REPORT = "demo.json"
"""Written last, into the stack's folder: the figures, and the sign that the demo went through."""


class Story:
    """One telling on a prepared stack. Use it as a context manager."""

    def __init__(self, stack: Stack) -> None:
        self._began = time.monotonic()
        self._stack = stack
        self._out = show.console()
        self._service = MaintenanceService()
        self._catalog = create_catalog(self._service.fleet)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.callback(self._catalog.close)
        self._open.callback(lambda: run_sync(self._service.close()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def tell(self, *, days: int, picture: Path | None) -> None:
        """All of it. Raises AurumError when something is not as promised."""
        where = ".aurum/local/warehouse" if self._stack.through_trino else ".aurum/warehouse"
        self._chapter(1, f"Real data: New York's flights of 2013, written as a stream does, into {where}")
        create_lake(self._catalog)
        dagster = self._load()
        self._fill(dagster, days)
        self._chapter(2, "The fleet before")
        dagster.launch("health")
        before = self._status()
        observed_before = self._observe(dagster)
        answers_before = self._ask()
        embedded = self._embedded() if self._stack.through_trino else []

        self._chapter(3, f"Dagster: a tick of the sensor {SENSOR}, and the runs it requests")
        self._follow_the_sensor(dagster)
        self._chapter(4, "The fleet after")
        self._status()
        observed_after, answers_after = self._observe(dagster), self._ask()

        self._chapter(5, "The result: numbers from Dagster's observations, rows read by DuckDB before and after")
        outcomes = [Outcome(*both) for both in zip(observed_before, observed_after, strict=True)]
        result = [show.outcomes_table(outcomes), Text(), show.answers_table(answers_before, answers_after)]
        self._out.print(*result, sep="\n")
        engines = [*embedded, *self._by_trino(outcomes)] if embedded else []
        if engines:
            self._out.print("\n[bold]Both engines, the same tables from the same start, checked by DuckDB[/]")
            self._out.print("Trino has just been started, and its first statements are its slowest.\n")
            self._out.print(side_by_side.table_of(engines))
        self._check(outcomes, answers_before, answers_after, engines)
        self._report(outcomes, answers_before, answers_after, engines)
        if picture:
            show.save_picture(picture, "make demo", before, Text(), *result)

    def _fill(self, dagster: CodeLocation, days: int) -> None:
        """Write the rows; the job `health` looks at the lake now and then, so that plots show how it goes sick."""
        looks = iter(LOOKS)
        next_look = next(looks)

        def written(name: str, done: int, total: int) -> None:
            nonlocal next_look
            show_bar(name, done, total)
            if name == WATCHED and done >= next_look * total:
                dagster.launch("health")
                next_look = next(looks, 2)

        with show.rows_coming(self._out) as show_bar:
            fill_lake(self._catalog, days=days, progress=written)

    def _load(self) -> CodeLocation:
        """The code location, loaded when the tables are known: they are its assets."""
        run_sync(self._service.discover())
        from aurum_orchestration.dagster_edge.build import build_definitions

        return CodeLocation(build_definitions(), self._open.enter_context(dg.DagsterInstance.get()))

    def _status(self) -> RenderableType:
        rendered = render_status(run_sync(self._service.status()))
        self._out.print(rendered)
        return rendered

    def _ask(self) -> list[Answer]:
        with self._out.status("asking three questions"):
            return [ask(self._catalog, question) for question in QUESTIONS]

    def _follow_the_sensor(self, dagster: CodeLocation) -> None:
        tick = dagster.tick(SENSOR)
        if not tick.run_requests:
            raise InternalError(f"the sensor requested nothing: {tick.words}")
        self._out.print(f"It says: {tick.words}")
        for request in tick.run_requests:
            job = request.job_name or "compaction"
            tables = request.run_config["ops"][job]["config"]["tables"]
            self._out.print(f"It requests: {job} of {', '.join(tables)} (run key {request.run_key})\n")
            with show.files_going(self._out, self._catalog, [TableId.parse(table).name for table in tables]):
                run = dagster.launch(
                    job,
                    request.run_config,
                    {**request.tags, "dagster/sensor_name": SENSOR, "dagster/run_key": request.run_key or ""},
                )
            self._out.print(f"\nRun {run} is done. The history has recorded:\n")
        results = self._service.history.operations(limit=len(RECIPES))
        self._out.print(render_run([OperationReport.of(result) for result in results]))
        self._out.print()
        again = dagster.tick(SENSOR)
        self._out.print(f"The next tick says: {again.words}")
        if again.run_requests:
            raise InternalError("the sensor still asks for compaction after it was done")

    def _embedded(self) -> list[Compaction]:
        """What the embedded engine makes of the sick tables, which are as before afterwards."""
        self._out.print("\nFirst the embedded engine compacts the sick tables, and `undo` takes it back:")
        found = []
        for one in side_by_side.by_embedded(self._catalog, self._stack.fleet_embedded, self._stack.home / "embedded"):
            self._out.print(f"  {one.table}: {one.before.files:,} files became {one.after.files:,}; taken back")
            found.append(one)
        return found

    def _by_trino(self, outcomes: Sequence[Outcome]) -> list[Compaction]:
        """What Trino made of the same tables when the sensor asked for it."""
        by_table = {one.after.table: one for one in outcomes}
        return [
            Compaction(
                result.config.target_table,
                "Trino",
                result.seconds,
                by_table[result.config.target_table].before.contents,
                by_table[result.config.target_table].after.contents,
            )
            for result in self._service.history.operations(limit=len(RECIPES))
        ]

    def _observe(self, dagster: CodeLocation) -> list[Observed]:
        """Each table as the newest observation in Dagster's storage and an independent reader have it."""
        found = []
        for name in RECIPES:
            table = TableId(BACKEND, (NAMESPACE, name))
            observation = dagster.newest_observation(self._service.fleet.asset_key(table))
            found.append(Observed(str(table), float(observation["debt_score"]), contents(self._catalog, name)))
        return found

    def _check(
        self,
        outcomes: Sequence[Outcome],
        before: Sequence[Answer],
        after: Sequence[Answer],
        engines: Sequence[Compaction],
    ) -> None:
        changed = [one.before.table for one in outcomes if not one.kept]
        changed += [f"{one.table} ({one.engine})" for one in engines if not one.kept]
        if changed:
            raise VerificationError(f"the rows of {', '.join(changed)} are not the same as before")
        different = [old.question for old, new in zip(before, after, strict=True) if old.text != new.text]
        if different:
            raise VerificationError(f"answers changed: {' '.join(different)}")
        rows = sum(one.after.contents.rows for one in outcomes)
        files = [
            sum(files)
            for files in zip(*((one.before.contents.files, one.after.contents.files) for one in outcomes), strict=True)
        ]
        self._out.print()
        self._out.print(
            f"All {rows:,} rows are still there, by count and by checksum; {files[0]:,} files became {files[1]:,}. "
            f"This took {time.monotonic() - self._began:.0f} s.",
            style="bold green",
        )
        self._out.print(
            "See the plots in Dagster: make ui. On the command line: "
            + ("AURUM_FLEET=.aurum/fleet.yaml " if self._stack.through_trino else "")
            + "AURUM_HOME=.aurum .venv/bin/aurum status"
        )
        if self._stack.through_trino:
            self._out.print("Trino goes on running; make trino DOWN=1 ends it.")

    def _report(
        self,
        outcomes: Sequence[Outcome],
        before: Sequence[Answer],
        after: Sequence[Answer],
        engines: Sequence[Compaction],
    ) -> None:
        figures = {
            "seconds": round(time.monotonic() - self._began, 1),
            "tables": [asdict(one) for one in outcomes],
            "questions": [
                {"question": old.question, "seconds_before": old.seconds, "seconds_after": new.seconds}
                for old, new in zip(before, after, strict=True)
            ],
            "engines": [asdict(one) for one in engines],
        }
        (self._stack.home / REPORT).write_text(json.dumps(figures, indent=2))

    def _chapter(self, number: int, title: str) -> None:
        self._out.print(f"\n[bold cyan]{number}  {title}[/]  [dim]{time.monotonic() - self._began:.0f} s[/]\n")
