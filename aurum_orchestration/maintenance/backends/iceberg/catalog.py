"""Opening PyIceberg catalogs from a backend's ``catalog:`` properties, and listing their tables.

Any catalog that PyIceberg knows works.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyiceberg.catalog import Catalog, CatalogType, load_catalog
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from sqlalchemy import literal, make_url, select

from aurum_orchestration.errors import BackendUnavailableError, ConfigurationError, nearest
from aurum_orchestration.fleet.table_id import TableId, discovered_by
from aurum_orchestration.maintenance.backends.iceberg.failures import catalog_errors
from aurum_orchestration.maintenance.backends.iceberg.rest import rest_catalog
from aurum_orchestration.maintenance.backends.iceberg.sources import Source, source_of
from aurum_orchestration.maintenance.interfaces import DiscoveredTable

__all__ = ["catalog_errors", "list_tables", "open_catalog"]

_POSTGRES = re.compile(r"^postgres(?:ql)?://")


def open_catalog(name: str, properties: Mapping[str, Any], *, create: bool = False) -> Catalog:
    """The PyIceberg catalog that ``properties`` describe; a ``name`` among them overrides ``name``.

    Opening reads, and writes nothing: a SQL catalog without its tables, or a SQLite file that does not
    exist, is BackendUnavailableError unless ``create`` is set. Raises ConfigurationError for wrong
    properties and MissingExtraError for a driver that is not installed.
    """
    settings = {key: _as_text(value) for key, value in properties.items() if value is not None}
    name = settings.pop("name", name)
    with catalog_errors(name, settings, opening=True):
        _check_type(settings)
        is_sql = settings.get("type", "sql") == "sql" and "py-catalog-impl" not in settings
        if is_sql and "uri" in settings:
            settings["uri"] = _driver(settings["uri"])
            _check_sqlite_file(settings["uri"], create=create)
        if not create:
            settings.setdefault("init_catalog_tables", "false")
        catalog = rest_catalog(name, settings) or load_catalog(name, **settings)
        try:
            _check_reachable(catalog)
        except BaseException:
            catalog.close()
            raise
        return catalog


def list_tables(
    catalog: Catalog, backend_name: str, patterns: Sequence[str] = (), source: Source | None = None
) -> list[DiscoveredTable]:
    """The catalog's tables, sorted by id: all, or those that one of the patterns names.

    A pattern is a glob over ``namespace.table`` or the name of a namespace, which means everything in
    it. Columns, comment and location come along where the catalog gives them without a request per
    table: for SQL catalogs. A ``source`` that is kept for the next time reads only what is new by then.
    """

    def chosen(table: TableId) -> bool:
        return discovered_by(patterns, table)

    with catalog_errors(backend_name, catalog.properties):
        found = (source or source_of(catalog)).discover(backend_name, chosen)
        return sorted(found, key=lambda discovered: discovered.table)


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _driver(uri: str) -> str:
    """PostgreSQL URIs that name no driver go through the one that the `postgres` extra installs."""
    return _POSTGRES.sub("postgresql+psycopg://", uri) if importlib.util.find_spec("psycopg2") is None else uri


def _check_type(settings: Mapping[str, str]) -> None:
    known = [kind.value for kind in CatalogType]
    if (given := settings.get("type")) is not None and given.lower() not in known:
        raise ConfigurationError(f"catalog type {given!r} is unknown", hint=nearest(given, known))


def _check_sqlite_file(uri: str, *, create: bool) -> None:
    url = make_url(uri)
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith((":memory:", "file:")):
        return
    path = Path(url.database)
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif not path.exists():
        raise BackendUnavailableError(
            f"catalog file {path} does not exist", hint="Check `catalog.uri` in fleet.yaml, or create the catalog."
        )


def _check_reachable(catalog: Catalog) -> None:
    """PyIceberg opens a SQL catalog whose server is down or whose tables are missing without a word."""
    if isinstance(catalog, SqlCatalog):
        with catalog.engine.connect() as connection:
            connection.execute(select(literal(1)).select_from(IcebergTables).limit(1))
