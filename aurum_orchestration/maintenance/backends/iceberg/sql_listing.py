"""A SQL catalog as listing and measuring see it: a table of names and metadata locations.

PyIceberg's own catalog is not opened for that: importing it takes longer than measuring thousands of tables.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, column, create_engine, literal, make_url, select, table
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from aurum_orchestration.errors import AurumError, BackendUnavailableError
from aurum_orchestration.maintenance.backends.iceberg.failures import translate
from aurum_orchestration.maintenance.backends.iceberg.sql_patience import be_patient_only_so_long

TABLES = table(
    "iceberg_tables",
    *map(column, ("catalog_name", "table_namespace", "table_name", "metadata_location", "iceberg_type")),
)
"""The catalog's table of tables; catalogs of schema V0 have no ``iceberg_type``."""

_POSTGRES = re.compile(r"^postgres(?:ql)?://")
_DIALECTS = frozenset({"sqlite", "postgresql"})
_FOR_PYICEBERG = frozenset({"py-catalog-impl", "echo", "schema_version", "init_catalog_tables"})
"""Properties that mean something to PyIceberg when it opens a catalog."""


@dataclass(frozen=True, slots=True)
class SqlListing:
    """A SQL catalog that can be listed: its name in the database, its properties, and how to ask it."""

    name: str
    properties: Mapping[str, str]
    engine: Engine

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()


def open_listing(name: str, properties: Mapping[str, Any]) -> SqlListing | None:
    """The listing of the SQL catalog that ``properties`` describe; a ``name`` among them overrides ``name``.

    None where only PyIceberg knows what is meant: another kind of catalog, properties that it completes from its
    own configuration, or a database that says no, of which opening the catalog tells what is wrong with it. Raises
    BackendUnavailableError for one that is not there or does not answer.
    """
    settings = settings_of(properties)
    name = settings.pop("name", name)
    if settings.get("type", "sql") != "sql" or "uri" not in settings:
        return None
    if _FOR_PYICEBERG & settings.keys() or _configured_elsewhere():
        return None
    try:
        settings["uri"] = with_driver(settings["uri"])
        url = make_url(settings["uri"])
        if url.get_backend_name() not in _DIALECTS or in_memory(settings["uri"]):
            return None
        require_file(settings["uri"])
        engine = create_engine(url, poolclass=NullPool)
        be_patient_only_so_long(engine, name, settings)
    except (SQLAlchemyError, AurumError, ImportError, ValueError, TypeError, OSError):
        return None
    try:
        with engine.connect() as connection:
            connection.execute(select(literal(1)).select_from(TABLES).limit(1))
    except SQLAlchemyError as error:
        if url.get_backend_name() == "sqlite" or isinstance(error, ProgrammingError):
            return None
        raise translate(error, name, settings) from error
    return SqlListing(name, settings, engine)


def settings_of(properties: Mapping[str, Any]) -> dict[str, str]:
    """Catalog properties as PyIceberg takes them: text, without those that are null."""
    return {key: _as_text(value) for key, value in properties.items() if value is not None}


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def with_driver(uri: str) -> str:
    """PostgreSQL URIs that name no driver go through the one that the `postgres` extra installs."""
    return _POSTGRES.sub("postgresql+psycopg://", uri) if importlib.util.find_spec("psycopg2") is None else uri


def in_memory(uri: str) -> bool:
    """Whether it is a SQLite database without a file of its own, which another connection does not see."""
    url = make_url(uri)
    return url.get_backend_name() == "sqlite" and (not url.database or url.database.startswith((":memory:", "file:")))


def require_file(uri: str, *, create: bool = False) -> None:
    """Raise BackendUnavailableError for a SQLite file that does not exist; ``create``: make its folder."""
    url = make_url(uri)
    if url.get_backend_name() != "sqlite" or in_memory(uri):
        return
    path = Path(url.database or "")
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif not path.exists():
        raise BackendUnavailableError(
            f"catalog file {path} does not exist", hint="Check `catalog.uri` in fleet.yaml, or create the catalog."
        )


def _configured_elsewhere() -> bool:
    """Whether PyIceberg's own configuration may add to the properties of a catalog."""
    folders = (os.environ.get("PYICEBERG_HOME"), Path("~").expanduser(), Path.cwd())
    return any(key.upper().startswith("PYICEBERG_CATALOG__") for key in os.environ) or any(
        (Path(folder) / ".pyiceberg.yaml").exists() for folder in folders if folder
    )
