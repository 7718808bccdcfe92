"""Other tables of the same catalog that share a table's locations: their files would look like orphans.

What their metadata says is remembered for each metadata file, which never changes, so that a fleet of many
tables is not read anew for each of them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.table import Table
from sqlalchemy import select

from aurum_orchestration.errors import AurumError, UnsupportedError
from aurum_orchestration.maintenance.backends.iceberg.failures import catalog_errors
from aurum_orchestration.maintenance.backends.iceberg.files import Files, in_threads
from aurum_orchestration.maintenance.backends.iceberg.metadata import Metadata, parse_metadata
from aurum_orchestration.maintenance.backends.iceberg.reachability import (
    LOCATION_PROPERTIES,
    normalised,
    table_locations,
)
from aurum_orchestration.maintenance.backends.iceberg.sources import Opened, source_of

_METADATA_FOLDER = "/metadata/"


class Neighbour(NamedTuple):
    """Another table: its name in the catalog, where its metadata file is, and its normalised locations."""

    name: str
    metadata_location: str
    locations: tuple[str, ...]


_remembered: WeakKeyDictionary[Catalog, dict[str, tuple[str, ...]]] = WeakKeyDictionary()
_guard = threading.Lock()


def refuse_neighbours(table: Table) -> None:
    """Raise UnsupportedError naming a table of the catalog that lies in, around or at the table's locations."""
    own = table_locations(table.metadata)
    with catalog_errors(table.catalog.name, table.catalog.properties):
        for neighbour in _neighbours(table):
            for location in neighbour.locations:
                shared = next((one for one in own if _overlap(one, location)), None)
                if shared is not None:
                    raise UnsupportedError(
                        f"{neighbour.name} uses {location}, this table {shared}: one's files would be the other's "
                        "orphans",
                        hint="Give each table a location of its own.",
                    )


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def _neighbours(table: Table) -> Iterator[Neighbour]:
    with _guard:
        before = _remembered.get(table.catalog, {})
    now: dict[str, tuple[str, ...]] = {}
    found = _of_sql(table, table.catalog, before) if isinstance(table.catalog, SqlCatalog) else _of_any(table)
    for neighbour in found:
        now[neighbour.metadata_location] = neighbour.locations
        yield neighbour
    with _guard:
        _remembered[table.catalog] = now


def _of_sql(table: Table, catalog: SqlCatalog, before: dict[str, tuple[str, ...]]) -> Iterator[Neighbour]:
    """All tables in the catalog's database, those of catalogs of other names included."""
    own = (catalog.name, Catalog.namespace_to_string(Catalog.namespace_from(table.name())), table.name()[-1])
    query = select(
        IcebergTables.catalog_name,
        IcebergTables.table_namespace,
        IcebergTables.table_name,
        IcebergTables.metadata_location,
    )
    with catalog.engine.connect() as connection:
        rows = [(tuple(map(str, row[:3])), str(row[3] or "")) for row in connection.execute(query).fetchall()]
    files = Files(catalog.properties)
    others = [(key, location) for key, location in rows if key != own and location]
    new = [location for _, location in others if location not in before]
    read = dict(zip(new, in_threads(lambda one: _locations_at(one, files), new), strict=True))
    for key, location in others:
        name = ".".join(key[1:] if key[0] == catalog.name else key)
        yield Neighbour(name, location, before[location] if location in before else read[location])


def _of_any(table: Table) -> Iterator[Neighbour]:
    """All tables of a catalog that has to be asked for each."""
    source = source_of(table.catalog)
    own = tuple(table.name())
    ids = [one.table for one in source.discover("-", lambda _: True) if one.table.parts != own]
    for position, opened in source.changed(ids, [None] * len(ids)):
        if isinstance(opened, Opened):
            yield Neighbour(".".join(ids[position].parts), opened.location, _locations_of(opened.metadata))


def _locations_at(metadata_location: str, files: Files) -> tuple[str, ...]:
    """The locations that a metadata file names; of one that cannot be read the folder that it is in tells."""
    try:
        return _locations_of(parse_metadata(files.read(metadata_location)))
    except AurumError:
        folder, found, _ = metadata_location.rpartition(_METADATA_FOLDER)
        return (normalised(folder),) if found else ()


def _locations_of(metadata: Metadata) -> tuple[str, ...]:
    properties = metadata.properties or {}
    named: Iterable[str] = (str(properties[name]) for name in LOCATION_PROPERTIES if properties.get(name))
    return tuple(normalised(location) for location in (metadata.location, *named) if location)
