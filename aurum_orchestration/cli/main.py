"""The ``aurum`` command: its commands, their options and their help.

Help must come at once, so what the commands do is imported when one runs.
"""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aurum_orchestration import garbage
from aurum_orchestration.cli import local, options
from aurum_orchestration.cli.help import OperationsCommand, OperationsGroup
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus

if TYPE_CHECKING:
    from aurum_orchestration.cli.session import Session

app = typer.Typer(
    name="aurum",
    cls=OperationsGroup,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(local.app, name="local")


class Period(StrEnum):
    """What ``aurum maintenance --schedule`` takes."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


@dataclass(frozen=True)
class _Globals:
    fleet: Path | None
    verbose: int


def _print_version(wanted: bool) -> None:
    if wanted:
        from aurum_orchestration import __version__

        typer.echo(f"aurum {__version__}")
        raise typer.Exit


@app.callback()
def _globals(
    context: typer.Context,
    *,
    fleet: options.FleetFile = None,
    verbose: options.Verbose = 0,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Keep every table of a data platform healthy, and prove that no row was lost.

    Exit codes: 0 done, 1 something failed, 2 bad usage or configuration, 130 interrupted.
    """
    context.obj = _Globals(fleet, verbose)


def _session(context: typer.Context, output: options.OutputFormat, fleet: Path | None, verbose: int) -> Session:
    from aurum_orchestration.cli.session import Session

    given = context.find_object(_Globals)
    if given is not None:
        fleet, verbose = fleet or given.fleet, verbose or given.verbose
    return Session(output, fleet, verbose)


@app.command(cls=OperationsCommand)
def status(
    context: typer.Context,
    *,
    table: options.Tables = None,
    operation: options.Operations = None,
    output: options.Output = options.OutputFormat.TEXT,
    fleet: options.FleetFile = None,
    verbose: options.Verbose = 0,
) -> None:
    """Show what each table needs, and why."""
    from aurum_orchestration.cli import commands

    commands.status(_session(context, output, fleet, verbose), table or (), operation or ())


@app.command()
def explain(
    context: typer.Context,
    table: Annotated[str, typer.Argument(metavar="TABLE", help="Id of the table.")],
    *,
    output: options.ObjectOutput = options.OutputFormat.TEXT,
    fleet: options.FleetFile = None,
    verbose: options.Verbose = 0,
) -> None:
    """Show what holds for one table, and where each value comes from.

    Its policies value by value, its calendar, its owners, and what the planner makes of it now.
    """
    from aurum_orchestration.cli import commands

    commands.explain(_session(context, output, fleet, verbose), table)


@app.command()
def init(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")] = Path("fleet.yaml"),
    *,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the backend: the first part of table ids.")
    ] = "lake",
    catalog: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A PyIceberg catalog property, e.g. uri=... or warehouse=...; ${VARIABLE} is kept. Repeat for "
            "several. None: PyIceberg's own configuration of the catalog NAME.",
        ),
    ] = None,
    time_zone: Annotated[str, typer.Option(metavar="ZONE", help="Zone of schedules and windows.")] = "UTC",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    verbose: options.Verbose = 0,
) -> None:
    """Write a commented fleet.yaml for a live Iceberg catalog.

    Lists and measures its tables. Secrets do not go into the file: it names environment variables for them.
    """
    from aurum_orchestration.cli import init as scaffold

    given = context.find_object(_Globals)
    verbose = verbose or (given.verbose if given else 0)
    scaffold.init(file, name, catalog or (), time_zone, force=force, verbose=verbose)


@app.command()
def doctor(
    context: typer.Context,
    *,
    output: options.ObjectOutput = options.OutputFormat.TEXT,
    fleet: options.FleetFile = None,
    verbose: options.Verbose = 0,
) -> None:
    """Check what maintenance needs: each backend, the history, the fleet file, and what would fail tonight.

    Reachability, versions, rights, clocks, free space, and which schedules and sensors are on. Writes nothing.
    """
    from aurum_orchestration.cli import commands

    commands.doctor(_session(context, output, fleet, verbose))


@app.command()
def report(
    context: typer.Context,
    *,
    backend: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this backend, by name or type. Repeat for several. Default: all."),
    ] = None,
    output: options.ObjectOutput = options.OutputFormat.TEXT,
    fleet: options.FleetFile = None,
    verbose: options.Verbose = 0,
) -> None:
    """Show what is known of each database.

    Sizes, unused and invalid indexes, long-running queries, locks with who holds them, and how long its
    maintenance would take. Writes nothing.
    """
    from aurum_orchestration.cli import commands

    commands.report(_session(context, output, fleet, verbose), backend or ())


@app.command(cls=OperationsCommand)
def plan(
    context: typer.Context,
    *,
    table: options.Tables = None,
    operation: options.RunOperations = None,
    parameter: options.Parameters = None,
    max_tables: options.MaxTables = None,
    max_minutes: options.MaxMinutes = None,
    max_gib: options.MaxGib = None,
    output: options.Output = options.OutputFormat.TEXT,
    fleet: options.FleetFile = None,
    verbose: options.Verbose = 0,
) -> None:
    """Show what a run would do now. Writes nothing.

    Each step with its risk, and why the other tables are left alone.
    """
    from aurum_orchestration.cli import commands
    from aurum_orchestration.maintenance.planner.rank import Budget

    session, budget = _session(context, output, fleet, verbose), Budget.of(max_tables, max_minutes, max_gib)
    commands.maintain(session, table or (), operation or (), parameter or (), budget, dry_run=True)


@app.command(cls=OperationsCommand)
def run(
    context: typer.Context,
    *,
    table: options.Tables = None,
    operation: options.RunOperations = None,
    parameter: options.Parameters = None,
    max_tables: options.MaxTables = None,
    max_minutes: options.MaxMinutes = None,
    max_gib: options.MaxGib = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only plan: the same as aurum plan.")] = False,
    output: options.Output = options.OutputFormat.TEXT,
    fleet: options.FleetFile = None,
    verbose: options.Verbose = 0,
) -> None:
    """Maintain the tables that need it.

    Proves that every row is still there, and records what was done. Without --operation it does what each
    table needs by its policy.
    """
    from aurum_orchestration.cli import commands
    from aurum_orchestration.maintenance.planner.rank import Budget

    session, budget = _session(context, output, fleet, verbose), Budget.of(max_tables, max_minutes, max_gib)
    commands.maintain(session, table or (), operation or (), parameter or (), budget, dry_run=dry_run)


@app.command(cls=OperationsCommand)
def maintenance(
    context: typer.Context,
    *,
    operation: options.MaintenanceOperations = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Do vacuum, reindex, cleanup, logs, sessions, views, stats, bloat and backup, in this order, on the "
            "SQL backends or those that --backend names.",
        ),
    ] = False,
    backend: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this backend, by name or type. Repeat for several."),
    ] = None,
    table: options.Tables = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    schedule: Annotated[
        Period | None,
        typer.Option(help="Instead of doing anything now, switch a schedule of Dagster's on. Needs DAGSTER_HOME."),
    ] = None,
    output: options.ObjectOutput = options.OutputFormat.TEXT,
    fleet: options.FleetFile = None,
    verbose: options.Verbose = 0,
) -> None:
    """Do operations one after the other over whole backends.

    Goes on after a failure. Prints one object per operation, with counts added up over its tables.
    """
    session = _session(context, output, fleet, verbose)
    if schedule is not None:
        from aurum_orchestration.cli import scheduling

        others = bool(operation or everything or backend or table)
        scheduling.schedule(session, schedule, alone=not others, dry_run=dry_run)
        return
    from aurum_orchestration.cli import maintenance as upkeep

    upkeep.maintenance(session, upkeep.Asked(operation or (), everything, backend or (), table or (), dry_run))


@app.command(cls=OperationsCommand)
def history(
    context: typer.Context,
    *,
    table: options.Tables = None,
    operation: options.Operations = None,
    status: Annotated[
        list[MaintenanceStatus] | None,
        typer.Option(metavar="STATUS", help=f"Only {', '.join(MaintenanceStatus)}. Repeat for several."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Only operations started since: 7d, 24h, 30min ago, or an ISO date or time."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most this many, the newest.")] = 10,
    output: options.Output = options.OutputFormat.TEXT,
    fleet: options.FleetFile = None,
    verbose: options.Verbose = 0,
) -> None:
    """Show what was done, and how to take it back."""
    from aurum_orchestration.cli import commands

    commands.history(
        _session(context, output, fleet, verbose),
        tables=table or (),
        operations=operation or (),
        statuses=status or (),
        since=since,
        limit=limit,
    )


@app.command()
def undo(
    context: typer.Context,
    operation_id: Annotated[
        str, typer.Argument(metavar="OPERATION_ID", help="Id of the operation, as aurum history prints it.")
    ],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    output: options.Output = options.OutputFormat.TEXT,
    fleet: options.FleetFile = None,
    verbose: options.Verbose = 0,
) -> None:
    """Take an operation back.

    Refused when others have committed since: nobody's commit is ever lost.
    """
    from aurum_orchestration.cli import commands

    commands.undo(_session(context, output, fleet, verbose), operation_id, dry_run=dry_run)


@app.command()
def discover(
    context: typer.Context,
    *,
    table: options.Tables = None,
    output: options.Output = options.OutputFormat.TEXT,
    fleet: options.FleetFile = None,
    verbose: options.Verbose = 0,
) -> None:
    """List the tables that the backends have.

    What is found is remembered, so that Dagster knows the tables while a backend is down.
    """
    from aurum_orchestration.cli import commands

    commands.discover(_session(context, output, fleet, verbose), table or ())


def main() -> None:
    """Run the command that ``sys.argv`` asks for and exit with its code."""
    garbage.seldom_looked_for()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="aurum")
    finally:
        gc.freeze()  # nor is it worth looking through everything twice at the end
