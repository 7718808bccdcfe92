"""Bloat as the backend calls it: the plan is the report."""

from __future__ import annotations

from pyiceberg.table import Table

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.bloat.parts import (
    Part,
    deleted_rows,
    old_metadata,
    old_snapshots,
    orphans,
    small_files,
)
from aurum_orchestration.maintenance.backends.iceberg.entries import EntryReader
from aurum_orchestration.maintenance.backends.iceberg.live import live_entries
from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.plan import head_of
from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.sizes import excess_of, target_of
from aurum_orchestration.maintenance.backends.iceberg.reporting import ReportExecution, report_plan
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType
from aurum_orchestration.maintenance.operations.bloat import BloatParameters
from aurum_orchestration.maintenance.planner.words import size


def plan(table: Table, table_id: TableId, parameters: BloatParameters) -> MaintenancePlan:
    """The report. Raises CorruptTableError when a file that a snapshot needs is missing."""
    live = live_entries(table, EntryReader(table.io))
    parts: list[Part] = [small_files(live, parameters), deleted_rows(live), old_snapshots(table)]
    missing: list[str] = []
    if parameters.orphans:
        try:
            found = orphans(table, parameters.orphans_older_than_days)
        except UnsupportedError as error:
            missing.append(f"orphan files cannot be told: {error.detail}")
        else:
            parts += [found] if found else []
            missing += (
                [] if found else ["orphan files were not looked for off the local disk: a dry run of vacuum does"]
            )
    versions = old_metadata(table)
    parts += [versions] if versions else []
    freed = sum(part.bytes for part in parts)
    live_bytes = sum(file.file_size_in_bytes for file in (*live.data, *live.deletes)) + live.manifest_bytes
    metrics = {
        "reclaimable_bytes": freed,
        "reclaimable_files": sum(part.files for part in parts),
        "live_bytes": live_bytes,
        "excess_manifests": _excess_manifests(table),
    }
    largest = max(parts, key=lambda part: part.bytes)
    reason = f"{size(freed)} can be won back beside {size(live_bytes)} in use"
    if freed:
        reason += f"; most of it from {largest.part} ({size(largest.bytes)}), by {largest.won_back_by}"
    detail = {"metrics": metrics, "parts": [part.plain() for part in parts], "missing": missing}
    named = (str(table_id), table_id.backend, OperationType.BLOAT.value)
    return report_plan(table, named, parameters.model_dump(), reason, detail)


def execution(plan: MaintenancePlan, table: Table) -> ReportExecution:  # noqa: ARG001 - the handlers' protocol
    """The report as it is in the plan."""
    return ReportExecution(plan)


def _excess_manifests(table: Table) -> int:
    kinds: dict[tuple[int, int], list[int]] = {}
    for manifest in head_of(table)[1]:
        kinds.setdefault((int(manifest.content), manifest.partition_spec_id), []).append(manifest.manifest_length)
    target = target_of(table.metadata.properties)
    return sum(excess_of(sizes, target) for sizes in kinds.values())
