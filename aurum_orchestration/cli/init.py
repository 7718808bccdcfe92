"""``aurum init``: from a live catalog to a first fleet.yaml."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from aurum_orchestration.cli.activity import Activity
from aurum_orchestration.cli.options import OutputFormat
from aurum_orchestration.cli.output import stderr_console
from aurum_orchestration.cli.session import Session
from aurum_orchestration.errors import AurumError, ConfigurationError, RequestError, StorageWriteError
from aurum_orchestration.fleet.scaffold import Namespace, backend_text, fleet_text, without_secrets
from aurum_orchestration.fleet.table_id import quote_part

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.service import MaintenanceService
    from aurum_orchestration.maintenance.survey import Examined


def init(file: Path, name: str, pairs: Sequence[str], zone: str, *, force: bool, verbose: int) -> None:
    """Look at the catalog, write the file, and say what to do next. A file that is there stays unless ``force``."""
    with tempfile.TemporaryDirectory(prefix="aurum-init-") as folder:
        draft = Path(folder) / "fleet.yaml"

        async def written(service: MaintenanceService) -> tuple[int, list[str]]:
            properties, secrets = without_secrets(name, _properties(pairs))
            for secret in secrets:
                os.environ[secret.variable] = secret.value  # for this process: the file is read as it will be
            _write(draft, backend_text(name, properties, zone))
            failed: list[AurumError] = []
            try:
                await service.discover(lambda _backend, error: failed.append(error))
            except ConfigurationError as error:
                told = error.detail.replace(str(draft), f"the draft of {file}")
                raise ConfigurationError(told, hint=error.hint) from error
            if failed:
                raise failed[0]
            examined = await service.health()
            _write(file, fleet_text(name, properties, _namespaces(examined), zone), new=not force)
            return len(examined), [secret.variable for secret in secrets]

        session = Session(OutputFormat.TEXT, draft, verbose)
        tables, variables = session.call(written, Activity(stderr_console(), "Measuring tables"))
    typer.echo(f"{file}: {tables:,} tables of {name}.")
    if not tables:
        typer.echo("A SQL catalog lists only the tables under its own name: --catalog name=NAME.")
    if variables:
        typer.echo(f"Set before each command: {', '.join(variables)}.")
    typer.echo("Next: aurum doctor, then aurum status.")


def _properties(pairs: Sequence[str]) -> dict[str, str]:
    properties: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise RequestError(f"--catalog {key!r} has no value", hint="Write --catalog key=value.")
        properties[key] = value
    return properties


def _namespaces(examined: Sequence[Examined]) -> list[Namespace]:
    members: dict[str, list[Examined]] = defaultdict(list)
    for one in examined:
        space = ".".join(map(quote_part, (one[0].table.backend, *one[0].table.namespace)))
        members[f"{space}.*"].append(one)
    return [
        Namespace(
            glob=glob,
            tables=len(found),
            needy=sum(any(decision.act for decision in decisions) for _, _, decisions in found),
            worst_debt=max(debt for _, debt, _ in found),
            unmeasured=sum(health.problem is not None for health, _, _ in found),
        )
        for glob, found in sorted(members.items())
    ]


def _write(file: Path, text: str, *, new: bool = False) -> None:
    try:
        with file.open("x" if new else "w", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise RequestError(f"{file} is there already", hint="Name another file, or replace it with --force.") from None
    except OSError as error:
        raise StorageWriteError(f"{file} cannot be written: {error}", hint="Name a file that you may write.") from error
