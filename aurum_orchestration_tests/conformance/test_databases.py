"""Every operation of the database backends on every kind of table: what it promises of any table.

A dry run writes nothing anywhere. A run ends completed, or skipped with a reason, or refused with the reason; rows are
the same after it (but for what a rule group lets go); it is recorded; running it again is harmless; every metric is in
the catalogue.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from aurum_orchestration.maintenance.backends.postgres.backend import HANDLERS as POSTGRES
from aurum_orchestration.maintenance.backends.sqlite.backend import HANDLERS as SQLITE
from aurum_orchestration.maintenance.backends.timescale.backend import HANDLERS as HYPERTABLES
from aurum_orchestration.maintenance.interfaces import MaintenanceResult, MaintenanceStatus
from aurum_orchestration.maintenance.metrics import METRICS
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.settings import AurumSettings
from aurum_orchestration_tests.conformance.databases import DATABASES, YOUNG, Database
from aurum_orchestration_tests.servers.postgres_matrix import RELEASES

VERSIONS = {f"postgres{major}": POSTGRES for major in RELEASES}
OPERATIONS = {"postgres": POSTGRES, "timescale": {**POSTGRES, **HYPERTABLES}, "sqlite": SQLITE, **VERSIONS}
PARAMETERS: dict[str, dict[str, Any]] = {"reindex": {"scope": "table"}, "views": {"allow_plain": True}}
QUICK = {
    "postgres": {"vacuum", "reindex", "logs", "views"},
    "sqlite": {"vacuum", "reindex", "logs"},
    "postgres14": {"vacuum"},
}
"""What every developer's run has; the others are thorough."""
RULES = {"cleanup", "logs", "sessions"}
DONE, SKIPPED, PLANNED = MaintenanceStatus.COMPLETED, MaintenanceStatus.SKIPPED, MaintenanceStatus.PLANNED
WORKS = {"vacuum", "reindex", "stats", "bloat", "cleanup", "logs", "sessions", "views", "backup"}
"""Those that find something to do in each of the databases that has them."""


def combinations() -> Iterator[Any]:
    """Database and operation."""
    for place, operations in OPERATIONS.items():
        for operation in sorted(operations):
            marks = [] if operation in QUICK.get(place, ()) else [pytest.mark.thorough]
            yield pytest.param(place, operation, id=f"{place}-{operation}", marks=marks)


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    with DATABASES[request.param](request) as made:
        yield made


@pytest.fixture
async def service(database: Database, tmp_path: Path) -> AsyncIterator[MaintenanceService]:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(database.fleet)
    home = tmp_path / "home"
    settings = AurumSettings(home=home, fleet=fleet, history_url=f"sqlite:///{home}/history.db")
    async with MaintenanceService(settings) as made:
        yield made


async def ask(service: MaintenanceService, operation: str, target: str, *, dry_run: bool = False) -> MaintenanceResult:
    result = await service.execute_maintenance(
        backend_type="db",
        operation_type=operation,
        target_table=target,
        dry_run=dry_run,
        parameters=PARAMETERS.get(operation, {}),
    )
    assert result.metrics.keys() <= METRICS.keys(), "a metric that the catalogue does not explain"
    assert result.status in {DONE, SKIPPED, PLANNED}, (target, result.problem)
    assert result.reason, target
    return result


@pytest.mark.parametrize(("database", "operation"), list(combinations()), indirect=["database"])
async def test_an_operation_keeps_its_promises_on_every_kind_of_table(
    database: Database, service: MaintenanceService, operation: str, tmp_path: Path
) -> None:
    rows, state = database.rows(), database.state()
    dry = {target: await ask(service, operation, target, dry_run=True) for target in database.targets}
    assert database.state() == state
    assert database.rows() == rows
    assert not (tmp_path / "home").exists()
    assert not (tmp_path / "backups").exists()

    done = {target: await ask(service, operation, target) for target in database.targets}
    for target, result in done.items():
        if operation in RULES and SKIPPED in {result.status, dry[target].status}:
            continue  # what is past its time on one target is gone when the database is asked
        assert (result.status == DONE) == (dry[target].status == PLANNED), (target, dry[target].reason, result.reason)
        assert result.verification is None or result.verification.ok
    worked = [result.operation_id for result in done.values() if result.status == DONE]
    assert bool(worked) >= (operation in WORKS), {target: result.reason for target, result in done.items()}
    assert database.rows() == rows
    assert database.young() == YOUNG
    assert {one.operation_id for one in service.history.operations(limit=1000)} >= set(worked)

    for target in (target for target, result in done.items() if result.status == DONE):
        await ask(service, operation, target)
    assert database.rows() == rows
    assert database.young() == YOUNG
