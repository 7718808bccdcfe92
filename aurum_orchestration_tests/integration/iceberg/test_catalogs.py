"""Opening catalogs, what goes wrong there, listing tables, and measuring through each kind of catalog."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchNamespaceError, NotInstalledError
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table
from pyiceberg.types import DoubleType, ListType, LongType, MapType, NestedField, StringType, StructType
from sqlalchemy import create_engine, make_url, text

from aurum_orchestration.errors import (
    AurumError,
    BackendUnavailableError,
    ConfigurationError,
    MissingExtraError,
)
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.catalog import list_tables, open_catalog
from aurum_orchestration.maintenance.backends.iceberg.failures import translate
from aurum_orchestration.maintenance.backends.iceberg.files import Files
from aurum_orchestration.maintenance.backends.iceberg.measure import IcebergMeasurer
from aurum_orchestration_tests.iceberg_deletes import add_position_deletes, live_data_files
from aurum_orchestration_tests.integration.iceberg.claims import claim, measure, metadata_path, policy
from aurum_orchestration_tests.integration.iceberg.support import append_numbers, fields, make_table

NUMBERS = fields(id=LongType())


class OtherCatalog(NoopCatalog):
    """A catalog that is none of SQL, with what all catalogs have; its tables are those of a SQL catalog."""

    def __init__(self, behind: SqlCatalog, **properties: str) -> None:
        super().__init__("other", **properties)
        self.behind = behind
        self.loaded: list[Any] = []

    def load_table(self, identifier: Any) -> Table:
        self.loaded.append(identifier)
        return self.behind.load_table(identifier)

    def list_tables(self, namespace: Any) -> list[Any]:
        if namespace == ("dropped",):
            raise NoSuchNamespaceError("dropped")
        return self.behind.list_tables(namespace)

    def list_namespaces(self, namespace: Any = ()) -> list[Any]:
        return [*self.behind.list_namespaces(namespace), *([] if namespace else [("dropped",)])]


class FlatCatalog(OtherCatalog):
    """A catalog without nested namespaces, which says so."""

    def list_namespaces(self, namespace: Any = ()) -> list[Any]:
        if namespace:
            raise NotImplementedError
        return super().list_namespaces()


class CountingIO(PyArrowFileIO):
    """A FileIO as a user might bring."""

    opened: ClassVar[list[str]] = []

    def new_input(self, location: str) -> Any:
        self.opened.append(location)
        return super().new_input(location)


@pytest.fixture
def other(catalog: SqlCatalog) -> OtherCatalog:
    return OtherCatalog(catalog)


def sqlite(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {"type": "sql", "uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"file://{tmp_path}/w", **more}


# --- opening


def test_a_catalog_is_made_only_when_asked_for(tmp_path: Path) -> None:
    properties = sqlite(tmp_path / "home")
    with pytest.raises(BackendUnavailableError, match=r"c\.db does not exist"):
        open_catalog("lake", properties)
    assert list(tmp_path.iterdir()) == []
    with closing(open_catalog("lake", properties, create=True)) as made:
        made.create_namespace("ns")
    with closing(open_catalog("lake", properties)) as again:
        assert (again.name, again.list_namespaces()) == ("lake", [("ns",)])


def test_a_database_without_a_catalog_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE other (x)")
    before = path.read_bytes()
    with pytest.raises(BackendUnavailableError, match="no such table: iceberg_tables"):
        open_catalog("lake", sqlite(tmp_path))
    assert path.read_bytes() == before


def test_the_name_of_the_catalog_can_be_another_than_the_backends(tmp_path: Path) -> None:
    with closing(open_catalog("lake", sqlite(tmp_path, name="prod"), create=True)) as made:
        assert made.name == "prod"
        made.create_namespace("ns")
        claim(made.create_table("ns.t", NUMBERS), [1000] * 10)
        (found,) = list_tables(made, "lake")
        assert str(found.table) == "lake.ns.t"
        assert measure(made, found.table).metrics["data_files"] == 10
    with closing(open_catalog("lake", sqlite(tmp_path))) as stranger:
        assert list_tables(stranger, "lake") == []


def test_values_that_yaml_makes_no_text_of(tmp_path: Path) -> None:
    with closing(open_catalog("lake", sqlite(tmp_path, pool_pre_ping=True, ssl=None), create=True)) as made:
        assert made.properties["pool_pre_ping"] == "true"
        assert "ssl" not in made.properties


@pytest.mark.parametrize(
    ("properties", "kind", "words"),
    [
        ({"type": "sqll", "uri": "sqlite://"}, ConfigurationError, "catalog type 'sqll' is unknown"),
        ({"type": "sql"}, ConfigurationError, "URI missing"),
        ({"type": "sql", "uri": "nonsense"}, ConfigurationError, "Could not parse SQLAlchemy URL"),
        ({"type": "sql", "uri": "oracle9://x/y"}, AurumError, "oracle9"),
        ({"type": "rest", "uri": "http://127.0.0.1:1"}, BackendUnavailableError, "127.0.0.1"),
        ({"uri": "ftp://x"}, ConfigurationError, "Could not infer the catalog type"),
        ({"py-catalog-impl": "no.such.Catalog"}, AurumError, "no.such.Catalog"),
        ({"type": "sql", "uri": "postgresql+psycopg://u:hush@127.0.0.1:1/db"}, BackendUnavailableError, "127.0.0.1"),
        ({"type": "sql", "uri": "postgresql+asyncpg://u:hush@127.0.0.1:1/db"}, MissingExtraError, "asyncpg"),
    ],
)
def test_what_is_wrong_with_a_catalog_is_said_without_secrets(
    properties: dict[str, str], kind: type[AurumError], words: str
) -> None:
    with pytest.raises(kind, match=words.replace(".", r"\.")) as caught:
        open_catalog("lake", properties)
    problem = caught.value.problem()
    assert "hush" not in problem.model_dump_json()
    assert problem.hint


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("postgresql+psycopg2cffi://127.0.0.1:1/db", "aurum-orchestration[postgres]"),
        ("postgresql+asyncpg://127.0.0.1:1/db", "Install the driver asyncpg."),
    ],
)
def test_a_driver_that_is_not_installed_is_named(uri: str, hint: str) -> None:
    with pytest.raises(MissingExtraError) as caught:
        open_catalog("lake", {"type": "sql", "uri": uri})
    assert hint in str(caught.value.hint)


def test_an_engine_that_is_not_installed_is_an_extra_of_pyiceberg() -> None:
    error = translate(NotInstalledError("Apache Hive support not installed"), "lake", {"type": "hive"})
    assert (error.type, error.hint) == ("missing-extra", "pip install 'pyiceberg[hive]'")


def test_an_unknown_catalog_type_offers_the_nearest() -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_catalog("lake", {"type": "glu"})
    assert caught.value.hint == "Did you mean 'glue'?"


def test_a_secret_property_is_in_no_error() -> None:
    properties = {"type": "rest", "uri": "http://127.0.0.1:1/hush-hush", "token": "hush-hush"}
    with pytest.raises(BackendUnavailableError) as caught:
        open_catalog("lake", properties)
    assert "hush" not in str(caught.value)


# --- listing


def names(catalog: Catalog, *patterns: str) -> list[str]:
    return [str(found.table) for found in list_tables(catalog, "lake", patterns)]


@pytest.fixture
def many(catalog: SqlCatalog) -> SqlCatalog:
    """Tables in namespaces within namespaces, with odd names."""
    for name in [("ns", "plain"), ("ns", "t.x"), ("ns", 'q"'), ("ns", "in", "side"), ("größe", "表")]:
        catalog.create_namespace_if_not_exists(name[:-1])
        catalog.create_table(name, NUMBERS)
    return catalog


ALL = ["lake.größe.表", "lake.ns.in.side", "lake.ns.plain", 'lake.ns."q"""', 'lake.ns."t.x"']


def test_all_tables_are_listed_whatever_their_names(many: SqlCatalog) -> None:
    assert sorted(names(many)) == sorted(ALL)
    assert sorted(names(OtherCatalog(many))) == sorted(ALL)
    for catalog in (many, OtherCatalog(many)):
        for found in list_tables(catalog, "lake"):
            assert TableId.parse(str(found.table)) == found.table
            assert measure(catalog, found.table).problem is None


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["ns"], ["lake.ns.in.side", "lake.ns.plain", 'lake.ns."q"""', 'lake.ns."t.x"']),
        (["ns.p*"], ["lake.ns.plain"]),
        (['ns."t.x"', "größe.*"], ["lake.größe.表", 'lake.ns."t.x"']),
        (["ns.in"], ["lake.ns.in.side"]),
        (["nothing.*"], []),
    ],
)
def test_patterns_choose(many: SqlCatalog, patterns: list[str], expected: list[str]) -> None:
    assert sorted(names(many, *patterns)) == sorted(expected)
    assert sorted(names(OtherCatalog(many), *patterns)) == sorted(expected)


def test_a_catalog_without_nested_namespaces_lists_the_rest(catalog: SqlCatalog) -> None:
    make_table(catalog, NUMBERS)
    assert names(FlatCatalog(catalog)) == ["lake.ns.t"]


def test_columns_comment_and_location_come_along(catalog: SqlCatalog, other: OtherCatalog) -> None:
    schema = fields(
        id=LongType(),
        tags=ListType(10, StringType(), element_required=False),
        at=StructType(NestedField(11, "lat", DoubleType()), NestedField(12, "lon", DoubleType())),
        more=MapType(13, StringType(), 14, LongType()),
    )
    table = make_table(catalog, schema, {"comment": "Where it was."})
    with table.update_schema() as change:
        change.rename_column("id", "number")
    (found,) = list_tables(catalog, "lake")
    assert (found.kind, found.comment, found.location) == ("iceberg", "Where it was.", table.location())
    assert found.columns == (
        ("number", "long"),
        ("tags", "list<string>"),
        ("at", "struct<lat: double, lon: double>"),
        ("more", "map<string, long>"),
    )
    (bare,) = list_tables(other, "lake")
    assert (bare.kind, bare.columns) == ("iceberg", ())


def test_a_broken_table_is_listed_all_the_same(catalog: SqlCatalog) -> None:
    metadata_path(make_table(catalog, NUMBERS)).unlink()
    (found,) = list_tables(catalog, "lake")
    assert (str(found.table), found.columns) == ("lake.ns.t", ())


def test_views_are_no_tables(catalog: SqlCatalog) -> None:
    make_table(catalog, NUMBERS)
    with catalog.engine.begin() as connection:
        connection.execute(text("INSERT INTO iceberg_tables VALUES ('lake', 'ns', 'view', 'file:///v', NULL, 'VIEW')"))
    assert names(catalog) == ["lake.ns.t"]
    health = measure(catalog, TableId("lake", ("ns", "view")))
    assert health.problem is not None
    assert health.problem.type == "table-not-found"


def test_a_catalog_of_the_old_schema_without_a_column_for_views(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "c.db")) as connection:
        connection.executescript(
            """CREATE TABLE iceberg_tables (catalog_name TEXT, table_namespace TEXT, table_name TEXT,
                metadata_location TEXT, previous_metadata_location TEXT,
                PRIMARY KEY (catalog_name, table_namespace, table_name));
            CREATE TABLE iceberg_namespace_properties (catalog_name TEXT, namespace TEXT, property_key TEXT,
                property_value TEXT, PRIMARY KEY (catalog_name, namespace, property_key));"""
        )
    with closing(open_catalog("lake", sqlite(tmp_path))) as old:
        old.create_namespace("ns")
        claim(old.create_table("ns.t", NUMBERS), [1000] * 10)
        assert names(old) == ["lake.ns.t"]
        assert measure(old, TableId("lake", ("ns", "t"))).metrics["excess_files"] == 9


# --- measuring through a catalog that is not SQL


def test_any_other_catalog_measures_the_same(catalog: SqlCatalog, other: OtherCatalog) -> None:
    plain = make_table(catalog, NUMBERS, name="ns.a")
    append_numbers(plain, files=8)
    deleted = make_table(catalog, NUMBERS, name="ns.b")
    append_numbers(deleted, files=8)
    add_position_deletes(deleted, {live_data_files(deleted)[0].file_path: [0, 1]})
    empty = make_table(catalog, NUMBERS, name="ns.c")
    for fast, general in zip(
        measure(catalog, plain, deleted, empty), measure(other, plain, deleted, empty), strict=True
    ):
        assert (general.state_token, general.refusals) == (fast.state_token, fast.refusals)
        unlike = {"seconds_since_commit", "oldest_snapshot_seconds", "metadata_bytes"}
        assert {key: value for key, value in general.metrics.items() if key not in unlike} == {
            key: value for key, value in fast.metrics.items() if key not in unlike
        }
        assert "metadata_bytes" not in general.metrics


def test_any_other_catalog_names_broken_and_missing_tables(catalog: SqlCatalog, other: OtherCatalog) -> None:
    tables = [make_table(catalog, NUMBERS, name=f"ns.t{number}") for number in range(4)]
    for table in tables:
        claim(table, [1000] * 10)
    measurer = IcebergMeasurer(other, "lake")
    assert [health.metrics["excess_files"] for health in measure(other, *tables, measurer=measurer)] == [9] * 4
    metadata_path(tables[1]).write_bytes(b"{}")
    metadata_path(tables[2]).unlink()
    catalog.drop_table("ns.t3")
    healths = measure(other, *tables, measurer=measurer)
    assert [health.problem and health.problem.type for health in healths] == [
        None,
        "corrupt-table",
        "corrupt-table",
        "table-not-found",
    ]


def test_any_other_catalog_sees_changes_and_remembers_the_rest(
    catalog: SqlCatalog, other: OtherCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(catalog, NUMBERS)
    claim(table, [1000] * 10)
    measurer = IcebergMeasurer(other, "lake")
    first = measure(other, table, measurer=measurer)
    with monkeypatch.context() as patch:
        patch.setattr(Files, "read", lambda _self, location: pytest.fail(f"{location} is read again"))
        assert measure(other, table, measurer=measurer).metrics.keys() == first.metrics.keys()
    claim(table, [1000] * 10)
    assert measure(other, table, measurer=measurer).metrics["excess_files"] == 19
    assert len(other.loaded) == 3


def test_files_are_read_with_what_the_catalog_gave_last(catalog: SqlCatalog) -> None:
    class ExpiringIO(PyArrowFileIO):
        """Reads only until the catalog gives the next one, as with credentials that it hands out."""

        newest: ClassVar[ExpiringIO | None] = None

        def __init__(self) -> None:
            super().__init__({"py-io-impl": "expiring"})
            ExpiringIO.newest = self

        def new_input(self, location: str) -> Any:
            assert self is ExpiringIO.newest, "expired"
            return super().new_input(location)

    class Handing(OtherCatalog):
        def load_table(self, identifier: Any) -> Table:
            table = super().load_table(identifier)
            table.io = ExpiringIO()
            return table

    table = make_table(catalog, NUMBERS)
    claim(table, [1000] * 10)
    handing = Handing(catalog)
    measurer = IcebergMeasurer(handing, "lake")
    assert measure(handing, table, measurer=measurer).metrics["exact"] == 1
    # another policy: the manifest list is read again, with what was given now
    health = measure(handing, table, measurer=measurer, target_file_size_mb=1)
    assert (health.problem, health.metrics["exact"]) == (None, 1)


def test_a_catalog_that_fails_for_one_table_is_that_tables_problem(catalog: SqlCatalog) -> None:
    class Failing(OtherCatalog):
        def load_table(self, identifier: Any) -> Table:
            if identifier[-1] == "t1":
                raise ConnectionError("token=abc123 refused")
            return super().load_table(identifier)

    tables = [make_table(catalog, NUMBERS, name=f"ns.t{number}") for number in range(2)]
    fine, failed = measure(Failing(catalog), *tables)
    assert fine.problem is None
    assert failed.problem is not None
    assert (failed.problem.type, failed.problem.transient) == ("backend-unavailable", True)
    assert "abc123" not in failed.problem.model_dump_json()


def test_a_file_io_of_the_users_own_is_used(catalog: SqlCatalog, tmp_path: Path) -> None:
    table = make_table(catalog, NUMBERS)
    claim(table, [1000] * 10)
    properties = {"uri": f"sqlite:///{tmp_path}/catalog.db", "py-io-impl": f"{__name__}.CountingIO"}
    CountingIO.opened.clear()
    with closing(open_catalog("lake", {"type": "sql", **properties})) as own:
        assert measure(own, table).metrics["excess_files"] == 9
    assert len(CountingIO.opened) == 3


# --- Postgres


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[str]:
    """URL of a database of its own."""
    name = f"lake_{uuid.uuid4().hex}"
    admin = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


def test_a_catalog_in_postgres(postgres_database: str, tmp_path: Path) -> None:
    # as people write it, without a driver
    uri = postgres_database.replace("postgresql+psycopg:", "postgresql:")
    properties = {"type": "sql", "uri": uri, "warehouse": f"file://{tmp_path}"}
    with pytest.raises(BackendUnavailableError, match="iceberg_tables"):
        open_catalog("lake", properties)
    with closing(open_catalog("lake", properties, create=True)) as catalog:
        catalog.create_namespace("ns")
        tables = [catalog.create_table(("ns", name), NUMBERS) for name in ("a", 'q"; DROP', "größe")]
        for table in tables:
            claim(table, [1000] * 10)
        assert names(catalog) == ["lake.ns.a", "lake.ns.größe", 'lake.ns."q""; DROP"']
        measurer = IcebergMeasurer(catalog, "lake")
        claim(tables[2], [1000] * 5)
        healths = measure(catalog, *tables, measurer=measurer)
        assert [health.metrics["excess_files"] for health in healths] == [9, 9, 14]
        with catalog.engine.begin() as connection:  # type: ignore[attr-defined]
            connection.execute(text("DROP TABLE iceberg_tables"))
        with pytest.raises(BackendUnavailableError, match="iceberg_tables"):
            measurer.measure([TableId("lake", ("ns", "a"))], policy())
