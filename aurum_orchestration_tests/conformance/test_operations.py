"""Every operation on every kind of table, through the service: the promises that hold for all of them.

A dry run writes nothing anywhere. A run ends completed, or skipped with a reason; rows, refs and the rows
of kept snapshots are the same after it; what was rewritten was verified; it is recorded, with what undoes
it; running it again is harmless. Each metric that it returns is in the catalogue. A table whose lease another
holds is left alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import DataFileContent
from pyiceberg.table import Table

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.backend import HANDLERS
from aurum_orchestration.maintenance.interfaces import MaintenanceResult, MaintenanceStatus
from aurum_orchestration.maintenance.metrics import METRICS
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.settings import AurumSettings
from aurum_orchestration_tests.conformance.kinds import KINDS, Kind
from aurum_orchestration_tests.integration.iceberg.support import sql_catalog
from aurum_orchestration_tests.lake import FLEET

TABLE = "lake.ns.t"
PARAMETERS: dict[str, dict[str, Any]] = {
    "compaction": {"min_input_files": 2},
    "retention": {"retention_days": 0, "retain_last": 1, "override_floor": True, "override_reason": "a test"},
    "vacuum": {"older_than_days": 0, "override_floor": True, "override_reason": "a test"},
}
OPERATIONS = sorted(HANDLERS)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[SqlCatalog]:
    with sql_catalog(tmp_path) as made:
        yield made


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[MaintenanceService]:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(FLEET)
    settings = AurumSettings(home=tmp_path, fleet=fleet, history_url=f"sqlite:///{tmp_path}/history.db")
    async with MaintenanceService(settings) as made:
        yield made


async def ask(service: MaintenanceService, operation: str, *, dry_run: bool = False) -> MaintenanceResult:
    result = await service.execute_maintenance(
        backend_type="lake",
        operation_type=operation,
        target_table=TABLE,
        dry_run=dry_run,
        parameters=PARAMETERS.get(operation, {}),
    )
    assert result.metrics.keys() <= METRICS.keys(), "a metric that the catalogue does not explain"
    return result


def everything_in(home: Path) -> dict[str, bytes]:
    """Every file below the folder with its content."""
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def live_ids(table: Table) -> list[int]:
    """Ids of the live rows: DuckDB reads the files, deletes are applied by hand, PyIceberg's scan has no part in it."""
    snapshot = table.current_snapshot()
    if snapshot is None:
        return []
    data: list[tuple[str, int]] = []
    positions: list[str] = []
    equality: list[tuple[str, int]] = []
    for manifest in snapshot.manifests(table.io):
        for entry in manifest.fetch_manifest_entry(table.io):
            path = entry.data_file.file_path.removeprefix("file://")
            sequence = entry.sequence_number or 0
            if entry.data_file.content == DataFileContent.DATA:
                data.append((path, sequence))
            elif entry.data_file.content == DataFileContent.POSITION_DELETES:
                positions.append(path)
            else:
                equality.append((path, sequence))
    with closing(duckdb.connect()) as judge:
        gone = {
            (file.removeprefix("file://"), position)
            for path in positions
            for file, position in judge.execute("SELECT file_path, pos FROM read_parquet(?)", [path]).fetchall()
        }
        ids: list[int] = []
        for path, sequence in data:
            deleted = {
                row[0]
                for other, newer in equality
                if newer > sequence
                for row in judge.execute("SELECT id FROM read_parquet(?)", [other]).fetchall()
            }
            for identity, position in judge.execute(
                "SELECT id, file_row_number FROM read_parquet(?, file_row_number = true)", [path]
            ).fetchall():
                if identity not in deleted and (path, position) not in gone:
                    ids.append(identity)
    return sorted(ids)


def refs(table: Table) -> dict[str, int]:
    return {name: ref.snapshot_id for name, ref in table.metadata.refs.items() if name != "main"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_an_operation_keeps_its_promises_on_every_kind_of_table(
    catalog: SqlCatalog, service: MaintenanceService, tmp_path: Path, operation: str, kind: Kind
) -> None:
    made = kind.make(catalog, "ns.t")
    assert live_ids(made) == sorted(kind.live)
    refs_before = refs(made)

    before = everything_in(tmp_path)
    dry = await ask(service, operation, dry_run=True)
    assert dry.status in {MaintenanceStatus.PLANNED, MaintenanceStatus.SKIPPED}, dry.problem
    assert dry.reason
    assert everything_in(tmp_path) == before

    result = await ask(service, operation)
    assert result.status in {MaintenanceStatus.COMPLETED, MaintenanceStatus.SKIPPED}, result.problem
    assert (result.status == MaintenanceStatus.COMPLETED) == (dry.status == MaintenanceStatus.PLANNED)
    assert result.reason
    if result.verification is not None:
        assert result.verification.ok

    after = catalog.load_table("ns.t")
    assert live_ids(after) == sorted(kind.live)
    if kind.name != "equality deletes":  # which PyIceberg's scan refuses
        assert after.scan().to_arrow().num_rows == len(kind.live)
    kept = refs(after)
    assert {name: kept[name] for name in refs_before} == refs_before
    for name in refs_before:
        assert after.scan(snapshot_id=kept[name]).to_arrow().num_rows > 0

    recorded = service.history.operations()
    if result.status == MaintenanceStatus.COMPLETED:
        assert [one.operation_id for one in recorded] == [result.operation_id]
        assert recorded[0].undo
    again = await ask(service, operation)
    assert again.status in {MaintenanceStatus.COMPLETED, MaintenanceStatus.SKIPPED}, again.problem
    assert live_ids(catalog.load_table("ns.t")) == sorted(kind.live)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_table_whose_lease_another_holds_is_left_alone(
    catalog: SqlCatalog, service: MaintenanceService, operation: str
) -> None:
    KINDS[0].make(catalog, "ns.t")
    if (await ask(service, operation, dry_run=True)).status == MaintenanceStatus.SKIPPED:
        return  # without a plan nothing is asked of the lease
    service.history.acquire(
        TableId.parse(TABLE), holder="ann@night-shift:1", operation_id="x", ttl=timedelta(minutes=5)
    )
    before = catalog.load_table("ns.t").metadata_location
    result = await ask(service, operation)
    assert result.status == MaintenanceStatus.FAILED
    assert result.problem is not None
    assert result.problem.type == "lease-held"
    assert "ann@night-shift:1" in (result.problem.detail or "")
    assert catalog.load_table("ns.t").metadata_location == before
