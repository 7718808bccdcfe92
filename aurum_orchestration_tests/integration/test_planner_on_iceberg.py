"""The planner on real tables: what is measured is in the catalogue, what was compacted needs nothing more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from aurum_orchestration.maintenance.factory import MaintenanceFactory
from aurum_orchestration.maintenance.metrics import HEALTH_METRICS, METRICS
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.settings import AurumSettings


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[MaintenanceService]:
    uri, warehouse = f"sqlite:///{tmp_path}/catalog.db", f"file://{tmp_path}/warehouse"
    catalog = SqlCatalog("lake", uri=uri, warehouse=warehouse)
    catalog.create_namespace("ns")
    for name, appends in (("sick", 8), ("fine", 2)):
        rows = pa.table({"id": pa.array(range(10), pa.int64())})
        table = catalog.create_table(f"ns.{name}", schema=rows.schema)
        for _ in range(appends):
            table.append(rows)
    catalog.close()
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(
        "version: 1\n"
        f"backends: {{lake: {{type: iceberg, catalog: {{type: sql, uri: '{uri}', warehouse: '{warehouse}'}}}}}}\n"
        "policy: {compaction: {cooldown_minutes: 0, trigger_excess_files: 6}}\n"
    )
    async with MaintenanceService(AurumSettings(home=tmp_path / "home", fleet=fleet)) as made:
        await made.discover()
        yield made


async def test_what_is_measured_and_reported_is_in_the_catalogue(service: MaintenanceService) -> None:
    before = await service.status()
    seen = {name for status in before for name in status.metrics}
    assert {"data_files", "excess_files", "snapshots", "exact"} <= seen <= set(HEALTH_METRICS)  # others are databases'
    results = await service.maintain()
    results += [
        await service.execute_maintenance(None, operation, "lake.ns.fine")
        for operation in MaintenanceFactory.operations()
    ]
    results.append(await service.undo(next(one.operation_id for one in results if "manifests_added" in one.metrics)))
    assert {str(result.status) for result in results} <= {"completed", "skipped"}
    reported = {name for result in results for name in result.metrics}
    assert reported <= set(METRICS)


async def test_a_round_takes_the_sick_table_and_leaves_nothing_for_the_next(service: MaintenanceService) -> None:
    sick, fine = sorted(await service.status(), key=lambda status: -status.debt_score)
    assert (sick.table, sick.decision.code, sick.healthy) == ("lake.ns.sick", "recommended", False)
    assert sick.decision.reason == "8 of 8 files are smaller than 96 MiB; compaction would leave 1"
    assert (fine.decision.code, fine.healthy) == ("healthy", True)

    (result,) = await service.maintain()
    assert result.metrics["files_rewritten"] - result.metrics["files_added"] == sick.decision.predicted_gain.files
    assert result.metrics["bytes_rewritten"] <= sick.decision.predicted_cost.bytes
    freed = result.metrics["bytes_rewritten"] - result.metrics["bytes_added"]
    assert 0 < sick.decision.predicted_gain.bytes <= freed * 1.5

    assert await service.maintain() == []
    now = {status.table: status for status in await service.status()}["lake.ns.sick"]
    assert (now.debt_score, now.healthy) == (0, True)
