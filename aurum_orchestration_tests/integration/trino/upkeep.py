"""A namespace of the test's own that Trino and PyIceberg share, and operations on it through the service."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import sqlalchemy
import yaml
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table
from pyiceberg.types import DateType, DoubleType, LongType, StringType

from aurum_orchestration.maintenance.interfaces import MaintenanceResult
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.settings import AurumSettings
from aurum_orchestration_tests.integration.iceberg.support import fields, local, make_table, typed
from aurum_orchestration_tests.servers.trino import TrinoServer

DAY_MS = 86_400_000
SECRETS = {"s3.access-key-id": "AURUM_TEST_LAKE_KEY", "s3.secret-access-key": "AURUM_TEST_LAKE_SECRET"}
COLUMNS = fields(id=LongType(), day=DateType(), hub=StringType(), price=DoubleType())


@dataclass(frozen=True)
class Shared:
    """``catalog`` is PyIceberg's of the same tables; ``home`` is the service's."""

    server: TrinoServer
    catalog: SqlCatalog
    namespace: str
    home: Path

    def config(self, *, floors: bool = False, embedded: bool = True, port: int | None = None) -> dict[str, Any]:
        """The backend's configuration: Trino's catalog with or without floors, with or without PyIceberg's."""
        config = {
            "type": "iceberg",
            "engine": "trino",
            "host": self.server.host,
            "port": port or self.server.port,
            "user": "aurum",
            "trino_catalog": self.server.catalog if floors else self.server.catalog_without_floors,
        }
        return {**config, "catalog": self.server.properties} if embedded else config

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """What Trino answers; ``{t}`` stands for the namespace, as in ``{t}.name``."""
        return self.server.sql(statement.replace("{t}", f'"{self.server.catalog_without_floors}"."{self.namespace}"'))

    def make(self, name: str, *files: Sequence[Mapping[str, Any]], **options: Any) -> Table:
        """A table of id, day, hub and price, a commit for each of the files; options as of ``make_table``."""
        table = make_table(self.catalog, COLUMNS, name=f"{self.namespace}.{name}", **options)
        for rows in files:
            table.append(typed(table, rows))
        return table

    def table(self, name: str = "t") -> Table:
        """The table for PyIceberg."""
        return self.catalog.load_table((self.namespace, name))

    def ids(self, name: str = "t", version: int | None = None) -> list[int]:
        """Ids of the live rows, as Trino reads them."""
        at = "" if version is None else f" FOR VERSION AS OF {version}"
        return [row[0] for row in self.sql(f'SELECT id FROM {{t}}."{name}"{at} ORDER BY id')]

    def change_metadata(self, name: str, change: Callable[[dict[str, Any]], None]) -> Table:
        """Change the table's metadata behind the catalog's back: a function of the decoded JSON."""
        table = self.table(name)
        path = Path(table.metadata_location.removeprefix("file://"))
        metadata = json.loads(path.read_text())
        change(metadata)
        new = path.with_name(f"{int(path.name[:5]) + 1:05d}-{uuid.uuid4()}.metadata.json")
        new.write_text(json.dumps(metadata))
        with self.catalog.engine.begin() as connection:
            connection.execute(
                sqlalchemy.text("update iceberg_tables set metadata_location = :new where metadata_location = :old"),
                {"new": f"file://{new}", "old": table.metadata_location},
            )
        return self.table(name)

    def aged(self, name: str, days: float) -> Table:
        """The table as if everything in it had happened so many days earlier."""

        def shift(metadata: dict[str, Any]) -> None:
            step = int(days * DAY_MS)
            metadata["last-updated-ms"] -= step
            for kind in ("snapshots", "snapshot-log", "metadata-log"):
                for item in metadata.get(kind, []):
                    item["timestamp-ms"] -= step

        return self.change_metadata(name, shift)

    @asynccontextmanager
    async def service(self, **options: Any) -> AsyncIterator[MaintenanceService]:
        """A service whose only backend, ``lake``, is this Trino; options as of :meth:`config`."""
        config = self.config(**options)
        secrets = {SECRETS[key]: value for key, value in config.get("catalog", {}).items() if key in SECRETS}
        if secrets:  # a fleet file takes them from the environment
            hidden = {key: f"${{{name}}}" for key, name in SECRETS.items()}
            config["catalog"] = {**config["catalog"], **hidden}
        fleet = self.home / "fleet.yaml"
        fleet.write_text(yaml.safe_dump({"version": 1, "backends": {"lake": config}}))
        settings = AurumSettings(home=self.home, fleet=fleet, history_url=f"sqlite:///{self.home}/history.db")
        with patch.dict(os.environ, secrets):
            async with MaintenanceService(settings) as made:
                yield made

    async def run(
        self,
        operation: str,
        name: str = "t",
        *,
        dry_run: bool = False,
        options: Mapping[str, Any] | None = None,
        **given: Any,
    ) -> MaintenanceResult:
        """One operation on a table; ``options`` as of :meth:`config`, ``given`` are its parameters."""
        async with self.service(**(options or {})) as service:
            return await service.execute_maintenance(
                backend_type="lake",
                operation_type=operation,
                target_table=f"lake.{self.namespace}.{name}",
                dry_run=dry_run,
                parameters=given,
            )


BELOW: dict[str, Any] = {"override_floor": True, "override_reason": "a test"}
"""Parameters that let a test go below the package's own floors."""


def there(locations: Iterable[str]) -> list[str]:
    """Those of the locations on the local disk that exist."""
    return [location for location in locations if local(location).exists()]


def files_of(table: Table) -> list[str]:
    """Every file below the table's location, as locations."""
    return sorted(f"file://{path}" for path in local(table.location()).rglob("*") if path.is_file())


def referred_to(table: Table) -> set[str]:
    """What a table in a bucket leads to, as bucket/key: its metadata files, and all that its snapshots hold."""
    metadata = table.metadata
    found = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    found |= {file.statistics_path for file in metadata.statistics}
    for snapshot in metadata.snapshots:
        found.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            found.add(manifest.manifest_path)
            found |= {entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.io)}
    return {location.removeprefix("s3://") for location in found}


@contextmanager
def shared(server: TrinoServer, home: Path) -> Iterator[Shared]:
    """A namespace for one test; its tables are dropped at the end."""
    namespace = f"upkeep_{uuid.uuid4().hex[:10]}"
    with server.lake() as catalog:
        catalog.create_namespace(namespace)
        try:
            yield Shared(server, catalog, namespace, home)
        finally:
            for table in catalog.list_tables(namespace):
                catalog.drop_table(table)
            catalog.drop_namespace(namespace)
