"""Every operation on every kind of table in every warehouse, through the service: see :mod:`promises`.

A table whose lease another holds is left alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.backend import HANDLERS
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.settings import AurumSettings
from aurum_orchestration_tests.conformance.kinds import KINDS, Kind
from aurum_orchestration_tests.conformance.promises import TABLE, ask, keeps_its_promises
from aurum_orchestration_tests.conformance.warehouses import WAREHOUSES, Warehouse

OPERATIONS = sorted(HANDLERS)
FEW_KINDS = ("partitioned", "position deletes")
"""The kinds that every developer's run takes into the other warehouses."""


@pytest.fixture
def warehouse(request: pytest.FixtureRequest) -> Iterator[Warehouse]:
    with WAREHOUSES[getattr(request, "param", "local")](request) as made:
        yield made


@pytest.fixture
async def service(warehouse: Warehouse, tmp_path: Path) -> AsyncIterator[MaintenanceService]:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(warehouse.fleet)
    settings = AurumSettings(home=tmp_path, fleet=fleet, history_url=f"sqlite:///{tmp_path}/history.db")
    async with MaintenanceService(settings) as made:
        yield made


def combinations() -> Iterator[Any]:
    """Each kind in each warehouse; away from the local one most of them are thorough."""
    for place in WAREHOUSES:
        for kind in KINDS:
            marks = [] if place == "local" or kind.name in FEW_KINDS else [pytest.mark.thorough]
            yield pytest.param(place, kind, id=f"{place}-{kind.name}", marks=marks)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("warehouse", "kind"), list(combinations()), indirect=["warehouse"])
async def test_an_operation_keeps_its_promises_on_every_kind_of_table(
    warehouse: Warehouse, service: MaintenanceService, operation: str, kind: Kind
) -> None:
    await keeps_its_promises(warehouse, service, operation, kind)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_table_whose_lease_another_holds_is_left_alone(
    warehouse: Warehouse, service: MaintenanceService, operation: str
) -> None:
    KINDS[0].make(warehouse.catalog, "ns.t")
    if (await ask(service, operation, dry_run=True)).status == MaintenanceStatus.SKIPPED:
        return  # without a plan nothing is asked of the lease
    service.history.acquire(
        TableId.parse(TABLE), holder="ann@night-shift:1", operation_id="x", ttl=timedelta(minutes=5)
    )
    before = warehouse.catalog.load_table("ns.t").metadata_location
    result = await ask(service, operation)
    assert result.status == MaintenanceStatus.FAILED
    assert result.problem is not None
    assert result.problem.type == "lease-held"
    assert "ann@night-shift:1" in (result.problem.detail or "")
    assert warehouse.catalog.load_table("ns.t").metadata_location == before
