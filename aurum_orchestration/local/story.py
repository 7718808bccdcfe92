"""The demo's story: a lake of real flights goes sick, Dagster finds it, compacts it, and every row is still there.

It goes the way it would in production: a tick of the compaction sensor measures the lake and requests
runs, the jobs do the work, observations in Dagster's storage carry the numbers. Only the daemon, which
would call the sensor every minute, is played by this module.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
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
from aurum_orchestration.local import show
from aurum_orchestration.local.code_location import CodeLocation
from aurum_orchestration.local.lake import NAMESPACE, RECIPES, build_lake
from aurum_orchestration.local.proof import Contents, contents
from aurum_orchestration.local.questions import QUESTIONS, Answer, ask
from aurum_orchestration.local.show import Outcome
from aurum_orchestration.local.stack import BACKEND, Stack, create_catalog
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.maintenance.shapes import OperationReport
from aurum_orchestration.maintenance.threads import run_sync

SENSOR = f"compaction_{BACKEND}"
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
        self._chapter(1, "Real data: New York's flights of 2013, written as a stream does, into .aurum/warehouse")
        self._build(days)
        self._chapter(2, "The fleet before")
        dagster = self._load()
        dagster.launch("health")
        before = self._status()
        found_before = self._read()
        answers_before = self._ask()

        self._chapter(3, f"Dagster: a tick of the sensor {SENSOR}, and the runs it requests")
        self._follow_the_sensor(dagster)
        self._chapter(4, "The fleet after")
        self._status()
        found_after, answers_after = self._read(), self._ask()

        self._chapter(5, "The result: numbers from Dagster's observations, rows read by DuckDB before and after")
        outcomes = self._outcomes(dagster, found_before, found_after)
        result = [show.outcomes_table(outcomes), Text(), show.answers_table(answers_before, answers_after)]
        self._out.print(*result, sep="\n")
        self._check(outcomes, answers_before, answers_after)
        self._report(outcomes, answers_before, answers_after)
        if picture:
            show.save_picture(picture, "make demo", before, Text(), *result)

    def _build(self, days: int) -> None:
        with show.rows_coming(self._out) as written:
            build_lake(self._catalog, days=days, progress=written)

    def _load(self) -> CodeLocation:
        """The code location, loaded when the tables are known: they are its assets."""
        run_sync(self._service.discover())
        from aurum_orchestration.definitions import build_definitions

        return CodeLocation(build_definitions(), self._open.enter_context(dg.DagsterInstance.get()))

    def _status(self) -> RenderableType:
        rendered = render_status(run_sync(self._service.status()))
        self._out.print(rendered)
        return rendered

    def _read(self) -> Mapping[str, Contents]:
        return {name: contents(self._catalog, name) for name in RECIPES}

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

    def _outcomes(
        self, dagster: CodeLocation, before: Mapping[str, Contents], after: Mapping[str, Contents]
    ) -> list[Outcome]:
        outcomes = []
        for name in RECIPES:
            table = TableId(BACKEND, (NAMESPACE, name))
            points = dagster.observations(self._service.fleet.asset_key(table))
            if not points:
                raise InternalError("Dagster has no observation of it", table=str(table))
            debts = [float(point["debt_score"]) for point in points]
            outcomes.append(Outcome(str(table), before[name], after[name], debts[-1], debts[0]))
        return outcomes

    def _check(self, outcomes: Sequence[Outcome], before: Sequence[Answer], after: Sequence[Answer]) -> None:
        changed = [one.table for one in outcomes if not one.kept]
        if changed:
            raise VerificationError(f"the rows of {', '.join(changed)} are not the same as before")
        different = [old.question for old, new in zip(before, after, strict=True) if old.text != new.text]
        if different:
            raise VerificationError(f"answers changed: {' '.join(different)}")
        rows = sum(one.after.rows for one in outcomes)
        files = [sum(files) for files in zip(*((one.before.files, one.after.files) for one in outcomes), strict=True)]
        self._out.print()
        self._out.print(
            f"All {rows:,} rows are still there, by count and by checksum; {files[0]:,} files became {files[1]:,}. "
            f"This took {time.monotonic() - self._began:.0f} s.",
            style="bold green",
        )
        self._out.print(
            "See the plots in Dagster: make ui. On the command line: AURUM_HOME=.aurum .venv/bin/aurum status"
        )

    def _report(self, outcomes: Sequence[Outcome], before: Sequence[Answer], after: Sequence[Answer]) -> None:
        figures = {
            "seconds": round(time.monotonic() - self._began, 1),
            "tables": [asdict(one) for one in outcomes],
            "questions": [
                {"question": old.question, "seconds_before": old.seconds, "seconds_after": new.seconds}
                for old, new in zip(before, after, strict=True)
            ],
        }
        (self._stack.home / REPORT).write_text(json.dumps(figures, indent=2))

    def _chapter(self, number: int, title: str) -> None:
        self._out.print(f"\n[bold cyan]{number}  {title}[/]  [dim]{time.monotonic() - self._began:.0f} s[/]\n")
