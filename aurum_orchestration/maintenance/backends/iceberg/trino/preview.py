"""What Trino's ``remove_orphan_files`` would delete, found by the embedded engine on the same storage.

Trino goes by names: every file below the table's location counts that is old enough and has the name of no file
that the table knows, hidden ones too. The embedded engine goes by paths, and leaves alone what is not Iceberg's.
Trino may delete what both would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pyiceberg.table import Table

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.maintenance.backends.iceberg.reachability import normalised, refuse_foreign_files
from aurum_orchestration.maintenance.backends.iceberg.vacuum.neighbours import refuse_neighbours
from aurum_orchestration.maintenance.backends.iceberg.vacuum.orphans import (
    QUARANTINE,
    VERSION_HINT,
    find_orphans,
    reachable_files,
)
from aurum_orchestration.maintenance.backends.iceberg.vacuum.places import place_of
from aurum_orchestration.maintenance.interfaces import OperationType
from aurum_orchestration.maintenance.planner.words import count


@dataclass(frozen=True)
class Preview:
    """Files that Trino would delete with their sizes in bytes, of ``listed`` files below the table's location."""

    files: Mapping[str, int]
    listed: int
    warnings: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Size of the files."""
        return sum(self.files.values())


def preview(table: Table, older_than: float, *, dropped_tables: bool) -> Preview:
    """What would go of what was last written before ``older_than`` (seconds since 1970).

    Raises UnsupportedError when Trino would take a file that the embedded engine leaves alone, or when it cannot be
    told whose files these are; CorruptTableError when what the table refers to cannot be read.
    """
    refuse_foreign_files(table.metadata, OperationType.VACUUM)
    refuse_neighbours(table)
    found = find_orphans(table, older_than, dropped_tables=dropped_tables)
    orphans = {normalised(file.location): file for file in found.orphans}
    names = {location.rpartition("/")[2] for location in reachable_files(table)} | {VERSION_HINT}
    place = place_of(table.io, table.location())
    taken = {
        normalised(file.location): file
        for file in place.files(frozenset(), lambda *_: False)
        if file.modified < older_than and file.location.rpartition("/")[2] not in names
    }
    if place.unreadable:
        raise UnsupportedError(
            f"{place.unreadable[0]}: Trino may see there what cannot be looked into here", operation="vacuum"
        )
    if others := sorted(taken.keys() - orphans.keys()):
        _refuse(others)
    warnings = list(found.warnings)
    if missed := orphans.keys() - taken.keys():
        warnings.append(
            f"{count(len(missed), 'orphan')} stay, e.g. {min(missed)}: Trino does not see them, or takes them for live "
            "files; the embedded engine removes them"
        )
    return Preview({file.location: file.size for file in taken.values()}, place.listed, warnings)


def still_there(table: Table, locations: Sequence[str]) -> set[str]:
    """Which of the files below the table's location exist."""
    place = place_of(table.io, table.location())
    return {file.location for file in place.stat(locations) if file is not None}


def _refuse(others: Sequence[str]) -> None:
    """Raise UnsupportedError that says what Trino would take along."""
    aside = [location for location in others if f"/{QUARANTINE}/" in location]
    if aside:
        raise UnsupportedError(
            f"Trino would delete {count(len(aside), 'file')} that a vacuum set aside and an undo may still want, "
            f"e.g. {aside[0]}",
            operation=OperationType.VACUUM,
            hint="Run this vacuum with engine: pyiceberg, which empties the quarantine when its time is over.",
        )
    raise UnsupportedError(
        f"Trino would delete {count(len(others), 'file')} that are no orphans of this table, e.g. {others[0]}",
        operation=OperationType.VACUUM,
        hint="Move them elsewhere, or run this vacuum with engine: pyiceberg, which leaves hidden files alone.",
    )
