"""A Trino of this machine: its tables are PyIceberg's, too; ``aurum local`` starts, shows and ends it."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from aurum_orchestration.fleet.config import IcebergBackendConfig
from aurum_orchestration.local.engines import lake
from aurum_orchestration_tests.command import aurum
from aurum_orchestration_tests.servers.object_store import ObjectStore
from aurum_orchestration_tests.servers.trino import TrinoServer, start


@pytest.fixture
def table(trino: TrinoServer) -> Iterator[Table]:
    """A table of three files with a row each, written by PyIceberg."""
    with trino.lake() as catalog:
        yield from _table(catalog)


def _table(catalog: SqlCatalog) -> Iterator[Table]:
    name = f"n{uuid.uuid4().hex}"
    catalog.create_namespace(name)
    made = catalog.create_table(f"{name}.t", pa.schema([("number", pa.int64())]))
    for number in range(3):
        made.append(pa.table({"number": [number]}))
    yield made
    catalog.drop_table(f"{name}.t")
    catalog.drop_namespace(name)


def test_one_engine_reads_what_the_other_wrote(trino: TrinoServer, table: Table) -> None:
    namespace, _ = table.name()
    assert trino.sql(f"SELECT sum(number), count(*) FROM {trino.catalog}.{namespace}.t") == [(3, 3)]
    trino.sql(f"ALTER TABLE {trino.catalog}.{namespace}.t EXECUTE optimize")
    table.refresh()
    assert len(list(table.scan().plan_files())) == 1
    assert sorted(table.scan().to_arrow()["number"].to_pylist()) == [0, 1, 2]


def test_one_of_its_two_catalogs_has_no_floors(trino: TrinoServer, table: Table) -> None:
    from trino.exceptions import TrinoUserError

    namespace, _ = table.name()
    expire = "EXECUTE expire_snapshots(retention_threshold => '0s')"
    with pytest.raises(TrinoUserError, match="shorter than the minimum retention"):
        trino.sql(f"ALTER TABLE {trino.catalog}.{namespace}.t {expire}")
    trino.sql(f"ALTER TABLE {trino.catalog_without_floors}.{namespace}.t {expire}")
    table.refresh()
    assert len(table.metadata.snapshots) == 1


def test_tables_in_a_bucket_are_shared_too(trino: TrinoServer, s3: ObjectStore, bucket: str) -> None:
    with trino.on(s3, bucket) as server, server.lake() as catalog:
        for made in _table(catalog):
            namespace, _ = made.name()
            server.sql(f"ALTER TABLE {server.catalog}.{namespace}.t EXECUTE optimize")
            # expiry alone leaves the files that the rewrite replaced
            for procedure in ("expire_snapshots", "remove_orphan_files"):
                call = f"EXECUTE {procedure}(retention_threshold => '0s')"
                server.sql(f"ALTER TABLE {server.catalog_without_floors}.{namespace}.t {call}")
            made.refresh()
            assert sorted(made.scan().to_arrow()["number"].to_pylist()) == [0, 1, 2]
            data = [name for name in s3.objects(bucket) if name.endswith(".parquet")]
            assert len(data) == len(list(made.scan().plan_files())) == 1


def test_the_command_finds_what_runs_already(trino: TrinoServer, table: Table, tmp_path: Path) -> None:
    if trino.place is None:
        pytest.skip("AURUM_TEST_TRINO_URL names a server that nobody here started")
    home = {"AURUM_HOME": str(trino.place.parent)}
    before = {name: server and server.pid for name, server in lake.servers(trino.place).items()}
    status = aurum("local", "status", **home)
    assert (status.code, f"trino: 127.0.0.1:{trino.port}, process {before['trino']}" in status.out) == (0, True)
    up = aurum("local", "up", "--with", "trino", **home)
    assert up.code == 0, up.err
    assert trino.url in up.err
    backend = IcebergBackendConfig.model_validate(yaml.safe_load(up.out)["backends"]["lake"])
    assert (backend.engine, backend.host, backend.port) == ("trino", trino.host, trino.port)
    assert backend.catalog == trino.properties
    (tmp_path / "fleet.yaml").write_text(up.out)
    found = aurum("discover", "--fleet", str(tmp_path / "fleet.yaml"), AURUM_HOME=str(tmp_path / "home"))
    assert (found.code, f"lake.{table.name()[0]}.t" in found.out) == (0, True), found.err
    assert {name: server and server.pid for name, server in lake.servers(trino.place).items()} == before


def test_nothing_runs_in_a_new_home(tmp_path: Path) -> None:
    status = aurum("local", "status", AURUM_HOME=str(tmp_path / "home"))
    assert (status.code, status.out) == (1, "trino: does not run\npostgres: does not run\n")
    down = aurum("local", "down", AURUM_HOME=str(tmp_path / "home"))
    assert (down.code, down.out) == (0, "nothing runs\n")
    assert not (tmp_path / "home").exists()


@pytest.mark.thorough
def test_tables_outlive_the_servers(trino: TrinoServer) -> None:
    """A server of its own that loses its catalog's server, then started again: same ports, same tables."""
    if trino.place is None:
        pytest.skip("AURUM_TEST_TRINO_URL names a server that nobody here started")
    home = trino.place.with_name("another-home")  # PostgreSQL cannot get to pytest's folders
    place, environment = home / "local", {"AURUM_HOME": str(home)}
    home.mkdir()
    home.chmod(0o711)
    try:
        first = start(place)
        with first.lake() as catalog:
            namespace, _ = next(_table(catalog)).name()
        # without its catalog it is no lake: both are started anew
        holder = lake.servers(place)["postgres"]
        assert holder is not None
        holder.stop(signal.SIGINT)
        status = aurum("local", "status", **environment)
        assert (status.code, "postgres: does not run" in status.out) == (1, True)
        again = start(place)
        assert again == first
        assert again.sql(f"SELECT count(*) FROM lake.{namespace}.t") == [(3,)]
        assert aurum("local", "down", **environment).out == "ended: trino, postgres\n"
        assert aurum("local", "status", **environment).code == 1
    finally:
        lake.down(place)
