"""Opening PyIceberg catalogs from a backend's ``catalog:`` properties, and listing their tables.

Any catalog that PyIceberg knows works.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pyiceberg.catalog import TYPE, URI, Catalog, CatalogType, infer_catalog_type, load_catalog
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table
from pyiceberg.typedef import Identifier
from pyiceberg.utils.config import Config, merge_config
from sqlalchemy import Select, bindparam, literal, select

from aurum_orchestration.errors import ConfigurationError, nearest
from aurum_orchestration.maintenance.backends.iceberg.failures import catalog_errors
from aurum_orchestration.maintenance.backends.iceberg.lossless import write_version_3
from aurum_orchestration.maintenance.backends.iceberg.rest import rest_catalog
from aurum_orchestration.maintenance.backends.iceberg.sources import list_tables
from aurum_orchestration.maintenance.backends.iceberg.sql_listing import require_file, settings_of, with_driver
from aurum_orchestration.maintenance.backends.iceberg.sql_patience import be_patient_only_so_long

__all__ = ["catalog_errors", "list_tables", "open_catalog"]


def open_catalog(name: str, properties: Mapping[str, Any], *, create: bool = False) -> Catalog:
    """The PyIceberg catalog that ``properties`` describe; a ``name`` among them overrides ``name``.

    Opening reads, and writes nothing: a SQL catalog without its tables, or a SQLite file that does not
    exist, is BackendUnavailableError unless ``create`` is set. Raises ConfigurationError for wrong
    properties and MissingExtraError for a driver that is not installed.
    """
    settings = settings_of(properties)
    name = settings.pop("name", name)
    with catalog_errors(name, settings, opening=True):
        _check_type(settings)
        is_sql = settings.get("type", "sql") == "sql" and "py-catalog-impl" not in settings
        if is_sql and "uri" in settings:
            settings["uri"] = with_driver(settings["uri"])
            require_file(settings["uri"], create=create)
        if not create:
            settings.setdefault("init_catalog_tables", "false")
        catalog = rest_catalog(name, settings) or _sql_catalog(name, settings) or load_catalog(name, **settings)
        try:
            _check_reachable(catalog)
        except BaseException:
            catalog.close()
            raise
        write_version_3(catalog)
        return catalog


def _check_type(settings: Mapping[str, str]) -> None:
    known = [kind.value for kind in CatalogType]
    if (given := settings.get("type")) is not None and given.lower() not in known:
        raise ConfigurationError(f"catalog type {given!r} is unknown", hint=nearest(given, known))


class _PatientSqlCatalog(SqlCatalog):
    """PyIceberg's SQL catalog, which waits for its server only so long, and asks it for a table in one turn."""

    def _init_catalog(self) -> None:
        be_patient_only_so_long(self.engine, self.name, self.properties)
        super()._init_catalog()

    def load_table(self, identifier: str | Identifier) -> Table:
        """As PyIceberg does, without a transaction around the one statement: a turn to the server instead of three."""
        namespace, name = self.namespace_to_string(self.namespace_from(identifier)), self.table_name_from(identifier)
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            row = connection.execute(self._one_table, {"namespace": namespace, "name": name}).one_or_none()
        if row is None:
            raise NoSuchTableError(f"Table does not exist: {namespace}.{name}")
        return self._convert_orm_to_iceberg(row)  # type: ignore[arg-type]  # it reads these three

    @cached_property
    def _one_table(self) -> Select[str, str, str | None]:
        columns = IcebergTables.table_namespace, IcebergTables.table_name, IcebergTables.metadata_location
        asked = select(*columns).where(
            IcebergTables.catalog_name == self.name,
            IcebergTables.table_namespace == bindparam("namespace"),
            IcebergTables.table_name == bindparam("name"),
        )
        tables_only = self._iceberg_type_filter()
        return asked if tables_only is None else asked.where(tables_only)


def _sql_catalog(name: str, settings: Mapping[str, str]) -> SqlCatalog | None:
    """The catalog that ``settings`` and PyIceberg's own configuration describe; None when it is no SQL catalog."""
    merged = merge_config(Config().get_catalog_config(name) or {}, dict(settings))
    if "py-catalog-impl" in merged or not merged.get(URI):
        return None
    kind = str(merged.get(TYPE) or infer_catalog_type(name, merged)).lower()
    known = {key: str(value) for key, value in merged.items()}
    return _PatientSqlCatalog(name, **known) if kind == CatalogType.SQL.value else None


def _check_reachable(catalog: Catalog) -> None:
    """PyIceberg opens a SQL catalog whose server is down or whose tables are missing without a word."""
    if isinstance(catalog, SqlCatalog):
        with catalog.engine.connect() as connection:
            connection.execute(select(literal(1)).select_from(IcebergTables).limit(1))
