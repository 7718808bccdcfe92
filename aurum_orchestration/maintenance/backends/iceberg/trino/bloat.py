"""What a table takes on storage beyond what it needs, from Trino's metadata tables: the embedded engine's report.

Live files are read from ``$files``. What only old snapshots hold, orphans and old metadata files are told exactly
where the catalog is reachable; without it the first is estimated from the snapshots' summaries, the others are said
to be missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.bloat.parts import MIB, Part, old_metadata, old_snapshots, orphans
from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.sizes import excess_of, target_of
from aurum_orchestration.maintenance.backends.iceberg.reporting import ReportExecution
from aurum_orchestration.maintenance.backends.iceberg.retention.expiry import Expiry
from aurum_orchestration.maintenance.backends.iceberg.trino.files import estimated_files, partition_of_file
from aurum_orchestration.maintenance.backends.iceberg.trino.history import TableHistory, fingerprint, read_history
from aurum_orchestration.maintenance.backends.iceberg.trino.manifests import delete_manifests
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType, PlanExecution, PlanStep
from aurum_orchestration.maintenance.operations.bloat import BloatParameters
from aurum_orchestration.maintenance.planner.binpack import pack
from aurum_orchestration.maintenance.planner.triggers import OVERHEAD_BYTES
from aurum_orchestration.maintenance.planner.words import size

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable

_DATA, _POSITION_DELETES = 0, 1


def plan(table: TrinoTable, table_id: TableId, parameters: BloatParameters) -> MaintenancePlan:
    """The report."""
    history = read_history(table, clock=False)
    files = table.query(
        f"SELECT content, {partition_of_file(table)}, file_size_in_bytes, record_count FROM {table.relation('$files')}"
    ).rows
    parts = [_small_files(files, parameters), _deleted_rows(files)]
    missing: list[str] = []
    embedded = table.embedded
    if embedded is None:
        parts.append(_old_snapshots(history))
        missing.append("orphan and old metadata files cannot be told: the backend names no catalog")
    else:
        parts.append(old_snapshots(embedded))
        if parameters.orphans:
            try:
                found = orphans(embedded, parameters.orphans_older_than_days)
            except UnsupportedError as error:
                missing.append(f"orphan files cannot be told: {error.detail}")
            else:
                parts += [found] if found else []
                missing += (
                    [] if found else ["orphan files were not looked for off the local disk: a dry run of vacuum does"]
                )
        versions = old_metadata(embedded)
        parts += [versions] if versions else []
    freed = sum(part.bytes for part in parts)
    manifests = table.query(f"SELECT path, partition_spec_id, length FROM {table.relation('$manifests')}").rows
    deletes = delete_manifests(table, [str(path) for path, *_ in manifests], history)
    live_bytes = sum(int(stored) for _, _, stored, _ in files) + sum(int(length) for *_, length in manifests)
    metrics = {
        "reclaimable_bytes": freed,
        "reclaimable_files": sum(part.files for part in parts),
        "live_bytes": live_bytes,
        "excess_manifests": _excess(
            [((path in deletes, spec), int(length)) for path, spec, length in manifests], history
        ),
    }
    largest = max(parts, key=lambda part: part.bytes)
    reason = f"{size(freed)} can be won back beside {size(live_bytes)} in use"
    if freed:
        reason += f"; most of it from {largest.part} ({size(largest.bytes)}), by {largest.won_back_by}"
    detail = {"metrics": metrics, "parts": [part.plain() for part in parts], "missing": missing}
    return MaintenancePlan(
        table=str(table_id),
        backend=table_id.backend,
        operation=OperationType.BLOAT,
        parameters=parameters.model_dump(),
        reason=reason,
        fingerprint=fingerprint(table, history),
        steps=[
            PlanStep(number=1, action="report", summary=f"{reason}.", risk="None: nothing is written.", detail=detail)
        ],
    )


def execution(plan: MaintenancePlan, table: TrinoTable) -> PlanExecution:  # noqa: ARG001 - the handlers' protocol
    """The report as it is in the plan."""
    return ReportExecution(plan)


def _small_files(files: list[tuple[int, str, int, int]], parameters: BloatParameters) -> Part:
    """Files fewer after a compaction, at what a data file takes without a row."""
    partitions: dict[str, list[int]] = {}
    for content, partition, stored, _ in files:
        if content == _DATA:
            partitions.setdefault(partition, []).append(stored)
    target = parameters.target_file_size_mb * MIB
    excess = sum(
        bin_.excess
        for sizes in partitions.values()
        for bin_ in pack(sizes, target, parameters.min_input_files, 16 * target)
    )
    data = sum(stored for content, _, stored, _ in files if content == _DATA)
    return Part("small files", excess, min(excess * OVERHEAD_BYTES, data // 2), False, "compaction, then retention")


def _deleted_rows(files: list[tuple[int, str, int, int]]) -> Part:
    """Delete files, and the share of the data that position deletes hide; what equality deletes hide is not known."""
    rows = sum(count for content, _, _, count in files if content == _DATA)
    data = sum(stored for content, _, stored, _ in files if content == _DATA)
    hidden = sum(count for content, _, _, count in files if content == _POSITION_DELETES)
    deletes = [stored for content, _, stored, _ in files if content != _DATA]
    freed = int(data * min(1.0, hidden / rows)) if rows else 0
    return Part("deleted rows", len(deletes), freed + sum(deletes), not deletes, "compaction, then retention")


def _old_snapshots(history: TableHistory) -> Part:
    heads = {ref.snapshot_id for ref in history.refs.values()}
    old = tuple(one.snapshot_id for one in history.snapshots if one.snapshot_id not in heads)
    found = estimated_files(history, Expiry(old, ()))
    return Part("old snapshots", found.count, found.bytes, False, "retention")


def _excess(manifests: list[tuple[tuple[bool, int], int]], history: TableHistory) -> int:
    """Manifests fewer after a rewrite; of deletes or of data, and of which spec, comes first."""
    kinds: dict[tuple[bool, int], list[int]] = {}
    for kind, length in manifests:
        kinds.setdefault(kind, []).append(length)
    target = target_of(history.properties)
    return sum(excess_of(sizes, target) for sizes in kinds.values())
