"""Provision engines by name: ``python -m aurum_orchestration_tests.servers s3 rest``."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer
from rich.console import Console

from aurum_orchestration.errors import ProvisioningError
from aurum_orchestration_tests.servers.registry import ENGINES


def main(names: Annotated[list[str], typer.Argument(help=f"Engines: {', '.join(ENGINES)}.")]) -> None:
    """Get engines that tests start. One that is there already costs nothing; one that fails is told at the end."""
    told = Console(stderr=True, highlight=False)
    unknown = [name for name in names if name not in ENGINES]
    if unknown:
        told.print(f"unknown: {', '.join(unknown)}. There are: {', '.join(ENGINES)}")
        sys.exit(2)
    failures: list[str] = []
    for name in names:
        engine, began = ENGINES[name], time.monotonic()

        def tell(line: str, title: str = engine.title) -> None:
            told.print(f"{title}: {line}")

        try:
            with told.status(f"{engine.title} ({engine.cost})"):
                folder = engine.provision(tell)
        except ProvisioningError as error:
            failures.append(f"{engine.title}: {error}")
            tell(str(error))
        else:
            tell(f"{folder} ({time.monotonic() - began:.0f} s)")
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
