"""The reference pages that are made from code: JSON Schemas of the output, commands, operations, problems.

``make docs`` writes them, ``make check`` fails when one no longer fits the code (tools/generate_docs.py).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

import typer
from pydantic import BaseModel, TypeAdapter
from typer.cli import get_docs_for_click

from aurum_orchestration import errors
from aurum_orchestration.cli.main import app
from aurum_orchestration.cli.scheduling import SwitchedSchedule
from aurum_orchestration.maintenance.calendar import CALENDAR, CalendarPolicy
from aurum_orchestration.maintenance.checks import CHECKS, ChecksPolicy
from aurum_orchestration.maintenance.database_report import FleetReport
from aurum_orchestration.maintenance.explanation import TableExplanation
from aurum_orchestration.maintenance.factory import MaintenanceFactory
from aurum_orchestration.maintenance.health_checks import DoctorReport
from aurum_orchestration.maintenance.operations.base import BaseMaintenanceOperation
from aurum_orchestration.maintenance.operations.floors import Floor
from aurum_orchestration.maintenance.shapes import HistoryEntry, OperationReport, Shape, TableEntry, TableStatus
from aurum_orchestration.maintenance.summary import MaintenanceSummary

FOLDER = "docs/reference"
SHAPES: dict[str, tuple[type[Shape], str]] = {
    "status": (TableStatus, "aurum status --output json"),
    "run": (OperationReport, "aurum run, aurum plan and aurum undo with --output json"),
    "history": (HistoryEntry, "aurum history --output json"),
    "discover": (TableEntry, "aurum discover --output json"),
    "explain": (TableExplanation, "aurum explain --output json"),
    "doctor": (DoctorReport, "aurum doctor --output json"),
    "report": (FleetReport, "aurum report --output json"),
    "maintenance": (MaintenanceSummary, "aurum maintenance --output json"),
    "schedule": (SwitchedSchedule, "aurum maintenance --schedule daily|weekly|monthly --output json"),
}
"""File name -> the shape of the array's entries (of the one object: see OBJECTS), and the commands that print it."""

OBJECTS = frozenset({"doctor", "explain", "maintenance", "report"})
"""What is printed as one object."""

_MADE = "<!-- Made by `make docs` from aurum_orchestration/cli/reference.py. Change the code, not this page. -->"
_UNITS = {"_mb": "MiB", "_days": "days", "_minutes": "minutes", "_files": "files", "_groups": "groups"}
_TYPES = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}


def pages() -> dict[str, str]:
    """Path of each page, relative to the project, and its text."""
    made = {f"{name}.schema.json": _json(output_schema(name)) for name in SHAPES}
    made |= {"cli.md": _commands(), "operations.md": _operations(), "problems.md": _problems()}
    return {f"{FOLDER}/{name}": text for name, text in made.items()}


def output_schema(name: str) -> dict[str, Any]:
    """JSON Schema of what a command prints: an array of its shape, or one object."""
    shape, printed_by = SHAPES[name]
    printed: Any = shape if name in OBJECTS else list[shape]  # type: ignore[valid-type]
    schema = TypeAdapter(printed).json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": printed_by, **schema}


def _json(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _commands() -> str:
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="aurum"), name="aurum", title="aurum")
    return f"{_MADE}\n\n{text.strip()}\n\nThe operations: [operations.md](operations.md).\n"


def _operations() -> str:
    built_in = {
        name: operation
        for name, operation in MaintenanceFactory.operations().items()
        if operation.__module__.startswith("aurum_orchestration.")
    }
    parts = [
        "# Operations",
        _MADE,
        "What each operation may be told: in `fleet.yaml` as its policy, on the command line by `--parameter`, "
        "in Dagster's launchpad under `parameters`.",
    ]
    for name, operation in built_in.items():
        parts += _operation(name, operation)
    parts += [
        f"## {CALENDAR}",
        "No operation: when the planner may start any of them on a table, in the fleet's `time_zone`. "
        "What a person asks for by name starts at any time.",
        _fields(CalendarPolicy, set(CalendarPolicy.model_fields)),
        f"## {CHECKS}",
        "No operation: the checks of a table's asset in Dagster, and from which numbers on they warn and fail.",
        _fields(ChecksPolicy, set(ChecksPolicy.model_fields)),
    ]
    return "\n\n".join(parts) + "\n"


def _operation(name: str, operation: type[BaseMaintenanceOperation]) -> Iterator[str]:
    parameters = set(operation.Parameters.model_fields)
    yield f"## {name}: {operation.title}"
    yield inspect.getdoc(operation) or ""
    yield "Parameters:"
    yield _fields(operation.Parameters, parameters)
    yield "In `fleet.yaml` also, for the planner:"
    yield _fields(operation.Policy, set(operation.Policy.model_fields) - parameters)


def _fields(model: type[BaseModel], names: set[str]) -> str:
    properties = model.model_json_schema()["properties"]
    rows = ["| Name | Value | Default | Unit | Meaning |", "|---|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if name in names:
            known = properties[name]
            floor = next((mark for mark in field.metadata if isinstance(mark, Floor)), None)
            said = f"{floor.unit}s" if floor else ""
            unit = next((unit for suffix, unit in _UNITS.items() if name.endswith(suffix)), said)
            meaning = known["description"] + (f" Floor: {floor.least:g}." if floor else "")
            default = json.dumps(known.get("default"))
            rows.append(f"| `{name}` | {_values(known)} | `{default}` | {unit} | {_cell(meaning)} |")
    return "\n".join(rows)


def _values(known: dict[str, Any]) -> str:
    choices = known.get("anyOf", [known])
    return " or ".join(_value(choice) for choice in choices)


def _value(known: dict[str, Any]) -> str:
    if "const" in known or "enum" in known:
        return ", ".join(f"`{value}`" for value in known.get("enum", [known.get("const")]))
    kind = _TYPES.get(known.get("type", ""), known.get("type", "any"))
    if "minimum" in known and "maximum" in known:
        return f"{kind}, {known['minimum']:,} to {known['maximum']:,}"
    return f"{kind}, at least {known['minimum']:,}" if "minimum" in known else kind


def _problems() -> str:
    rows = [
        f"| `{error.type}` | {error.status} | {'yes' if error.transient else 'no'} | {_meaning(error)} "
        f"| {_cell(error.default_hint or 'Said with each problem.')} |"
        for error in sorted(_error_types(), key=lambda error: error.type)
    ]
    return "\n".join(
        [
            "# Problems",
            "",
            _MADE,
            "",
            "The `problem` of a result and the errors of the command, as RFC 9457 problem details. "
            "`transient`: the same request may succeed later without anybody changing anything; "
            "only those are tried again by themselves.",
            "",
            "| `type` | `status` | `transient` | Meaning | What to do |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _error_types() -> Iterator[type[errors.AurumError]]:
    bases = {errors.AurumError, errors.TransientError, errors.PermanentError, errors.HistoryError}
    for value in vars(errors).values():
        if inspect.isclass(value) and issubclass(value, errors.AurumError) and value not in bases:
            yield value


def _meaning(error: type[errors.AurumError]) -> str:
    return _cell(f"{error.title}. {inspect.getdoc(error)}")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("``", "`")
