"""``aurum maintenance``: operations one after the other over whole backends, and one object per operation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from aurum_orchestration.cli.activity import Activity
from aurum_orchestration.cli.output import print_object, print_text, stderr_console, stdout_console
from aurum_orchestration.cli.render.maintenance import render_summary
from aurum_orchestration.cli.session import FAILED, INTERRUPTED, Session
from aurum_orchestration.errors import RequestError, UnknownNameError, UnsupportedError
from aurum_orchestration.fleet.table_id import quote_part
from aurum_orchestration.maintenance.factory import MaintenanceFactory
from aurum_orchestration.maintenance.interfaces import MaintenanceResult, MaintenanceStatus
from aurum_orchestration.maintenance.summary import MaintenanceSummary, OperationSummary, SummaryMetadata
from aurum_orchestration.maintenance.utils import ALL, SQL

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.service import MaintenanceService
    from aurum_orchestration.maintenance.sharing import Shared


@dataclass
class Asked:
    """What the options ask for."""

    operations: Sequence[str]
    all_of_them: bool
    backends: Sequence[str]
    tables: Sequence[str]
    dry_run: bool


@dataclass
class _Done:
    """What has ended so far, for the output of an interrupted command, too."""

    asked: Asked
    backends: list[str] = field(default_factory=list)
    begun: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock: float = field(default_factory=time.monotonic)
    summaries: dict[str, OperationSummary] = field(default_factory=dict)
    running: str | None = None
    results: list[MaintenanceResult] = field(default_factory=list)
    shared: Shared | None = None

    def summary(self) -> MaintenanceSummary:
        if self.running is not None and self.running not in self.summaries:
            self.summaries[self.running] = OperationSummary.of(self.running, self.results, "interrupted")
        metadata = SummaryMetadata(
            timestamp=self.begun,
            duration_seconds=round(time.monotonic() - self.clock, 3),
            dry_run=self.asked.dry_run,
            database=self.backends[0] if len(self.backends) == 1 else self.backends,
        )
        return MaintenanceSummary(metadata=metadata, **self.summaries)


def maintenance(session: Session, asked: Asked) -> None:
    """Do the operations, each on every table of the backends that have it; go on after a failure."""
    done = _Done(asked)
    activity = Activity(stderr_console(), "Planning" if asked.dry_run else "Maintaining tables")

    async def carried_out(service: MaintenanceService) -> None:
        operations = _operations(asked)
        done.backends = _backends(service, asked)
        tables = {str(table): table.backend for table in await service.tables(asked.tables)} if asked.tables else None
        done.shared = service.sharing(operations)
        for operation in operations:
            done.running, done.results = operation, []
            done.summaries[operation] = await _one(service, operation, done, tables, activity)

    try:
        session.call(carried_out, activity)
    except KeyboardInterrupt:
        _print(session, done.summary())
        raise typer.Exit(INTERRUPTED) from None
    summary = done.summary()
    _print(session, summary)
    if any(
        one.status in {MaintenanceStatus.FAILED, MaintenanceStatus.CANCELLED} for one in summary.operations.values()
    ):
        raise typer.Exit(FAILED)


async def _one(
    service: MaintenanceService, operation: str, done: _Done, tables: dict[str, str] | None, activity: Activity
) -> OperationSummary:
    having = [name for name in service.backends_with(operation) if name in done.backends]
    if not having:
        return OperationSummary.of(operation, [], _no_backend(service, operation, done))
    # one backend after the other: that one has no table is nothing wrong, nobody gave its glob
    rounds = [[f"{quote_part(name)}.**"] for name in having]
    if tables is not None:
        rounds = [[table for table, backend in tables.items() if backend in having]]

    def on_result(result: MaintenanceResult) -> None:
        done.results.append(result)
        activity.ended(result)

    results: list[MaintenanceResult] = []
    for globs in filter(None, rounds):
        try:
            results += await service.maintain(
                globs,
                [operation],
                done.asked.dry_run,
                on_result=on_result,
                progress=activity.progress,
                shared=done.shared,
            )
        except UnknownNameError:
            if tables is not None:
                raise
    return OperationSummary.of(operation, results, f"{', '.join(having)}: no table")


def _operations(asked: Asked) -> list[str]:
    known = sorted({*MaintenanceFactory.operations(), *map(str, ALL)})
    if not asked.operations and not asked.all_of_them:
        raise RequestError(
            "nothing to do was named", hint=f"Give --all, or --operation with one of: {', '.join(known)}."
        )
    if asked.operations and asked.all_of_them:
        raise RequestError("--all and --operation exclude each other", hint="Give one of them.")
    named = list(map(str, ALL)) if asked.all_of_them else list(dict.fromkeys(asked.operations))
    for name in named:
        with suppress(UnsupportedError):
            MaintenanceFactory.create_operation(name)
    return named


def _backends(service: MaintenanceService, asked: Asked) -> list[str]:
    if asked.backends:
        return list(dict.fromkeys(service.backends.find(name, "").name for name in asked.backends))
    configs = service.fleet.backends
    return [name for name, config in configs.items() if not asked.all_of_them or config.type in SQL]


def _no_backend(service: MaintenanceService, operation: str, done: _Done) -> str:
    if not done.backends:
        there = ", ".join(f"{name} ({config.type})" for name, config in service.fleet.backends.items())
        return f"the fleet has no SQL backend, and --all means those; --backend names another: {there}"
    return f"{', '.join(done.backends)}: no {operation}"


def _print(session: Session, summary: MaintenanceSummary) -> None:
    if session.json:
        print_object(summary)
    else:
        print_text(stdout_console(), render_summary(summary))
