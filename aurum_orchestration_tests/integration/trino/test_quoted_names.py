"""A schema, a table and columns whose names say nothing without their quotes, through every operation."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import DateType, DoubleType, LongType, StringType

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.backends.iceberg.trino.sql import relation
from aurum_orchestration.maintenance.interfaces import MaintenanceResult
from aurum_orchestration.maintenance.operations.compaction import CompactionPolicy
from aurum_orchestration_tests.integration.iceberg.support import fields, local, make_table, spec_of, typed
from aurum_orchestration_tests.integration.trino.upkeep import BELOW, Shared
from aurum_orchestration_tests.servers.trino import TrinoServer

NAME = "we\"ird na.me's -- %"
ID, DAY, KIND, PRICE = 'or"der', "it's a day", "select from", "per cent %"
COLUMNS = fields(**{ID: LongType(), DAY: DateType(), KIND: StringType(), PRICE: DoubleType()})
OLD, YOUNG = date(2020, 1, 1), date(2999, 1, 1)
Rows = list[tuple[Any, ...]]


class Named(Shared):
    """The table of these names."""

    @property
    def id(self) -> TableId:
        return TableId("lake", (self.namespace, NAME))

    @property
    def quoted(self) -> str:
        return relation(self.server.catalog_without_floors, self.id)

    def rows(self) -> Rows:
        """The rows by PyIceberg."""
        found = self.table(NAME).scan().to_arrow().to_pylist()
        return sorted(tuple(row[name] for name in (ID, DAY, KIND, PRICE)) for row in found)

    async def do(self, operation: str, *, embedded: bool, **given: Any) -> MaintenanceResult:
        async with self.service(embedded=embedded) as service:
            return await service.execute_maintenance("lake", operation, str(self.id), False, given)

    async def undo(self, done: MaintenanceResult, *, embedded: bool) -> MaintenanceResult:
        async with self.service(embedded=embedded) as service:
            return await service.undo(done.operation_id, False)


@pytest.fixture
def named(trino: TrinoServer, tmp_path: Path) -> Iterator[Named]:
    namespace = f"sche\"ma's {uuid.uuid4().hex[:8]} %"
    with trino.lake() as catalog:
        catalog.create_namespace((namespace,))
        try:
            lake = Named(trino, catalog, namespace, tmp_path)
            made: Table = make_table(
                catalog,
                COLUMNS,
                spec=spec_of((3, IdentityTransform(), KIND)),
                name=(namespace, NAME),  # type: ignore[arg-type]
                location=f"{trino.warehouse}/quoted_{uuid.uuid4().hex[:8]}",
            )
            for number in range(6):
                day = OLD if number < 2 else YOUNG
                made.append(typed(made, [{ID: number, DAY: day, KIND: "it's", PRICE: number / 2}]))
            lake.aged(NAME, 30)
            lake.server.sql(f"INSERT INTO {lake.quoted} VALUES (100, DATE '2999-01-01', 'it''s', 1e0)")
            yield lake
        finally:
            for table in catalog.list_tables((namespace,)):
                catalog.drop_table(table)
            catalog.drop_namespace((namespace,))


def plant(lake: Named) -> Path:
    """An old orphan."""
    orphan = local(f"{lake.table(NAME).location()}/data/lost one.parquet")
    orphan.write_bytes(b"PAR1")
    moment = time.time() - 30 * 86_400
    os.utime(orphan, (moment, moment))
    return orphan


@pytest.mark.timeout(300)
async def test_a_compaction(named: Named) -> None:
    before = named.rows()
    done = await named.do("compaction", embedded=False, min_input_files=2)
    assert done.status == "completed", done.problem
    assert done.metrics["files_rewritten"] == 7
    assert named.rows() == before


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize("embedded", [True, False])
async def test_every_operation(embedded: bool, named: Named) -> None:
    before, orphan = named.rows(), plant(named)
    steps: list[tuple[str, Mapping[str, Any]]] = [
        ("bloat", {}),
        ("stats", {"ndv": True, "columns": [ID, KIND]}),
        ("compaction", {"min_input_files": 2}),
        ("manifests", {"everything": True}),
        ("partition_evolution", {"spec": [f'bucket(2, "{KIND}")', f'"{DAY}"']}),
        ("retention", {"retention_days": 7, "retain_last": 1}),
        ("vacuum", {"older_than_days": 7}),
        *([("backup", {})] if embedded else []),
    ]
    undone = []
    for operation, given in steps:
        done = await named.do(operation, embedded=embedded, **given)
        assert done.status == "completed", (operation, done.reason, done.problem)
        assert named.rows() == before, operation
        if operation in {"compaction", "partition_evolution"}:
            back = await named.undo(done, embedded=embedded)
            assert back.status == "completed", (operation, back.reason, back.problem)
            assert named.rows() == before, operation
            again = await named.do(operation, embedded=embedded, **given)
            assert again.status == "completed", (operation, again.reason, again.problem)
            undone.append(operation)
    assert undone == ["compaction", "partition_evolution"]
    assert not orphan.exists()
    done = await named.do(
        "retention",
        embedded=embedded,
        retention_days=0,
        retain_last=1,
        time_column=DAY,
        row_days=30,
        rewrite_files=True,
        **BELOW,
    )
    assert (done.status, done.metrics["rows_deleted"]) == ("completed", 2), (done.reason, done.problem)
    assert named.rows() == [row for row in before if row[1] != OLD]
    async with IcebergMaintenanceBackend(named.config(embedded=embedded), name="lake") as backend:
        assert named.id in [one.table for one in backend.discover(["*"])]
        [health] = backend.measure([named.id], lambda _table, _operation: CompactionPolicy())
    assert (health.problem, health.metrics["data_files"] > 0) == (None, True)
