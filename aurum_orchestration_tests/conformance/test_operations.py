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
ALL_KINDS = tuple(kind.name for kind in KINDS)
FEW_KINDS = ("partitioned", "position deletes")
KINDS_IN = {
    "local": ALL_KINDS,
    "postgres": ALL_KINDS,
    "rest": ALL_KINDS,
    "s3": ("partitioned", "position deletes", "equality deletes", "refs"),
    "rest-s3": ("position deletes", "old spec", "nested"),
    "trino": ALL_KINDS,
}
"""Which kinds are taken where: what a kind of table asks of the storage is asked by few of them."""


def is_quick(place: str, kind: str, operation: str) -> bool:
    """Whether every developer's run has this combination; the others are thorough."""
    if place == "trino":
        return kind == "position deletes" and operation in {"compaction", "retention"}
    if place in {"s3", "rest-s3"}:
        return kind == "position deletes" and operation in {"compaction", "vacuum"}
    return place == "local" or kind in FEW_KINDS


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this suite's own: locations are absolute, and what is put back has to be where it was."""
    return tmp_path_factory.mktemp("conformance")


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
    """Warehouse, kind and operation; most of them away from the local warehouse are thorough."""
    for place, names in KINDS_IN.items():
        for kind in (kind for kind in KINDS if kind.name in names):
            for operation in OPERATIONS:
                marks = [] if is_quick(place, kind.name, operation) else [pytest.mark.thorough]
                yield pytest.param(place, kind, operation, id=f"{place}-{kind.name}-{operation}", marks=marks)


@pytest.mark.parametrize(("warehouse", "kind", "operation"), list(combinations()), indirect=["warehouse"])
async def test_an_operation_keeps_its_promises_on_every_kind_of_table(
    warehouse: Warehouse, service: MaintenanceService, operation: str, kind: Kind
) -> None:
    await keeps_its_promises(warehouse, service, operation, kind)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_table_whose_lease_another_holds_is_left_alone(
    warehouse: Warehouse, service: MaintenanceService, operation: str
) -> None:
    warehouse.table(KINDS[0])
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
