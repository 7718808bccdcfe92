"""Which tables this engine leaves alone, and why: told while measuring, before anything is planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.refusals import foreign_files_refusal
from aurum_orchestration.maintenance.backends.iceberg.trino.capabilities import Capabilities
from aurum_orchestration.maintenance.interfaces import OperationType, TableHealth

_REWRITING = (OperationType.COMPACTION.value, OperationType.MANIFESTS.value)


def name_refusal(table: TableId) -> str | None:
    """Why a table of that name cannot be asked for, or None: Trino would take another whose name is in lower case."""
    name = ".".join(table.parts)
    if name == name.lower():
        return None
    return (
        f"Trino folds names to lower case, so {name} cannot be reached through it: the embedded engine can "
        "(engine: pyiceberg, or auto)"
    )


def format_refusal(format_version: int, capabilities: Capabilities) -> str | None:
    """Why a table of that version of the format is not rewritten, or None."""
    if format_version <= capabilities.newest_format:
        return None
    return (
        f"Trino {capabilities.version} rewrites tables up to format version {capabilities.newest_format}, "
        f"and this one has {format_version}"
    )


def refusals(format_version: int, properties: Mapping[str, str], capabilities: Capabilities) -> dict[str, str]:
    """Operation -> why it is not done to a table with these properties."""
    rewriting, foreign = format_refusal(format_version, capabilities), foreign_files_refusal(properties)
    told = {
        OperationType.COMPACTION: rewriting,
        OperationType.MANIFESTS: rewriting,
        OperationType.RETENTION: foreign or rewriting,
        OperationType.VACUUM: foreign or rewriting,
    }
    return {operation.value: reason for operation, reason in told.items() if reason is not None}


def judged(health: TableHealth, capabilities: Capabilities, *, alone: bool) -> TableHealth:
    """What the embedded engine measured, with the refusals of this one; foreign files are refused by both.

    ``alone``: nothing is done by the embedded engine instead.
    """
    if health.problem is not None:
        return health
    if (unreachable := name_refusal(health.table)) is not None:
        from aurum_orchestration.maintenance.backends.iceberg.trino.engine import HANDLERS

        return replace(health, refusals=dict.fromkeys(HANDLERS, unreachable)) if alone else health
    rewriting = format_refusal(int(health.metrics.get("format_version", 2)), capabilities)
    told = {name: reason for name, reason in health.refusals.items() if name not in _REWRITING}
    if rewriting is not None:
        told |= dict.fromkeys(_REWRITING, rewriting)
    return replace(health, refusals=told)
