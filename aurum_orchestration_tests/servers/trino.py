"""A Trino for tests: one that is there (AURUM_TEST_TRINO_URL), or one for all workers of a test run.

The process that pytest was called in makes the run's folder and ends what its workers started there.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pyiceberg.catalog.sql import SqlCatalog

from aurum_orchestration.errors import ProvisioningError
from aurum_orchestration.local.engines import lake
from aurum_orchestration.local.engines.trino import ENGINE, jdbc_catalog
from aurum_orchestration_tests.engines import missing
from aurum_orchestration_tests.servers import absence
from aurum_orchestration_tests.servers.object_store import ObjectStore
from aurum_orchestration_tests.servers.process import once_gone

WITHOUT_FLOORS = "lake0"
HEAP_MB = 1536
NO_FLOORS = {"iceberg.expire-snapshots.min-retention": "0s", "iceberg.remove-orphan-files.min-retention": "0s"}
_FOLDER = "AURUM_TEST_TRINO_FOLDER"

READER, STRANGER = "reader", "stranger"
"""Users who may only read, and nothing at all, where :attr:`TrinoServer.place` says that the server is ours."""

SECRET = b"what signs the tests' tokens, at least 64 bytes of it, as HMAC with SHA-256 wants it"
"""The key of tokens (HS256) that a login by ``jwt`` takes, for requests that a proxy says it had over https."""

_RULES = {
    "catalogs": [{"user": f"{READER}|{STRANGER}", "allow": "all"}, {"allow": "owner"}],
    "schemas": [{"user": f"{READER}|{STRANGER}", "owner": False}, {"owner": True}],
    "tables": [
        {"user": READER, "privileges": ["SELECT"]},
        {"user": STRANGER, "catalog": "lake0?", "privileges": []},
        {"privileges": ["SELECT", "INSERT", "DELETE", "UPDATE", "OWNERSHIP", "GRANT_SELECT"]},
    ],
    "procedures": [{"privileges": ["EXECUTE", "GRANT_EXECUTE"]}],
    "queries": [{"allow": ["execute", "view", "kill"]}],
}


@dataclass(frozen=True)
class TrinoServer:
    """A running Trino, and the catalog that it shares with PyIceberg.

    ``catalog`` and ``catalog_without_floors`` are Trino's names of it: the latter expires and removes orphans of any
    age, the former from 7 days on. ``storage`` are PyIceberg's properties of where its tables lie. ``place`` is its
    folder, None for a server that was there.
    """

    url: str
    uri: str
    warehouse: str
    place: Path | None = None
    catalog: str = lake.CATALOG
    catalog_without_floors: str = WITHOUT_FLOORS
    storage: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def host(self) -> str:
        """Where it is."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Where it listens."""
        return urlsplit(self.url).port or 8080

    @property
    def properties(self) -> dict[str, str]:
        """PyIceberg's properties of the catalog, as in a fleet file."""
        return {
            "name": self.catalog,
            "type": "sql",
            "uri": self.uri,
            "warehouse": self.warehouse,
            **self.storage,
        }

    @contextmanager
    def lake(self) -> Iterator[SqlCatalog]:
        """The catalog as PyIceberg sees it."""
        with closing(SqlCatalog(self.catalog, uri=self.uri, warehouse=self.warehouse, **self.storage)) as catalog:
            yield catalog

    def sql(self, text: str, user: str = "tests") -> list[tuple[Any, ...]]:
        """The rows of a statement; tables are named ``lake.ns.t``. Raises trino.exceptions.Error."""
        from trino.dbapi import connect

        connection: Any = connect(host=self.host, port=self.port, user=user)  # type: ignore[no-untyped-call]
        with closing(connection):
            cursor = connection.cursor()
            cursor.execute(text)
            return [tuple(row) for row in cursor.fetchall()]

    @contextmanager
    def on(self, store: ObjectStore, bucket: str) -> Iterator[TrinoServer]:
        """The same server with catalogs of their own, with floors and without, whose tables lie in a bucket."""
        name, port = bucket.replace("-", "_"), urlsplit(self.uri).port or 5432
        moved = replace(
            self,
            catalog=name,
            catalog_without_floors=f"{name}0",
            warehouse=f"s3://{bucket}/warehouse",
            storage=store.properties,
        )
        properties = {
            **jdbc_catalog(name, port, moved.warehouse),
            "fs.native-s3.enabled": "true",
            "s3.endpoint": store.endpoint,
            "s3.region": "us-east-1",
            "s3.path-style-access": "true",
            "s3.aws-access-key": store.access_key,
            "s3.aws-secret-key": store.secret_key,
        }
        connector = properties.pop("connector.name")
        catalogs = {name: properties, f"{name}0": {**properties, **NO_FLOORS}}
        try:
            for catalog, given in catalogs.items():
                pairs = ", ".join(f"\"{key}\" = '{value}'" for key, value in given.items())
                self.sql(f'CREATE CATALOG "{catalog}" USING {connector} WITH ({pairs})')
            yield moved
        finally:
            for catalog in catalogs:
                self.sql(f'DROP CATALOG IF EXISTS "{catalog}"')


def name_folder() -> None:
    """Choose the folder of the run, in the process that pytest was called in; workers inherit where it will be."""
    if _FOLDER not in os.environ:
        os.environ[_FOLDER] = f"{Path(tempfile.gettempdir()) / f'aurum-trino-{uuid.uuid4().hex[:12]}'}:{os.getpid()}"


def remove_folder() -> None:
    """End what runs in the folder and remove it, in the process that chose it."""
    folder, _, owner = os.environ.get(_FOLDER, "").rpartition(":")
    if owner == str(os.getpid()):
        lake.down(Path(folder) / "local")
        shutil.rmtree(folder, ignore_errors=True)
        del os.environ[_FOLDER]


def trino_server() -> TrinoServer:
    """The server that AURUM_TEST_TRINO_URL names (with _CATALOG_URI and _WAREHOUSE of its catalog), else the run's."""
    given = os.environ.get("AURUM_TEST_TRINO_URL")
    if given:
        uri, warehouse = os.environ["AURUM_TEST_TRINO_CATALOG_URI"], os.environ["AURUM_TEST_TRINO_WAREHOUSE"]
        return TrinoServer(given, uri, warehouse)
    folder, _, _ = os.environ[_FOLDER].rpartition(":")
    Path(folder).mkdir(mode=0o711, exist_ok=True)  # PostgreSQL runs as another user than root
    return start(Path(folder) / "local")


def start(place: Path, more_settings: Mapping[str, str] | None = None) -> TrinoServer:
    """A server of one's own, for a test that ends, restarts or sets it up: ``lake.down(place)`` ends it."""
    if ENGINE.find() is None:
        missing("trino", absence(ENGINE))
    if not all(lake.servers(place).values()):
        _end_with_the_run(place)
    try:
        found = lake.up(
            place,
            lambda _line: None,
            heap_mb=HEAP_MB,
            more_catalogs={WITHOUT_FLOORS: NO_FLOORS},
            more_settings={**_with_rights_and_logins(place / "trino" / "etc"), **(more_settings or {})},
            quick=True,
        )
    except ProvisioningError as error:
        missing("trino", str(error))
    return TrinoServer(found.url, found.uri, found.warehouse, place)


def _end_with_the_run(place: Path) -> None:
    """End the servers of a folder called ``local`` even when the process that pytest was called in is killed."""
    _, _, owner = os.environ[_FOLDER].rpartition(":")
    down: list[str | Path] = [Path(sys.executable).with_name("aurum"), "local", "down"]
    once_gone(int(owner), down, {**os.environ, "AURUM_HOME": str(place.parent)})


def _with_rights_and_logins(etc: Path) -> dict[str, str]:
    """Write who may do what, and the key of tokens; the settings of a login. Over plain http anybody still gets in."""
    etc.mkdir(parents=True, exist_ok=True)
    rules, key = etc / "rules.json", etc / "tokens.key"
    rules.write_text(json.dumps(_RULES))
    key.write_bytes(base64.b64encode(SECRET))
    access = f"access-control.name=file\nsecurity.config-file={rules}\n"
    (etc / "access-control.properties").write_text(access)
    return {
        "http-server.authentication.type": "jwt",
        "http-server.authentication.jwt.key-file": str(key),
        "http-server.authentication.allow-insecure-over-http": "true",
        "http-server.process-forwarded": "true",
        "internal-communication.shared-secret": base64.b64encode(SECRET).decode(),
    }
