"""What an operation promises of any table in any warehouse, and the judge of its rows.

A dry run writes nothing anywhere. A run ends completed, or skipped with a reason; rows, refs and the rows
of kept snapshots are the same after it; what was rewritten was verified; it is recorded, with what undoes
it; running it again is harmless. Each metric that it returns is in the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import duckdb
from pyiceberg.manifest import DataFileContent
from pyiceberg.table import Table

from aurum_orchestration.maintenance.interfaces import MaintenanceResult, MaintenanceStatus
from aurum_orchestration.maintenance.metrics import METRICS
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration_tests.conformance.kinds import Kind
from aurum_orchestration_tests.conformance.warehouses import Warehouse

TABLE = "lake.ns.t"
PARAMETERS: dict[str, dict[str, Any]] = {
    "compaction": {"min_input_files": 2},
    "partition_evolution": {"spec": ["bucket(2, id)"]},
    "retention": {"retention_days": 0, "retain_last": 1, "override_floor": True, "override_reason": "a test"},
    "stats": {"ndv": True},
    "vacuum": {"older_than_days": 0, "override_floor": True, "override_reason": "a test"},
}


async def keeps_its_promises(warehouse: Warehouse, service: MaintenanceService, operation: str, kind: Kind) -> None:
    """Make a table of the kind and hold the operation to what it promises."""
    made = warehouse.table(kind)
    assert live_ids(made, warehouse.fetch) == sorted(kind.live)
    refs_before = refs(made)

    before = warehouse.contents()
    dry = await ask(service, operation, dry_run=True)
    assert dry.status in {MaintenanceStatus.PLANNED, MaintenanceStatus.SKIPPED}, dry.problem
    assert dry.reason
    assert warehouse.contents() == before

    result = await ask(service, operation)
    assert result.status in {MaintenanceStatus.COMPLETED, MaintenanceStatus.SKIPPED}, result.problem
    assert (result.status == MaintenanceStatus.COMPLETED) == (dry.status == MaintenanceStatus.PLANNED)
    assert result.reason
    if result.verification is not None:
        assert result.verification.ok

    after = warehouse.catalog.load_table("ns.t")
    assert live_ids(after, warehouse.fetch) == sorted(kind.live)
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
    assert live_ids(warehouse.catalog.load_table("ns.t"), warehouse.fetch) == sorted(kind.live)


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


def live_ids(table: Table, fetch: Callable[[str], str]) -> list[int]:
    """Ids of the live rows: DuckDB reads the files, deletes are applied by hand, PyIceberg's scan has no part in it.

    ``fetch`` gives a local path for a file's location.
    """
    snapshot = table.current_snapshot()
    if snapshot is None:
        return []
    data: list[tuple[str, int]] = []
    positions: list[str] = []
    equality: list[tuple[str, int]] = []
    for manifest in snapshot.manifests(table.io):
        for entry in manifest.fetch_manifest_entry(table.io):
            path = entry.data_file.file_path
            sequence = entry.sequence_number or 0
            if entry.data_file.content == DataFileContent.DATA:
                data.append((path, sequence))
            elif entry.data_file.content == DataFileContent.POSITION_DELETES:
                positions.append(path)
            else:
                equality.append((path, sequence))
    with closing(duckdb.connect()) as judge:

        def read(columns: str, path: str) -> list[tuple[Any, ...]]:
            query = f"SELECT {columns} FROM read_parquet(?, file_row_number = true)"
            return judge.execute(query, [fetch(path)]).fetchall()

        gone = {row for path in positions for row in read("file_path, pos", path)}
        deleted = [(newer, {row[0] for row in read("id", path)}) for path, newer in equality]
        return sorted(
            identity
            for path, sequence in data
            for identity, position in read("id, file_row_number", path)
            if (path, position) not in gone and not any(newer > sequence and identity in ids for newer, ids in deleted)
        )


def refs(table: Table) -> dict[str, int]:
    return {name: ref.snapshot_id for name, ref in table.metadata.refs.items() if name != "main"}
