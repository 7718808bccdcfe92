"""Listing and measuring through Trino alone: the embedded engine's numbers, and one broken table costs no other."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from pydantic import BaseModel
from pyiceberg.catalog.sql import SqlCatalog

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.backends.iceberg.trino.client import Answer, TrinoClient
from aurum_orchestration.maintenance.interfaces import TableHealth
from aurum_orchestration.maintenance.operations.compaction import CompactionPolicy
from aurum_orchestration.maintenance.operations.retention import RetentionPolicy
from aurum_orchestration_tests.integration.postgres.support import opened
from aurum_orchestration_tests.servers.trino import TrinoServer

POLICIES: dict[str, BaseModel] = {"compaction": CompactionPolicy(), "retention": RetentionPolicy()}
# the first by the clock of the moment of measuring, the last only where the metadata file itself is read
DIFFERENT = {"seconds_since_commit", "oldest_snapshot_seconds", "metadata_bytes"}


def policy(_table: TableId, operation: str) -> BaseModel:
    return POLICIES[operation]


def backend(server: TrinoServer, **keys: Any) -> IcebergMaintenanceBackend:
    config = {"engine": "trino", "host": server.host, "port": server.port, "trino_catalog": server.catalog, **keys}
    return IcebergMaintenanceBackend(config, name="lake")


@pytest.fixture(scope="module")
def catalog(trino: TrinoServer) -> Iterator[SqlCatalog]:
    with trino.lake() as found:
        yield found


@pytest.fixture(scope="module")
def namespace(catalog: SqlCatalog, trino: TrinoServer) -> str:
    """Tables of many kinds: small files, a partitioned one with deletes, an empty one, names that need quotes."""
    name = f"measure_{uuid.uuid4().hex[:8]}"
    catalog.create_namespace(name)
    rows = pa.table({"a": pa.array(range(3), pa.int64()), "p": ["x", "y", "x"]})
    for table in ("small", 't"x y'):
        made = catalog.create_table(f"{name}.{table}", rows.schema)
        for _ in range(6):
            made.append(rows)
    catalog.create_table(f"{name}.empty", rows.schema)
    trino.sql(f"CREATE TABLE lake.{name}.parted (a bigint, p varchar) WITH (partitioning = ARRAY['p'])")
    for number in range(5):
        trino.sql(f"INSERT INTO lake.{name}.parted VALUES ({number}, 'x'), ({number}, 'y'), ({number + 100}, 'y')")
    trino.sql(f"DELETE FROM lake.{name}.parted WHERE a = 2")
    trino.sql(f"CREATE VIEW lake.{name}.seen AS SELECT 1 AS one")
    return name


def ids(namespace: str, *names: str) -> list[TableId]:
    return [TableId("lake", (namespace, name)) for name in names]


def test_tables_are_listed_with_their_columns(trino: TrinoServer, namespace: str) -> None:
    with opened(backend(trino)) as through:
        found = through.discover([namespace])
        named = through.names([f"{namespace}.s*"])
    assert [one.table.name for one in found] == ["empty", "parted", "small", 't"x y']
    assert found[1].columns == (("a", "bigint"), ("p", "varchar"))
    assert [one.table.name for one in named] == ["small"]


def without_clock(health: TableHealth) -> dict[str, float]:
    return {name: value for name, value in health.metrics.items() if name not in DIFFERENT}


def test_the_numbers_are_those_of_the_embedded_engine(trino: TrinoServer, namespace: str) -> None:
    tables = ids(namespace, "small", "parted", "empty", 't"x y')
    with opened(IcebergMaintenanceBackend({"catalog": trino.properties}, name="lake")) as without:
        embedded = without.measure(tables, policy)
    with opened(backend(trino)) as through:
        found = through.measure(tables, policy)
    for ours, theirs in zip(found, embedded, strict=True):
        assert ours.problem is None
        assert ours.table == theirs.table
        assert ours.state_token == theirs.state_token
        assert without_clock(ours) == without_clock(theirs)
    assert found[0].metrics["excess_files"] == 5
    assert found[1].metrics["delete_files"] > 0
    # with the catalog it is the embedded engine that measures
    with opened(backend(trino, catalog=trino.properties)) as through:
        both = through.measure(tables, policy)
    assert "metadata_bytes" in both[0].metrics


def test_a_broken_table_costs_no_other(trino: TrinoServer, catalog: SqlCatalog, namespace: str) -> None:
    # one that Trino has not read yet: it keeps metadata files in memory
    location = catalog.create_table(f"{namespace}.broken", pa.schema([("a", pa.int64())])).metadata_location
    file = Path(urlsplit(location).path)
    whole = file.read_text()
    file.write_text("{ no metadata")
    try:
        tables = ids(namespace, "small", "broken", "nowhere", "parted")
        with opened(backend(trino)) as through:
            small, broken, nowhere, parted = through.measure(tables, policy)
    finally:
        file.write_text(whole)  # a vacuum without a catalog asks every table of the server where it lies
    assert (small.problem, parted.problem) == (None, None)
    assert nowhere.problem is not None
    assert nowhere.problem.type == "table-not-found"
    assert broken.problem is not None
    assert broken.metrics == {}


def test_what_changed_is_seen_the_next_time(trino: TrinoServer, catalog: SqlCatalog, namespace: str) -> None:
    table = catalog.load_table(f"{namespace}.small")
    measuring = backend(trino)
    [before] = measuring.measure(ids(namespace, "small"), policy)
    table.append(pa.table({"a": pa.array([9], pa.int64()), "p": ["z"]}))
    [after] = measuring.measure(ids(namespace, "small"), policy)
    assert after.state_token != before.state_token
    assert after.metrics["data_files"] == before.metrics["data_files"] + 1
    assert after.metrics["excess_files"] == before.metrics["excess_files"] + 1


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that are sent."""
    statements: list[str] = []
    original = TrinoClient.query

    def query(self: TrinoClient, sql: str, **given: Any) -> Answer:
        statements.append(sql)
        return original(self, sql, **given)

    monkeypatch.setattr(TrinoClient, "query", query)
    return statements


def test_of_what_did_not_change_only_the_plan_is_asked_for(trino: TrinoServer, namespace: str, sent: list[str]) -> None:
    tables = ids(namespace, "small", "parted", "empty", 't"x y')
    measuring = backend(trino)
    before = measuring.measure(tables, policy)
    sent.clear()
    after = measuring.measure(tables, policy)
    assert [statement[:7] for statement in sent] == ["EXPLAIN"]
    assert [without_clock(one) for one in after] == [without_clock(one) for one in before]
    assert [one.state_token for one in after] == [one.state_token for one in before]


def test_a_table_is_looked_up_once_for_what_is_read_of_it(
    trino: TrinoServer, catalog: SqlCatalog, namespace: str, sent: list[str]
) -> None:
    rows = pa.table({"a": pa.array(range(3), pa.int64())})
    table = catalog.create_table(f"{namespace}.looked_up", rows.schema)
    measuring = backend(trino)
    for told in (1, 2):  # not known yet, then found to have changed
        table.append(rows)
        sent.clear()
        [health] = measuring.measure(ids(namespace, "looked_up"), policy)
        assert health.metrics["snapshots"] == told
        reading = [one for one in sent if namespace in one and not one.startswith("EXPLAIN")]
        assert [[one.count(name) for name in ("$snapshots", "$refs", "$properties")] for one in reading] == [[1, 1, 1]]


def test_an_expiry_is_seen_though_the_current_snapshot_stays(
    trino: TrinoServer, catalog: SqlCatalog, namespace: str
) -> None:
    rows = pa.table({"a": pa.array(range(3), pa.int64())})
    table = catalog.create_table(f"{namespace}.expiring", rows.schema)
    for _ in range(3):
        table.append(rows)

    def at_once(_table: TableId, operation: str) -> BaseModel:
        # a day is the least that may be asked for, and nothing here is as old
        now = RetentionPolicy(retain_last=1).model_copy(update={"retention_days": 0})
        return now if operation == "retention" else CompactionPolicy()

    measuring = backend(trino)
    [before] = measuring.measure(ids(namespace, "expiring"), at_once)
    assert before.metrics["expirable_snapshots"] == 2
    table.maintenance.expire_snapshots().by_id(table.metadata.snapshots[0].snapshot_id).commit()
    [after] = measuring.measure(ids(namespace, "expiring"), at_once)
    assert after.state_token == before.state_token
    assert (after.metrics["snapshots"], after.metrics["expirable_snapshots"]) == (2, 1)


def test_a_table_that_is_gone_or_made_anew_is_seen(trino: TrinoServer, catalog: SqlCatalog, namespace: str) -> None:
    rows = pa.table({"a": pa.array(range(3), pa.int64())})
    catalog.create_table(f"{namespace}.fleeting", rows.schema).append(rows)
    measuring = backend(trino)
    tables = ids(namespace, "small", "fleeting")
    measuring.measure(tables, policy)
    catalog.drop_table(f"{namespace}.fleeting")
    small, gone = measuring.measure(tables, policy)
    assert small.problem is None
    assert gone.problem is not None
    assert gone.problem.type == "table-not-found"
    catalog.create_table(f"{namespace}.fleeting", rows.schema).append(rows)
    [_, anew] = measuring.measure(tables, policy)
    assert anew.problem is None
    assert anew.metrics["snapshots"] == 1


def test_doctor_tells_what_this_server_does_and_does_not(trino: TrinoServer, namespace: str) -> None:
    made = backend(trino)
    found = {one.check: one for one in made.checkup(made.discover([f"{namespace}.small"]))}
    assert found["reachable"].detail.startswith(trino.url)
    assert found["rights"].status == "ok"
    assert "7 days" in found["floors"].detail
    capabilities = made.trino.capabilities
    [table] = ids(namespace, "small")
    assert made.trino.table(table).knows("optimize")
    assert not made.trino.table(table).knows("make_coffee")
    assert capabilities.knows(made.trino.client, "nonsense", "optimize")  # remembered
    assert capabilities.newest_format >= 2


def test_without_its_catalog_trino_alone_lists_measures_and_plans(trino: TrinoServer, namespace: str) -> None:
    away = {**trino.properties, "uri": "postgresql+psycopg://postgres@127.0.0.1:9/postgres"}
    alone = backend(trino, catalog=away)
    assert [one.table.name for one in alone.names([f"{namespace}.s*"])] == ["small"]
    [health] = alone.measure(ids(namespace, "small"), policy)
    assert health.problem is None
    assert "metadata_bytes" not in health.metrics
    assert alone.trino.table(ids(namespace, "small")[0]).embedded is None
    with opened(backend(trino, catalog=trino.properties)) as both:
        assert both.trino.table(ids(namespace, "small")[0]).embedded is not None
