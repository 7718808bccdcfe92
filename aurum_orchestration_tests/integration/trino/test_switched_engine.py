"""An undo after the backend's engine was changed: what one engine did is not taken for the other's.

Before this was tried, an undo of a partition evolution moved main back, left the spec as it was, and was recorded as
completed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.transforms import IdentityTransform

from aurum_orchestration.errors import UndoRefusedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, MaintenanceResult, MaintenanceStatus
from aurum_orchestration_tests.integration.iceberg.support import local, spec_of
from aurum_orchestration_tests.integration.postgres.support import opened
from aurum_orchestration_tests.integration.trino.upkeep import Shared, shared
from aurum_orchestration_tests.servers.trino import TrinoServer

BY_DAY = {"spec": spec_of((2, IdentityTransform(), "day"))}


class Switched(Shared):
    """The backend's engine is that of each call."""

    def config(self, *, engine: str = "trino", **options: Any) -> dict[str, Any]:
        return {**super().config(**options), "engine": engine}

    async def undo(self, done: MaintenanceResult, **options: Any) -> MaintenanceResult:
        async with self.service(**options) as service:
            return await service.undo(done.operation_id, False)

    def partitioned_by(self) -> list[str]:
        return [str(field.transform) for field in self.table().spec().fields]


@pytest.fixture
def lake(trino: TrinoServer, tmp_path: Path) -> Iterator[Switched]:
    with shared(trino, tmp_path) as made:
        switched = Switched(made.server, made.catalog, made.namespace, made.home)
        files = [[{"id": n, "day": date(2026, 1, 1 + n % 2), "hub": "h", "price": 1.0}] for n in range(4)]
        switched.make("t", *files, **BY_DAY)
        yield switched


@pytest.mark.thorough
@pytest.mark.timeout(300)
async def test_a_partition_evolution_by_either_engine(lake: Switched) -> None:
    for engine, other in (("pyiceberg", "trino"), ("trino", "pyiceberg")):
        done = await lake.run("partition_evolution", options={"engine": engine}, spec=["bucket(2, id)"])
        assert done.status == "completed", done.problem
        assert lake.partitioned_by() == ["bucket[2]"]
        back = await lake.undo(done, engine=other)
        if other == "pyiceberg":  # which does not know the coordinator
            assert back.problem is not None
            assert back.problem.type == "undo-refused"
            assert "engine to trino" in str(back.problem.hint)
            assert lake.partitioned_by() == ["bucket[2]"]
            back = await lake.undo(done, engine="auto")
        assert back.status == "completed", back.problem
        assert lake.partitioned_by() == ["identity"]
        assert lake.ids() == list(range(4))


@pytest.mark.timeout(300)
async def test_without_the_catalog_what_the_embedded_engine_did_is_not_half_taken_back(lake: Switched) -> None:
    evolved = await lake.run("partition_evolution", options={"engine": "pyiceberg"}, spec=["bucket(2, id)"])
    head = lake.table().metadata.current_snapshot_id
    back = await lake.undo(evolved, embedded=False)
    assert back.problem is not None
    assert "`catalog`" in str(back.problem.hint)
    assert lake.table().metadata.current_snapshot_id == head


@pytest.mark.timeout(300)
async def test_what_a_vacuum_set_aside_comes_back(lake: Switched) -> None:
    orphan = local(f"{lake.table().location()}/data/lost.parquet")
    orphan.write_bytes(b"PAR1")
    os.utime(orphan, (time.time() - 30 * 86_400,) * 2)
    done = await lake.run("vacuum", options={"engine": "pyiceberg"}, older_than_days=7)
    assert done.status == "completed", done.problem
    assert not orphan.exists()
    back = await lake.undo(done, engine="trino")
    assert back.status == "completed", back.problem
    assert orphan.exists()


@pytest.mark.thorough
@pytest.mark.timeout(300)
async def test_statistics_that_trino_stored_are_not_looked_for_by_the_embedded_engine(lake: Switched) -> None:
    done = await lake.run("stats", ndv=True)
    assert done.status == "completed", done.problem
    back = await lake.undo(done, engine="pyiceberg")
    assert back.problem is not None
    assert back.problem.type == "undo-refused"


@pytest.mark.thorough
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("operation", "statement"),
    [("compaction", "optimize"), ("manifests", "optimize_manifests")],
)
def test_a_killed_run_that_was_trinos_is_not_told_to_have_committed_nothing(
    lake: Switched, operation: str, statement: str
) -> None:
    """It left no record, and Trino's snapshots do not carry its id: with ``engine: auto`` it may be either's."""
    table = TableId("lake", (lake.namespace, "t"))
    config = MaintenanceConfig(operation_type=operation, target_table=str(table), backend_type="lake", parameters={})
    killed = MaintenanceResult(config=config, backend="lake", status=MaintenanceStatus.RUNNING)
    with opened(IcebergMaintenanceBackend(lake.config(engine="auto"), name="lake")) as backend:
        assert not backend.plan_undo(table, killed).steps
        lake.sql(f"ALTER TABLE {{t}}.t EXECUTE {statement}")
        with pytest.raises(UndoRefusedError, match="left no record of what it committed"):
            backend.plan_undo(table, killed)
