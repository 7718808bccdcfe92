"""``engine: auto`` on real tables: which engine plans, and that its plan finds the way back to it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.backends.iceberg.trino.engine import HANDLERS
from aurum_orchestration.maintenance.factory import MaintenanceFactory
from aurum_orchestration.maintenance.interfaces import MaintenancePlan
from aurum_orchestration.maintenance.operations.compaction import CompactionParameters, CompactionPolicy
from aurum_orchestration_tests.integration.postgres.support import opened
from aurum_orchestration_tests.servers.trino import TrinoServer

ROWS = pa.table({"a": pa.array(range(3), pa.int64()), "p": ["x", "y", "x"]})


@pytest.fixture(scope="module")
def namespace(trino: TrinoServer) -> str:
    name = f"auto_{uuid.uuid4().hex[:8]}"
    with trino.lake() as catalog:
        catalog.create_namespace(name)
        made = catalog.create_table(f"{name}.parquet", ROWS.schema)
        for _ in range(6):
            made.append(ROWS)
    trino.sql(f"CREATE TABLE lake.{name}.orc (a bigint) WITH (format = 'ORC')")
    for number in range(6):
        trino.sql(f"INSERT INTO lake.{name}.orc VALUES {number}")
    return name


@contextmanager
def backend_of(server: TrinoServer, **keys: Any) -> Iterator[IcebergMaintenanceBackend]:
    config = {"engine": "auto", "host": server.host, "port": server.port, "catalog": server.properties, **keys}
    with opened(IcebergMaintenanceBackend(config, name="lake")) as backend:
        yield backend


def plan(server: TrinoServer, namespace: str, name: str, **keys: Any) -> MaintenancePlan:
    with backend_of(server, **keys) as backend:
        return backend.plan(TableId("lake", (namespace, name)), "compaction", CompactionParameters())


def test_small_work_is_planned_by_the_embedded_engine(trino: TrinoServer, namespace: str) -> None:
    made = plan(trino, namespace, "parquet")
    assert made.fingerprint.get("engine") != "trino"
    assert "on the embedded engine, because 0.0 GiB to rewrite are at most 200 GiB" in made.reason


def test_large_work_is_planned_through_trino(trino: TrinoServer, namespace: str) -> None:
    made = plan(trino, namespace, "parquet", trino_above_gib=0)
    assert made.fingerprint["engine"] == "trino"
    assert "through Trino, because" in made.reason
    assert made.steps


def test_what_only_trino_can_is_planned_through_it(trino: TrinoServer, namespace: str) -> None:
    made = plan(trino, namespace, "orc")
    assert made.fingerprint["engine"] == "trino"
    assert "because the embedded engine cannot:" in made.reason
    assert "ORC" in made.reason


def test_without_trino_the_embedded_engine_does_what_it_can(trino: TrinoServer, namespace: str) -> None:
    away = {"port": 9, "http_attempts": 1, "statement_attempts": 1}
    made = plan(trino, namespace, "parquet", trino_above_gib=0, **away)
    assert made.fingerprint.get("engine") != "trino"
    assert "because Trino cannot:" in made.reason
    with pytest.raises(Exception, match=r"127\.0\.0\.1:9") as caught:
        plan(trino, namespace, "orc", **away)
    assert not isinstance(caught.value, UnsupportedError)


def test_a_name_that_trino_would_fold_goes_to_the_embedded_engine(trino: TrinoServer, namespace: str) -> None:
    """There is another table of that name in lower case, which Trino would take instead."""
    with trino.lake() as catalog:
        made = catalog.create_table(f"{namespace}.Parquet", ROWS.schema)
        for _ in range(6):
            made.append(ROWS)
    table = TableId("lake", (namespace, "Parquet"))
    for keys in ({}, {"catalog": None}):
        with backend_of(trino, engine="trino", trino_catalog="lake", **keys) as through:
            for operation in HANDLERS:
                parameters = MaintenanceFactory().create_operation(operation).parameters({})
                with pytest.raises(UnsupportedError, match="Parquet cannot be reached through it: the embedded engine"):
                    through.plan(table, operation, parameters)
    with backend_of(trino, engine="trino") as backend:
        [measured] = backend.measure([table], lambda _table, _operation: CompactionPolicy())
    assert measured.metrics["data_files"] == 6
    assert "embedded engine" in measured.refusals["compaction"]
    with backend_of(trino) as backend:
        [measured] = backend.measure([table], lambda _table, _operation: CompactionPolicy())
    assert measured.refusals == {}
    for above in (0, 200):
        planned = plan(trino, namespace, "Parquet", trino_above_gib=above)
        assert planned.fingerprint.get("engine") != "trino"
        assert planned.steps
    assert (
        "on the embedded engine, because Trino cannot: Trino folds names"
        in plan(trino, namespace, "Parquet", trino_above_gib=0).reason
    )
