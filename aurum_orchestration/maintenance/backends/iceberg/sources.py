"""Where the current metadata of many tables comes from: one SQL query, or a request per table.

A SQL catalog is a table of names and metadata locations, so one query finds what changed and only that
is read. Every other catalog is asked table by table, several at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from pyiceberg.exceptions import BadRequestError, NoSuchNamespaceError, NoSuchTableError
from sqlalchemy import or_, select, text

from aurum_orchestration.errors import AurumError, CorruptTableError, TableNotFoundError
from aurum_orchestration.fleet.table_id import TableId, discovered_by
from aurum_orchestration.maintenance.backends.iceberg.failures import catalog_errors, translate
from aurum_orchestration.maintenance.backends.iceberg.files import REMOTE_THREADS, Files, in_threads
from aurum_orchestration.maintenance.backends.iceberg.metadata import Metadata, columns_of, parse_metadata
from aurum_orchestration.maintenance.backends.iceberg.sql_listing import TABLES, SqlListing
from aurum_orchestration.maintenance.interfaces import DiscoveredTable

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.catalog.sql import SqlCatalog

KIND = "iceberg"
ROWS_AT_ONCE = 500

FEW = 100
"""Up to this many tables are asked for by name; for more, the whole catalog is read."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A table's current metadata: where it is, what it says, its size on storage if known, how its files are read."""

    location: str
    metadata: Metadata
    size: int | None
    files: Files


Found: TypeAlias = "Opened | Files | AurumError"


class Source(Protocol):
    """The tables of one catalog."""

    def changed(self, tables: Sequence[TableId], known: Sequence[str | None]) -> Iterator[tuple[int, Found]]:
        """Positions of tables, and what was found: metadata that is not where it was known to be, or a problem.

        An unchanged table comes only when the way to read its files is new (credentials expire).
        """
        ...

    def location(self, table: TableId) -> str | None:
        """Where the table's metadata is now; None for a table that is gone."""
        ...

    def discover(self, backend: str, chosen: Callable[[TableId], bool]) -> list[DiscoveredTable]:
        """The catalog's tables for which ``chosen`` holds."""
        ...

    def names(self, backend: str, chosen: Callable[[TableId], bool]) -> list[DiscoveredTable]:
        """The same tables, without anything that takes reading a file for each."""
        ...


def source_of(catalog: Catalog | SqlListing) -> Source:
    """The fastest source for a catalog."""
    if isinstance(catalog, SqlListing):
        return SqlSource(catalog)
    from pyiceberg.catalog.sql import SqlCatalog

    return SqlSource(catalog) if isinstance(catalog, SqlCatalog) else LoadingSource(catalog)


def list_tables(
    catalog: Catalog | SqlListing,
    backend_name: str,
    patterns: Sequence[str] = (),
    source: Source | None = None,
    *,
    names_only: bool = False,
) -> list[DiscoveredTable]:
    """The catalog's tables, sorted by id: all, or those that one of the patterns names.

    A pattern is a glob over ``namespace.table`` or the name of a namespace, which means everything in
    it. Columns, comment and location come along, unless ``names_only``, where the catalog gives them without a
    request per table: for SQL catalogs. A ``source`` that is kept for the next time reads only what is new by then.
    """

    def chosen(table: TableId) -> bool:
        return discovered_by(patterns, table)

    with catalog_errors(backend_name, catalog.properties):
        source = source or source_of(catalog)
        found = (source.names if names_only else source.discover)(backend_name, chosen)
        return sorted(found, key=lambda discovered: (discovered.table.backend, discovered.table.parts))


class SqlSource:
    """A PyIceberg SqlCatalog, which shares its tables with Java's JdbcCatalog."""

    def __init__(self, catalog: SqlCatalog | SqlListing) -> None:
        self._catalog = catalog
        self._files = Files(catalog.properties)
        self._has_views: bool | None = None  # not known yet; catalogs of schema V0 have no views
        self._described: dict[TableId, tuple[str, DiscoveredTable]] = {}  # with the metadata file it was read from
        self._unused: dict[TableId, Opened] = {}  # read to describe tables; measuring them need not read it again

    def changed(self, tables: Sequence[TableId], known: Sequence[str | None]) -> Iterator[tuple[int, Found]]:
        """See :class:`Source`."""
        locations = self._locations([table.name for table in tables] if len(tables) <= FEW else None)
        described, self._unused = self._unused, {}
        stale: list[tuple[int, TableId, str]] = []
        for position, (table, before) in enumerate(zip(tables, known, strict=True)):
            location = locations.get(_key(table))
            if location is None:
                yield position, TableNotFoundError(f"{table} is not in its catalog", table=str(table))
            elif location == before:
                continue
            elif (opened := described.get(table)) is not None and opened.location == location:
                yield position, opened
            else:
                stale.append((position, table, location))
        yield from self._opened(stale)

    def location(self, table: TableId) -> str | None:
        """See :class:`Source`."""
        return self._locations([table.name]).get(_key(table))

    def discover(self, backend: str, chosen: Callable[[TableId], bool]) -> list[DiscoveredTable]:
        """See :class:`Source`. Reads the metadata files that are new since the last time."""
        listed = self._listed(backend, chosen)
        known = {
            table: described
            for table, location in listed
            if (described := self._described.get(table)) is not None and described[0] == location
        }
        stale = [(position, *item) for position, item in enumerate(listed) if item[0] not in known]
        unread: dict[TableId, DiscoveredTable] = {}
        for position, found in self._opened(stale):
            table, location = listed[position]
            if isinstance(found, AurumError):
                unread[table] = DiscoveredTable(table, KIND)
            else:
                known[table] = location, _described(table, found)
                self._unused[table] = found
        self._described = known
        return [unread.get(table) or known[table][1] for table, _ in listed]

    def names(self, backend: str, chosen: Callable[[TableId], bool]) -> list[DiscoveredTable]:
        """See :class:`Source`. One query."""
        return [DiscoveredTable(table, KIND) for table, _ in self._listed(backend, chosen)]

    def _listed(self, backend: str, chosen: Callable[[TableId], bool]) -> list[tuple[TableId, str]]:
        return [
            (table, location)
            for (namespace, name), location in self._locations(None).items()
            if chosen(table := TableId(backend, (*namespace.split("."), name)))
        ]

    def _opened(self, stale: Sequence[tuple[int, TableId, str]]) -> Iterator[tuple[int, Opened | AurumError]]:
        remote: list[tuple[int, TableId, str]] = []
        for item in stale:
            if self._files.is_local(item[2]):
                yield self._open(item)
            else:
                remote.append(item)
        if remote:
            yield from in_threads(self._open, remote)

    def _open(self, item: tuple[int, TableId, str]) -> tuple[int, Opened | AurumError]:
        position, table, location = item
        try:
            try:
                content = self._files.read(location)
            except CorruptTableError:
                # a commit in between may have removed the file: look where the table is now
                moved = self.location(table)
                if moved is None:
                    return position, TableNotFoundError(f"{table} was dropped", table=str(table))
                if moved == location:
                    raise
                location, content = moved, self._files.read(moved)
            return position, Opened(location, parse_metadata(content), len(content), self._files)
        except AurumError as error:
            return position, error

    def _locations(self, names: Sequence[str] | None) -> dict[tuple[str, str], str]:
        """(namespace, name) -> metadata location; of all tables, or of those with one of the names."""
        columns = [TABLES.c.table_namespace, TABLES.c.table_name, TABLES.c.metadata_location]
        query = select(*columns).where(TABLES.c.catalog_name == self._catalog.name)
        if names is not None:
            query = query.where(TABLES.c.table_name.in_(names))
        with self._catalog.engine.connect() as connection:
            if self._has_views is None:
                listed = select(text("*")).select_from(TABLES).limit(0)
                self._has_views = "iceberg_type" in connection.execute(listed).keys()  # noqa: SIM118
            if self._has_views:
                kind = TABLES.c.iceberg_type
                query = query.where(or_(kind.is_(None), kind == "TABLE"))
            rows = connection.execute(query).yield_per(ROWS_AT_ONCE)
            return {(str(row[0]), str(row[1])): row[2] or "" for row in rows}


class LoadingSource:
    """Any other catalog, through the calls that all of them have."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        # PyIceberg's Hive client has one connection
        self._threads = 1 if any(base.__name__ == "HiveCatalog" for base in type(catalog).__mro__) else REMOTE_THREADS

    def changed(self, tables: Sequence[TableId], known: Sequence[str | None]) -> Iterator[tuple[int, Found]]:
        """See :class:`Source`."""

        def load(position: int) -> tuple[int, Found]:
            try:
                loaded = self._catalog.load_table(tables[position].parts)
                files = Files(loaded.io.properties, loaded.io)
                if loaded.metadata_location == known[position]:
                    return position, files
                metadata = parse_metadata(loaded.metadata.model_dump_json().encode())
                return position, Opened(loaded.metadata_location, metadata, None, files)
            except Exception as error:
                return position, translate(error, self._catalog.name, self._catalog.properties)

        yield from in_threads(load, range(len(tables)), self._threads)

    def location(self, table: TableId) -> str | None:
        """See :class:`Source`."""
        try:
            return self._catalog.load_table(table.parts).metadata_location
        except NoSuchTableError:
            return None

    def discover(self, backend: str, chosen: Callable[[TableId], bool]) -> list[DiscoveredTable]:
        """See :class:`Source`."""
        tables = (
            TableId(backend, identifier) for namespace in self._namespaces(()) for identifier in self._tables(namespace)
        )
        return [DiscoveredTable(table, KIND) for table in tables if chosen(table)]

    def names(self, backend: str, chosen: Callable[[TableId], bool]) -> list[DiscoveredTable]:
        """See :class:`Source`."""
        return self.discover(backend, chosen)

    def _tables(self, namespace: tuple[str, ...]) -> list[tuple[str, ...]]:
        try:
            return self._catalog.list_tables(namespace)
        except NoSuchNamespaceError:
            return []  # dropped meanwhile

    def _namespaces(self, parent: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        try:
            children = self._catalog.list_namespaces(parent) if parent else self._catalog.list_namespaces()
        except (NoSuchNamespaceError, BadRequestError, NotImplementedError):
            if not parent:
                raise
            return  # dropped meanwhile, or a catalog without nested namespaces
        for child in children:
            if len(child) > len(parent) and child[: len(parent)] == parent:
                yield child
                yield from self._namespaces(child)


def _key(table: TableId) -> tuple[str, str]:
    parts = table.parts
    return (parts[0] if len(parts) == 2 else ".".join(parts[:-1])), parts[-1]


def _described(table: TableId, opened: Opened) -> DiscoveredTable:
    metadata = opened.metadata
    comment = str((metadata.properties or {}).get("comment", ""))
    return DiscoveredTable(table, KIND, metadata.location, comment, columns_of(metadata))
