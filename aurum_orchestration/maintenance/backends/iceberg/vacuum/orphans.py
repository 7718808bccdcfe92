"""Which files under a table's locations nothing refers to.

What could lose a live file, and what prevents it:

* its path is spelled differently: paths are compared normalised, and a file that has the name of a live one
  which was not found anywhere is taken for that one: then nothing is an orphan, and the names are told;
* it was just written: only files older than the floor count, by the storage's own times;
* it belongs to another table: refused when a table of the catalog shares a location, or when a metadata file
  of another table lies here;
* it is not Iceberg's at all: hidden files and folders (a dot or an underscore first) are left alone, but for
  checksum files of orphans, and folders of partitions by such a column;
* what refers to it cannot be read: then nothing is an orphan.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.maintenance.backends.iceberg.files import Files, in_threads
from aurum_orchestration.maintenance.backends.iceberg.reachability import (
    References,
    metadata_files,
    normalised,
    table_locations,
)
from aurum_orchestration.maintenance.backends.iceberg.vacuum.places import Place, Stored, place_of

QUARANTINE = ".aurum-quarantine"
VERSION_HINT = "version-hint.text"
"""What Hadoop's catalog finds the current metadata by; nothing refers to it."""

_METADATA_FILE = re.compile(r"\.metadata\.json(\.gz)?$")
_UUID = re.compile(rb'"table-uuid"\s*:\s*"([0-9a-fA-F-]{36})"')
_HEAD_BYTES = 65_536


@dataclass
class Found:
    """What a search found: places searched, files seen, and the orphans in them."""

    places: list[Place]
    orphans: list[Stored] = field(default_factory=list)
    listed: int = 0
    warnings: list[str] = field(default_factory=list)


def reachable_files(table: Table) -> set[str]:
    """Normalised locations of everything that the table refers to. Raises CorruptTableError."""
    references = References(Files(table.io.properties, table.io))
    manifests, _ = references.manifests(table.metadata.snapshots)
    found = {normalised(location) for location in metadata_files(table.metadata, table.metadata_location)}
    found.update(normalised(path.decode()) for path in manifests)
    found.update(normalised(location) for location, _ in references.content_files(manifests))
    # PyIceberg drops what it takes for the query or fragment of a URL
    odd = [location for location in found if "?" in location or "#" in location or ";" in location]
    found.update(re.split(r"[?#;]", location)[0] for location in odd)
    return found


def find_orphans(table: Table, older_than: float, *, dropped_tables: bool = False) -> Found:
    """Files under the table's locations that nothing refers to and that were last written before ``older_than``.

    ``dropped_tables``: files of other tables count, too. Raises UnsupportedError when it cannot be told whose
    files these are, CorruptTableError when what the table refers to cannot be read.
    """
    known = reachable_files(table)
    found = Found(places_of(table))
    skip = _Hidden(table.metadata)
    unknown: list[Stored] = []
    for place in found.places:
        unknown += place.files(known, skip)
        found.listed += place.listed
        found.warnings += [f"not looked into: {one}" for one in place.unreadable[:5]]
    _refuse_other_spelling(unknown, known, found.places)
    if not dropped_tables:
        _refuse_other_tables(table.metadata, unknown, found.places)
    found.orphans = sorted(_old(unknown, known, older_than))
    return found


def places_of(table: Table) -> list[Place]:
    """The folders in which the table's files may lie, none inside another."""
    roots = table_locations(table.metadata)
    outer = [one for one in roots if not any(one.startswith(f"{other}/") for other in roots)]
    if any(not one.partition("://")[2].strip("/") for one in outer):
        raise UnsupportedError("one of the table's locations is the root of its storage")
    written = {normalised(location): location for location in _as_written(table.metadata)}
    return [place_of(table.io, written[one]) for one in outer]


def _as_written(metadata: TableMetadata) -> Iterator[str]:
    """The table's locations as they stand in its metadata, the more important later."""
    yield from (str(value) for name, value in metadata.properties.items() if name.startswith("write."))
    yield metadata.location


class _Hidden:
    """Says of a name that starts with a dot or an underscore whether it is to be passed over."""

    def __init__(self, metadata: TableMetadata) -> None:
        fields = {spec_field.name for spec in metadata.partition_specs for spec_field in spec.fields}
        self._partitions = tuple(f"{name}=" for name in fields if name.startswith(("_", ".")))

    def __call__(self, name: str, is_folder: bool) -> bool:
        if is_folder:
            return not name.startswith(self._partitions)
        return companion_of(name) is None


def companion_of(name: str) -> str | None:
    """The file that a checksum file of Hadoop's belongs to: ``x`` for ``.x.crc``."""
    return name[1:-4] if name.startswith(".") and name.endswith(".crc") and len(name) > 5 else None


def _old(unknown: Iterable[Stored], known: Collection[str], older_than: float) -> Iterator[Stored]:
    """Those old enough, checksum files only where their file is no orphan that stays and not live."""
    checksums: list[tuple[Stored, str]] = []
    present: set[str] = set()
    going: set[str] = set()
    for file in unknown:
        folder, _, name = file.location.rpartition("/")
        if (companion := companion_of(name)) is not None:
            checksums.append((file, f"{folder}/{companion}"))
            continue
        present.add(file.location)
        if name != VERSION_HINT and file.modified < older_than:
            going.add(file.location)
            yield file
    for file, companion in checksums:
        stays = companion in present and companion not in going
        if file.modified < older_than and not stays and normalised(companion) not in known:
            yield file


def _refuse_other_spelling(unknown: Iterable[Stored], known: Iterable[str], places: Sequence[Place]) -> None:
    """Raise UnsupportedError when a file has the name of a live one that is not where the table says it is."""
    names = {file.location.rpartition("/")[2]: file.location for file in unknown}
    roots = {normalised(place.root): place for place in places}
    for location in known:
        other = names.get(location.rpartition("/")[2])
        if other is None:
            continue
        place = next((place for root, place in roots.items() if location.startswith(f"{root}/")), None)
        if place is not None and next(place.stat([place.root + location[len(normalised(place.root)) :]])) is not None:
            continue  # the live file is in its place, so the other one is a copy
        raise UnsupportedError(
            f"{other} has the name of a live file that the table knows as {location}: the same storage may be "
            "spelled in two ways, so orphans cannot be told from live files",
            hint="If the first is a copy, move it out of the table's folders.",
        )


def _refuse_other_tables(metadata: TableMetadata, unknown: Iterable[Stored], places: Sequence[Place]) -> None:
    """Raise UnsupportedError when a metadata file of another table lies under the table's locations."""
    files = [file.location for file in unknown if _METADATA_FILE.search(file.location)]
    for location, uuid in zip(files, in_threads(lambda one: _uuid_of(one, places), files), strict=True):
        if uuid is not None and uuid.lower() != str(metadata.table_uuid):
            raise UnsupportedError(
                f"{location} is the metadata of another table ({uuid}), whose files lie here too",
                hint="If that table was dropped, set the parameter dropped_tables to true.",
            )


def _uuid_of(location: str, places: Sequence[Place]) -> str | None:
    """The table that a metadata file describes; None for one that cannot be understood, or is gone."""
    place = next(place for place in places if location.startswith(f"{place.root}/"))
    try:
        content = place.read(location, _HEAD_BYTES)
        if content.startswith(b"\x1f\x8b"):
            content = zlib.decompressobj(wbits=31).decompress(content, _HEAD_BYTES)
    except (FileNotFoundError, zlib.error):
        return None
    match = _UUID.search(content)
    return match[1].decode() if match else None
