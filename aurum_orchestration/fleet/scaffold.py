"""The first fleet.yaml of a catalog, commented: what ``aurum init`` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aurum_orchestration.errors import redact

_PASSWORD = re.compile(r"(?<=://)([^/@\s:]+):([^/@\s]+)@")


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that must not stand in a file, and the environment variable that carries it instead."""

    variable: str
    value: str


@dataclass(frozen=True, slots=True)
class Namespace:
    """How the tables of one namespace are now."""

    glob: str
    tables: int
    needy: int
    worst_debt: float
    unmeasured: int


def without_secrets(backend: str, properties: Mapping[str, str]) -> tuple[dict[str, str], list[Secret]]:
    """The catalog properties with ``${VARIABLE}`` where a secret stood, and those secrets.

    What is written as ``${VARIABLE}`` already stays as it is.
    """
    kept: dict[str, str] = {}
    secrets: list[Secret] = []
    for key, value in properties.items():
        login = _PASSWORD.search(value)
        if "${" in value:
            kept[key] = value
        elif login:
            secret = Secret(_variable(backend, "password"), login[2])
            secrets.append(secret)
            kept[key] = _PASSWORD.sub(lambda found, name=secret.variable: f"{found[1]}:${{{name}}}@", value)  # type: ignore[misc]
        elif redact(f"{key}={value}") != f"{key}={value}":
            secret = Secret(_variable(backend, key), value)
            secrets.append(secret)
            kept[key] = f"${{{secret.variable}}}"
        else:
            kept[key] = value
    return kept, secrets


def _variable(backend: str, key: str) -> str:
    return re.sub(r"\W+", "_", f"AURUM_{backend}_{key}").upper()


def backend_text(backend: str, properties: Mapping[str, str], zone: str = "UTC") -> str:
    """The part of the file that names the catalog; a fleet file by itself."""
    catalog = "\n".join(f"      {json.dumps(key)}: {json.dumps(value)}" for key, value in properties.items())
    catalog = f"    catalog:\n{catalog}" if catalog else "    catalog: {}  # from PyIceberg's own configuration"
    return (
        "# Its schema, for editors: python -m aurum_orchestration.fleet.schema\n"
        "# Every key: docs/reference/fleet.md. What holds for a table, and why: aurum explain TABLE\n"
        "version: 1\n"
        f"time_zone: {zone}  # of schedules, windows and nights\n"
        "backends:\n"
        f"  {json.dumps(backend)}:\n"
        "    type: iceberg\n"
        "    engine: pyiceberg\n"
        f"{catalog}\n"
    )


def fleet_text(backend: str, properties: Mapping[str, str], namespaces: Sequence[Namespace], zone: str) -> str:
    """The whole file. ``namespaces`` are told in comments, each with room for its own rules."""
    discover = json.dumps([space.glob.partition(".")[2] for space in namespaces])
    return "\n".join(
        [
            backend_text(backend, properties, zone).rstrip(),
            f"    discover: {discover}  # none: everything",
            "    max_parallel: 2  # operations at the same time, in one process",
            "    # budget: {tables: 200, gib: 500, minutes: 240}  # of one night, noon to noon; none: no caps",
            "policy:  # of all tables; backends and rules below may differ",
            "  compaction: {target_file_size_mb: 128, min_input_files: 5}",
            "  # snapshots older than this go, the newest of them stay: time travel and undo reach back so far",
            "  retention: {retention_days: 7, retain_last: 5}",
            "  # files that nothing has referred to for so long are set aside, and deleted a week later",
            "  vacuum: {older_than_days: 7}",
            "  # the planner starts work only in here; a person may any time",
            '  # calendar: {windows: ["22:00-06:00", "Sat,Sun 00:00-24:00"], blackouts: ["2026-12-24/2026-12-27"]}',
            "tables:" if namespaces else "tables: []",
            *(line for space in namespaces for line in _rule(space)),
            "",
        ]
    )


def _rule(space: Namespace) -> list[str]:
    state = f"{space.tables:,} tables"
    if space.needy:
        state += f", {space.needy:,} need maintenance now, the largest debt is {space.worst_debt:.0f} of 100"
    if space.unmeasured:
        state += f", {space.unmeasured:,} could not be measured: aurum status tells why"
    return [
        f"  # {state}",
        f"  - match: {json.dumps(space.glob)}",
        '    # owners: ["team:data"]',
        "    # policy: {compaction: {target_file_size_mb: 512}}",
    ]
