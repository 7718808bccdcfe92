"""The options that commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class OutputFormat(StrEnum):
    """How a command prints its results."""

    TEXT = "text"
    JSON = "json"


Tables = Annotated[
    list[str] | None,
    typer.Option(
        "--table",
        metavar="GLOB",
        help="Only tables whose id matches: * stops at a dot, ** does not. Repeat for several. Default: all.",
    ),
]
Operations = Annotated[
    list[str] | None,
    typer.Option("--operation", metavar="NAME", help="Only this operation. Repeat for several. Default: all."),
]
RunOperations = Annotated[
    list[str] | None,
    typer.Option(
        "--operation",
        metavar="NAME",
        help="Do this operation, whatever its cooldown says. Repeat for several. "
        "Default: what each table needs by its policy.",
    ),
]
MaintenanceOperations = Annotated[
    list[str] | None,
    typer.Option(
        "--operation",
        metavar="NAME",
        help="Do this operation, whatever cooldown and windows say. Repeat for several: they are done in this order.",
    ),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--parameter",
        metavar="KEY=VALUE",
        help="A parameter of the operation instead of the policy's value. Repeat for several. "
        "Needs exactly one --operation.",
    ),
]
MaxTables = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Touch at most this many tables, the neediest first.")
]
MaxMinutes = Annotated[
    float | None, typer.Option(min=0, metavar="N", help="Start only what is predicted to fit in these minutes.")
]
MaxGib = Annotated[
    float | None, typer.Option(min=0, metavar="N", help="Read and write at most this many GiB, as predicted.")
]
Output = Annotated[OutputFormat, typer.Option("--output", help="Text for people, or one JSON array on stdout.")]
ObjectOutput = Annotated[OutputFormat, typer.Option("--output", help="Text for people, or one JSON object on stdout.")]
FleetFile = Annotated[
    Path | None,
    typer.Option("--fleet", metavar="FILE", help="The fleet file. Default: AURUM_FLEET, else ./fleet.yaml."),
]
Verbose = Annotated[
    int,
    typer.Option(
        "-v",
        "--verbose",
        count=True,
        show_default=False,
        help="Log more to stderr: -v what is done, -vv everything. Default: AURUM_LOG_LEVEL.",
    ),
]
