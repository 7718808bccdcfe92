"""Where tables live in the conformance suite: catalogs and storages, each a real one.

``local``: SQLite and a folder; ``postgres``: PostgreSQL and a folder; ``rest``: a REST catalog and a folder;
``s3``: SQLite and an object store; ``rest-s3``: a REST catalog that hands out the keys of its object store;
``trino``: PostgreSQL and a folder, shared with a Trino that does the work.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import sqlalchemy
import yaml
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from aurum_orchestration.local.engines.trino import jdbc_catalog
from aurum_orchestration_tests.conformance.kinds import Kind
from aurum_orchestration_tests.servers.object_store import ObjectStore
from aurum_orchestration_tests.servers.rest_catalog import RestServer
from aurum_orchestration_tests.servers.trino import NO_FLOORS, TrinoServer


@dataclass(frozen=True)
class Warehouse:
    """A catalog with the namespace ``ns`` to make tables in and to look at them afterwards.

    ``fleet`` is a fleet file that names it ``lake``; ``contents`` all that is stored, in the home too; ``fetch``
    gives a local path for a file's location; ``made`` another way to make a table of a kind.
    """

    catalog: Catalog
    fleet: str
    contents: Callable[[], Mapping[str, Any]]
    fetch: Callable[[str], str]
    made: Callable[[Kind], Table] | None = None

    def table(self, kind: Kind) -> Table:
        """The table ``ns.t`` of that kind, new."""
        return self.made(kind) if self.made else kind.make(self.catalog, "ns.t")


def everything_in(*folders: Path) -> dict[str, bytes]:
    """Every file below the folders with its content."""
    return {str(path): path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def local_path(location: str) -> str:
    return location.removeprefix("file://")


SECRETS = {"s3.access-key-id": "AURUM_TEST_FLEET_KEY", "s3.secret-access-key": "AURUM_TEST_FLEET_SECRET"}
"""Environment variables that a fleet file takes these properties from."""


def fleet_of(request: pytest.FixtureRequest, **properties: str) -> str:
    """A fleet file whose only backend has this catalog; the environment has its secrets."""
    for name in SECRETS.keys() & properties.keys():
        request.getfixturevalue("monkeypatch").setenv(SECRETS[name], properties[name])
    catalog = {name: f"${{{SECRETS[name]}}}" if name in SECRETS else value for name, value in properties.items()}
    lake = {"type": "iceberg", "engine": "pyiceberg", "catalog": catalog}
    return yaml.safe_dump({"version": 1, "backends": {"lake": lake}, "policy": {"compaction": {"min_input_files": 5}}})


@contextmanager
def opened(**properties: str) -> Iterator[Catalog]:
    with closing(load_catalog("lake", **properties)) as catalog:
        catalog.create_namespace_if_not_exists("ns")
        yield catalog


def home_of(request: pytest.FixtureRequest) -> Path:
    home: Path = request.getfixturevalue("tmp_path")
    return home


@contextmanager
def local(request: pytest.FixtureRequest) -> Iterator[Warehouse]:
    """One place for all tests of a worker, one after the other: a kind is made once, then put back as it was."""
    home, place = home_of(request), request.getfixturevalue("place")
    lake = place / "lake"
    shutil.rmtree(lake, ignore_errors=True)
    lake.mkdir()
    properties = {"type": "sql", "uri": f"sqlite:///{lake}/catalog.db", "warehouse": f"file://{lake}/warehouse"}
    with opened(**properties) as catalog:
        assert isinstance(catalog, SqlCatalog)

        def made(kind: Kind) -> Table:
            copy = place / "kinds" / kind.name
            if not copy.exists():
                kind.make(catalog, "ns.t")
                shutil.copytree(lake, copy)
            else:
                catalog.engine.dispose()  # no connection outlives the file that it opened
                shutil.rmtree(lake)
                shutil.copytree(copy, lake)
            return catalog.load_table("ns.t")

        contents = partial(everything_in, home, lake)
        yield Warehouse(catalog, fleet_of(request, **properties), contents, local_path, made)


@contextmanager
def postgres(request: pytest.FixtureRequest) -> Iterator[Warehouse]:
    """A database of the test's own."""
    home = home_of(request)
    server = sqlalchemy.make_url(request.getfixturevalue("postgres_url"))
    name = f"lake_{uuid.uuid4().hex[:12]}"
    engine = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    uri = server.set(database=name).render_as_string(hide_password=False)
    properties = {"type": "sql", "uri": uri, "warehouse": f"file://{home}/warehouse"}
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
        try:
            with opened(**properties) as catalog:
                yield Warehouse(catalog, fleet_of(request, **properties), lambda: everything_in(home), local_path)
        finally:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def rest(request: pytest.FixtureRequest) -> Iterator[Warehouse]:
    """The session's server; what the test made in it is removed at the end."""
    home, server = home_of(request), request.getfixturevalue("rest")
    assert isinstance(server, RestServer)
    folder = Path(local_path(server.warehouse))
    properties = {"type": "rest", "uri": server.uri}
    with opened(**properties) as catalog:
        try:
            yield Warehouse(catalog, fleet_of(request, **properties), lambda: everything_in(home, folder), local_path)
        finally:
            for table in catalog.list_tables("ns"):
                catalog.drop_table(table)
            shutil.rmtree(folder / "ns", ignore_errors=True)


@contextmanager
def s3(request: pytest.FixtureRequest) -> Iterator[Warehouse]:
    home, bucket = home_of(request), str(request.getfixturevalue("bucket"))
    store = request.getfixturevalue("s3")
    properties = {
        "type": "sql",
        "uri": f"sqlite:///{home}/catalog.db",
        "warehouse": f"s3://{bucket}/warehouse",
        **store.properties,
    }
    with opened(**properties) as catalog, _in_bucket(request, catalog, fleet_of(request, **properties), bucket) as made:
        yield made


@contextmanager
def rest_s3(request: pytest.FixtureRequest) -> Iterator[Warehouse]:
    """The client knows where the session's store is, and has no keys of its own."""
    server, store = request.getfixturevalue("rest_on_s3"), request.getfixturevalue("s3")
    assert isinstance(server, RestServer)
    own = {name: value for name, value in store.properties.items() if "key" not in name}
    properties = {"type": "rest", "uri": server.uri, **own}
    bucket = server.warehouse.removeprefix("s3://").split("/")[0]
    with (
        opened(**properties) as catalog,
        _in_bucket(request, catalog, fleet_of(request, **properties), bucket) as made,
    ):
        try:
            yield made
        finally:
            for table in catalog.list_tables("ns"):
                catalog.drop_table(table)
            store.system().delete_dir_contents(bucket)


@contextmanager
def _in_bucket(request: pytest.FixtureRequest, catalog: Catalog, fleet: str, bucket: str) -> Iterator[Warehouse]:
    home, store = home_of(request), request.getfixturevalue("s3")
    assert isinstance(store, ObjectStore)
    system = store.system()
    with TemporaryDirectory() as copies:

        def fetch(location: str) -> str:
            path = location.removeprefix("s3://")
            copy = Path(copies, path.replace("/", "_"))
            if not copy.exists():
                copy.write_bytes(system.open_input_file(path).readall())
            return os.fspath(copy)

        def contents() -> dict[str, Any]:
            return {**everything_in(home), **store.objects(bucket)}

        yield Warehouse(catalog, fleet, contents, fetch)


@contextmanager
def trino(request: pytest.FixtureRequest) -> Iterator[Warehouse]:
    """A catalog of the test's own on the session's Trino, without floors, which PyIceberg shares."""
    home, server = home_of(request), request.getfixturevalue("trino")
    assert isinstance(server, TrinoServer)
    name = f"lake_{uuid.uuid4().hex[:12]}"
    port = sqlalchemy.make_url(server.uri).port or 5432
    properties = {"type": "sql", "name": name, "uri": server.uri, "warehouse": f"file://{home}/warehouse"}
    lake = {
        "type": "iceberg",
        "engine": "trino",
        "host": server.host,
        "port": server.port,
        "user": "aurum",
        "trino_catalog": name,
        "catalog": properties,
    }
    given = {**jdbc_catalog(name, port, properties["warehouse"]), **NO_FLOORS}
    connector = given.pop("connector.name")
    pairs = ", ".join(f"\"{key}\" = '{value}'" for key, value in given.items())
    with closing(SqlCatalog(name, uri=server.uri, warehouse=properties["warehouse"])) as catalog:
        catalog.create_namespace("ns")
        server.sql(f'CREATE CATALOG "{name}" USING {connector} WITH ({pairs})')
        try:
            fleet = {"version": 1, "backends": {"lake": lake}, "policy": {"compaction": {"min_input_files": 5}}}
            yield Warehouse(catalog, yaml.safe_dump(fleet), lambda: everything_in(home), local_path)
        finally:
            server.sql(f'DROP CATALOG IF EXISTS "{name}"')
            for table in catalog.list_tables("ns"):
                catalog.drop_table(table)
            catalog.drop_namespace("ns")


WAREHOUSES: dict[str, Callable[[pytest.FixtureRequest], AbstractContextManager[Warehouse]]] = {
    "local": local,
    "postgres": postgres,
    "rest": rest,
    "s3": s3,
    "rest-s3": rest_s3,
    "trino": trino,
}
