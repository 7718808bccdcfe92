"""What the commands do: ask the service once, and print what comes back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from aurum_orchestration import garbage
from aurum_orchestration.cli.activity import Activity
from aurum_orchestration.cli.output import (
    print_json,
    print_object,
    print_rows,
    print_text,
    speaks_unicode,
    stderr_console,
    stdout_console,
)
from aurum_orchestration.cli.render.status import render_discovered, render_status
from aurum_orchestration.cli.session import FAILED, INTERRUPTED, Session
from aurum_orchestration.cli.values import parse_parameters, parse_since
from aurum_orchestration.errors import AurumError, RequestError, UnknownNameError, nearest
from aurum_orchestration.maintenance.factory import MaintenanceFactory
from aurum_orchestration.maintenance.health_checks import DoctorReport, HealthCheckResult
from aurum_orchestration.maintenance.interfaces import MaintenanceResult, MaintenanceStatus, OperationType
from aurum_orchestration.maintenance.operations.undo import UNDO
from aurum_orchestration.maintenance.planner.rank import Budget
from aurum_orchestration.maintenance.shapes import HistoryEntry, OperationReport, TableEntry, TableStatus
from aurum_orchestration.maintenance.threads import in_thread

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.service import MaintenanceService

_log = logging.getLogger(__name__)
PLAN_STEPS_SHOWN = 10
_BAD_ENDS = {MaintenanceStatus.FAILED, MaintenanceStatus.CANCELLED}


def status(session: Session, tables: Sequence[str], operations: Sequence[str]) -> None:
    """``aurum status``."""
    activity = Activity(stderr_console(), "Measuring tables")
    with garbage.not_looked_for():
        examined = session.call(lambda service: service.health(tables, operations or None), activity)
        if session.json:
            print_rows([TableStatus.fields_of(*one) for one in examined])
        else:
            console = stdout_console()
            found = [TableStatus.of(*one) for one in examined]
            print_text(console, render_status(found, unicode=speaks_unicode(console)))
    if any(health.problem for health, _, _ in examined):
        raise typer.Exit(FAILED)


def explain(session: Session, table: str) -> None:
    """``aurum explain``."""
    from aurum_orchestration.cli.render.explain import render_explanation

    told = session.call(lambda service: service.explain(table), Activity(stderr_console(), "Measuring the table"))
    console = stdout_console()
    if session.json:
        print_object(told)
    else:
        print_text(console, render_explanation(told, unicode=speaks_unicode(console)))
    if told.problem:
        raise typer.Exit(FAILED)


def doctor(session: Session) -> None:
    """``aurum doctor``."""
    from aurum_orchestration.cli.render.doctor import render_doctor

    async def looked(service: MaintenanceService) -> list[HealthCheckResult]:
        results, switches = await asyncio.gather(service.doctor(), in_thread(_switches, service))
        return [*results, switches]

    report = DoctorReport.of(session.call(looked, Activity(stderr_console(), "Looking at everything")))
    if session.json:
        print_object(report)
    else:
        print_text(stdout_console(), render_doctor(report))
    if not report.healthy:
        raise typer.Exit(FAILED)


def report(session: Session, backends: Sequence[str]) -> None:
    """``aurum report``."""
    from aurum_orchestration.cli.render.databases import render_databases

    found = session.call(lambda service: service.report(backends), Activity(stderr_console(), "Asking the databases"))
    if session.json:
        print_object(found)
    else:
        print_text(stdout_console(), render_databases(found))
    if any(one.problem for one in found.databases):
        raise typer.Exit(FAILED)


def _switches(service: MaintenanceService) -> HealthCheckResult:
    begun = time.monotonic()
    from aurum_orchestration.dagster_edge.switches import switched_on

    return HealthCheckResult("dagster", switched_on(service.fleet.config.automation), time.monotonic() - begun)


def history(
    session: Session,
    *,
    tables: Sequence[str],
    operations: Sequence[str],
    statuses: Sequence[str],
    since: str | None,
    limit: int,
) -> None:
    """``aurum history``."""
    from aurum_orchestration.cli.render.reports import render_history

    async def recorded(service: MaintenanceService) -> list[MaintenanceResult]:
        moment = parse_since(since) if since else None
        _check_names(service, tables, operations)
        return service.history.operations(limit, moment, tables, operations, statuses)

    entries = [HistoryEntry.of(result) for result in session.call(recorded)]
    console = stdout_console()
    if session.json:
        print_json(HistoryEntry, entries)
    else:
        print_text(console, render_history(entries, unicode=speaks_unicode(console)))


def _check_names(service: MaintenanceService, tables: Sequence[str], operations: Sequence[str]) -> None:
    # the history also knows tables and operations that are gone, so it is asked first
    for glob in tables:
        if not service.history.operations(1, tables=[glob]):
            service.fleet.select([glob], [found.table for found in service.fleet.tables()])
    known = {*map(str, OperationType), *MaintenanceFactory.operations(), UNDO}
    for name in operations:
        if name not in known and not service.history.operations(1, operations=[name]):
            raise UnknownNameError(f"no operation is named {name!r}", hint=nearest(name, known))


def discover(session: Session, tables: Sequence[str]) -> None:
    """``aurum discover``."""
    failed: list[AurumError] = []

    async def discovered(service: MaintenanceService) -> list[TableEntry]:
        found = {one.table: one for one in await service.discover(lambda _backend, error: failed.append(error))}
        return [TableEntry.of(found[table]) for table in service.fleet.select(tables, found)]

    entries = session.call(discovered, Activity(stderr_console(), "Asking the backends"))
    if session.json:
        print_json(TableEntry, entries)
    elif entries or not failed:
        print_text(stdout_console(), render_discovered(entries))
    for error in failed:
        session.explain(error)
    if failed:
        raise typer.Exit(FAILED)


def maintain(
    session: Session,
    tables: Sequence[str],
    operations: Sequence[str],
    parameters: Sequence[str],
    cap: Budget,
    *,
    dry_run: bool,
) -> None:
    """``aurum run`` and, as a dry run, ``aurum plan``. Interrupted, it prints what had ended."""
    ended: list[MaintenanceResult] = []
    activity = Activity(stderr_console(), "Planning" if dry_run else "Maintaining tables")

    def on_result(result: MaintenanceResult) -> None:
        ended.append(result)
        activity.ended(result)
        _log.info(
            "%s of %s: %s, %s", result.config.operation_type, result.config.target_table, result.status, result.reason
        )

    async def maintained(service: MaintenanceService) -> list[MaintenanceResult]:
        given = _parameters(parameters, operations)
        return await service.maintain(
            tables, operations, dry_run, given, budget=cap, on_result=on_result, progress=activity.progress
        )

    try:
        results = session.call(maintained, activity)
    except KeyboardInterrupt:
        _print_reports(session, ended, dry_run=dry_run)
        raise typer.Exit(INTERRUPTED) from None
    _print_reports(session, results, dry_run=dry_run)
    if any(result.status in _BAD_ENDS for result in results):
        raise typer.Exit(FAILED)


def undo(session: Session, operation_id: str, *, dry_run: bool) -> None:
    """``aurum undo``."""
    activity = Activity(stderr_console(), "Planning" if dry_run else "Taking it back")
    result = session.call(lambda service: service.undo(operation_id, dry_run, progress=activity.progress), activity)
    _print_reports(session, [result], dry_run=dry_run)
    if result.status in _BAD_ENDS:
        raise typer.Exit(FAILED)


def _parameters(pairs: Sequence[str], operations: Sequence[str]) -> dict[str, Any]:
    if not pairs:
        return {}
    if len(operations) != 1:
        raise RequestError(
            "--parameter belongs to one operation", hint="Name it: --operation compaction --parameter key=value."
        )
    operation = MaintenanceFactory.create_operation(operations[0])
    return parse_parameters(pairs, operation.name, operation.Parameters)


def _print_reports(session: Session, results: Sequence[MaintenanceResult], *, dry_run: bool) -> None:
    from aurum_orchestration.cli.render.reports import render_plans, render_run

    reports = [OperationReport.of(result) for result in results]
    console = stdout_console()
    if session.json:
        print_json(OperationReport, reports)
    elif dry_run:
        print_text(console, render_plans(reports, max_steps=None if session.verbose else PLAN_STEPS_SHOWN))
    else:
        print_text(console, render_run(reports, unicode=speaks_unicode(console)))
