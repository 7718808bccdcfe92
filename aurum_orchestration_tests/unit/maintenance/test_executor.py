"""The flow of one operation, on a real engine of files."""

from __future__ import annotations

from aurum_orchestration.history import History
from aurum_orchestration.maintenance.executor import MaintenanceExecutor
from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, MaintenanceStatus
from aurum_orchestration.maintenance.operations.compaction import CompactionOperation
from aurum_orchestration_tests.unit.maintenance.conftest import MakeTable
from aurum_orchestration_tests.unit.maintenance.files import FilesBackend

COMPACT = MaintenanceConfig(operation_type="compaction", target_table="disk.ns.events")


async def test_a_run_merges_files_keeps_every_row_and_is_recorded(
    executor: MaintenanceExecutor, backend: FilesBackend, make_table: MakeTable, history: History
) -> None:
    table = make_table(10)
    rows = table.rows()

    result = await executor.execute(backend, CompactionOperation(), COMPACT)

    assert result.status is MaintenanceStatus.COMPLETED, result.problem
    assert result.metrics["files_rewritten"] == 10
    assert result.metrics["files_added"] == 3
    assert result.verification is not None
    assert (result.verification.rows_before, result.verification.ok) == (20, True)
    assert len(table.files) == 3
    assert table.rows() == rows
    recorded = history.operations()
    assert [one.operation_id for one in recorded] == [result.operation_id]
    assert recorded[0].status is MaintenanceStatus.COMPLETED
    assert history.holder(result_table(result.config.target_table)) is None


def result_table(text: str):  # type: ignore[no-untyped-def]
    from aurum_orchestration.fleet.table_id import TableId

    return TableId.parse(text)
