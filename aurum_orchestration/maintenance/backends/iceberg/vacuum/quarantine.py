"""Where orphans wait before they are gone for good: ``<location>/.aurum-quarantine/<operation id>/``.

Each of the table's locations has its own, so that nothing moves between storages. A folder of it holds the
files under the paths they had below the location, and ``manifest.jsonl``: a line that says what, then one line
per file with where it was. The manifest is written before the first file moves, so whatever a killed run has
moved can be put back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from pyiceberg.table import Table

from aurum_orchestration.errors import CorruptTableError, RequestError, nearest
from aurum_orchestration.maintenance.backends.iceberg.storage import MISSING
from aurum_orchestration.maintenance.backends.iceberg.vacuum.orphans import QUARANTINE, places_of
from aurum_orchestration.maintenance.backends.iceberg.vacuum.places import MOVED, OCCUPIED, Place, Stored

MANIFEST = "manifest.jsonl"
BATCH = 1000


@dataclass(frozen=True)
class Folder:
    """One operation's quarantine in one place: since when by the storage's clock (None: no manifest), its files."""

    place: Place
    location: str
    since: float | None
    files: tuple[Stored, ...] = ()

    @property
    def operation_id(self) -> str:
        """The operation that filled it."""
        return self.location.rpartition("/")[2]

    @property
    def moved(self) -> tuple[Stored, ...]:
        """Its files but for the manifest."""
        return tuple(file for file in self.files if not file.location.startswith(f"{self.location}/{MANIFEST}"))


@dataclass
class Restored:
    """What came back from a quarantine; ``conflicts`` could not, because there is a file at its place again."""

    files: int = 0
    bytes: int = 0
    conflicts: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def folder_of(place: Place, operation_id: str) -> str:
    """The location of an operation's quarantine."""
    return f"{place.root}/{QUARANTINE}/{operation_id}"


def target_of(place: Place, operation_id: str, location: str) -> str:
    """Where a file of the place goes to."""
    return folder_of(place, operation_id) + location[len(place.root) :]


def folders(places: Iterable[Place]) -> list[Folder]:
    """Every quarantine in the places, with its files, oldest first."""
    found = []
    for place in places:
        for location in place.folders(f"{place.root}/{QUARANTINE}"):
            files = tuple(sorted(place.at(location).files(frozenset(), lambda *_: False)))
            found.append(Folder(place, location, _since(location, files), files))
    return sorted(found, key=lambda one: (one.since or 0, one.location))


def _since(location: str, files: Sequence[Stored]) -> float | None:
    """When the manifest was written. Where a kill left only a draft of one, nothing had moved yet: the draft's time."""
    manifest = f"{location}/{MANIFEST}"
    drafts = [file for file in files if file.location.startswith(manifest)]
    found = [file for file in drafts if file.location == manifest]
    if not found and len(drafts) < len(files):
        return None
    return max((file.modified for file in found or drafts), default=None)


def write_manifest(table: Table, operation_id: str, place: Place, files: Iterable[Stored]) -> Stored:
    """Say where the files are that are about to move, and when that is by the storage's clock."""
    head = {
        "version": 1,
        "operation_id": operation_id,
        "table": ".".join(table.name()),
        "table_uuid": str(table.metadata.table_uuid),
    }
    lines = (
        {"from": file.location, "to": target_of(place, operation_id, file.location), "bytes": file.size}
        for file in files
    )
    content = b"".join(orjson.dumps(one) + b"\n" for one in (head, *lines))
    return place.write(f"{folder_of(place, operation_id)}/{MANIFEST}", content)


def restore_quarantine(table: Table, operation_id: str) -> Restored:
    """Put every file of a quarantine back where it was, and remove the quarantine once it is empty.

    A file is never overwritten. Raises RequestError when there is no such quarantine (any more).
    """
    restored = Restored()
    found = False
    places = places_of(table)
    for place in places:
        folder = folder_of(place, operation_id)
        try:
            entries = _read(place, f"{folder}/{MANIFEST}")
        except FileNotFoundError:
            continue
        found = True
        for start in range(0, len(entries), BATCH):
            _put_back(place, entries[start : start + BATCH], restored)
        if not restored.conflicts and not restored.failures:
            remove(place, folder)
    if not found:
        known = [one.rpartition("/")[2] for place in places for one in place.folders(f"{place.root}/{QUARANTINE}")]
        raise RequestError(f"there is no quarantine of operation {operation_id}", hint=nearest(operation_id, known))
    return restored


def remove(place: Place, folder: str) -> None:
    """Remove a quarantine whose files are gone: its manifest, what a kill left of one, its folders."""
    left = place.at(folder).files(frozenset(), lambda *_: False)
    list(place.delete([file.location for file in left if file.location.startswith(f"{folder}/{MANIFEST}")]))
    place.remove_folder(folder)
    place.remove_folder(f"{place.root}/{QUARANTINE}")


def _put_back(place: Place, entries: Sequence[dict[str, Any]], restored: Restored) -> None:
    held = place.stat([entry["to"] for entry in entries])
    pairs = [(file, str(entry["from"])) for file, entry in zip(held, entries, strict=True) if file is not None]
    for (file, target), outcome in zip(pairs, place.move(pairs), strict=True):
        if outcome == MOVED:
            restored.files += 1
            restored.bytes += file.size
        elif outcome == OCCUPIED:
            restored.conflicts.append(target)
        elif outcome != MISSING:
            restored.failures.append(f"{target}: {outcome}")


def _read(place: Place, manifest: str) -> list[dict[str, Any]]:
    """The files that a quarantine's manifest lists. Raises FileNotFoundError, CorruptTableError."""
    content = place.read(manifest)
    try:
        return [orjson.loads(line) for line in content.splitlines()[1:]]
    except orjson.JSONDecodeError as error:
        raise CorruptTableError(f"{manifest} cannot be read: {error}") from error
