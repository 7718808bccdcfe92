"""Iceberg maintenance as plain synchronous functions, outside lease and history: for scripts and notebooks.

The service does the same with a lease, a record and retries; prefer it for anything scheduled.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aurum_orchestration.errors import UnknownNameError, VerificationError, nearest
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, RunContext

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
    from aurum_orchestration.maintenance.operations.base import BaseMaintenanceOperation


def rewrite_data_files(
    table: str, *, backend: IcebergMaintenanceBackend | None = None, dry_run: bool = False, **parameters: Any
) -> dict[str, Any]:
    """Compact a table: bin-pack its small files.

    ``table`` is ``backend.namespace.table``; ``backend`` defaults to that backend of the fleet file.
    ``parameters`` are those of the compaction operation, e.g. ``target_file_size_mb=256``.
    Returns ``rewritten_files``, ``added_files``, ``dry_run`` and the operation's other metrics; with
    ``dry_run`` what would be rewritten. Raises an AurumError when it fails; what was committed stays.
    """
    from aurum_orchestration.maintenance.operations.compaction import CompactionOperation

    done = _carry_out(CompactionOperation(), table, backend, parameters, dry_run=dry_run)
    metrics: dict[str, float] = {"rewritten_files": 0, "added_files": 0}
    if dry_run:
        metrics["rewritten_files"] = sum(len(step.detail["files"]) for step in done.plan.steps)
        metrics["added_files"] = sum(step.detail["files_out"] for step in done.plan.steps)
        return {**metrics, **done.told()}
    metrics["rewritten_files"] = done.metrics.pop("files_rewritten", 0)
    metrics["added_files"] = done.metrics.pop("files_added", 0)
    return {**metrics, **done.told()}


def expire_snapshots(
    table: str, *, backend: IcebergMaintenanceBackend | None = None, dry_run: bool = False, **parameters: Any
) -> dict[str, Any]:
    """Expire a table's old snapshots and delete the files that only they held.

    ``parameters`` are those of the retention operation, e.g. ``retention_days=30, retain_last=10``.
    Returns ``snapshots_expired``, ``refs_removed``, ``files_deleted``, ``bytes_deleted``, ``rows_deleted``,
    ``warnings`` and ``dry_run``; with ``dry_run`` what would go. Raises an AurumError when it fails.
    """
    from aurum_orchestration.maintenance.operations.retention import RetentionOperation

    done = _carry_out(RetentionOperation(), table, backend, parameters, dry_run=dry_run)
    metrics = {
        "snapshots_expired": done.planned("snapshots"),
        "refs_removed": done.planned("refs"),
        "files_deleted": done.planned("files"),
        "bytes_deleted": done.planned("bytes"),
        "rows_deleted": done.planned("rows"),
    }
    return {**(metrics if dry_run else dict.fromkeys(metrics, 0.0)), **done.told(), "warnings": done.warnings}


def remove_orphan_files(
    table: str, *, backend: IcebergMaintenanceBackend | None = None, dry_run: bool = False, **parameters: Any
) -> dict[str, Any]:
    """Set aside the files under a table's locations that nothing refers to, or delete them.

    ``parameters`` are those of the vacuum operation, e.g. ``older_than_days=14, quarantine=False``. Returns
    ``files_quarantined``, ``files_deleted``, their bytes, ``operation_id`` (for :func:`restore_quarantine`),
    ``warnings`` and ``dry_run``; with ``dry_run`` what would be done, and ``orphan_files``, their locations.
    """
    from aurum_orchestration.maintenance.operations.vacuum import VacuumOperation

    done = _carry_out(VacuumOperation(), table, backend, parameters, dry_run=dry_run)
    metrics = dict.fromkeys(("files_quarantined", "bytes_quarantined", "files_deleted", "bytes_deleted"), 0.0)
    told: dict[str, Any] = {"warnings": done.warnings, "operation_id": done.operation_id}
    if dry_run:
        told = {"warnings": done.warnings, "orphan_files": []}
        for step in done.plan.steps:
            kind = "quarantined" if step.action == "quarantine" else "deleted"
            metrics[f"files_{kind}"] += len(step.detail["files"])
            metrics[f"bytes_{kind}"] += step.detail["bytes"]
            if step.action != "purge":
                told["orphan_files"] += step.detail["files"]
    return {**metrics, **done.told(), **told}


def restore_quarantine(
    table: str, operation_id: str, *, backend: IcebergMaintenanceBackend | None = None
) -> dict[str, Any]:
    """Put the files that an operation set aside back where they were; none is overwritten.

    Returns ``files_restored``, ``bytes_restored``, and ``conflicts`` and ``failures``, the files that stay in
    quarantine. Raises RequestError when there is no quarantine of that operation (any more).
    """
    from aurum_orchestration.maintenance.backends.iceberg.compact.state import load_table
    from aurum_orchestration.maintenance.backends.iceberg.vacuum import quarantine

    engine = backend or _backend_of(table)
    restored = quarantine.restore_quarantine(load_table(engine.catalog, engine.table_id(table)), operation_id)
    return {
        "files_restored": restored.files,
        "bytes_restored": restored.bytes,
        "conflicts": restored.conflicts,
        "failures": restored.failures,
    }


def rewrite_manifests(
    table: str, *, backend: IcebergMaintenanceBackend | None = None, dry_run: bool = False, **parameters: Any
) -> dict[str, Any]:
    """Rewrite a table's manifests into few, clustered by partition; no data file changes.

    ``table`` and ``backend`` as for :func:`rewrite_data_files`; ``parameters`` are those of the manifests
    operation, e.g. ``target_manifest_size_mb=16``. Returns ``manifests_rewritten``, ``manifests_added``,
    ``dry_run`` and the operation's other metrics; with ``dry_run`` what would be rewritten.
    """
    from aurum_orchestration.maintenance.operations.manifests import ManifestsOperation

    done = _carry_out(ManifestsOperation(), table, backend, parameters, dry_run=dry_run)
    if dry_run:
        groups = [group for step in done.plan.steps for group in step.detail["groups"]]
        done.metrics["manifests_rewritten"] = sum(len(group["files"]) for group in groups)
        done.metrics["manifests_added"] = done.planned("files_out")
    return {"manifests_rewritten": 0.0, "manifests_added": 0.0, **done.told()}


def evolve_partitions(
    table: str, *, backend: IcebergMaintenanceBackend | None = None, dry_run: bool = False, **parameters: Any
) -> dict[str, Any]:
    """Set another partition spec and rewrite the files of older ones into it.

    ``parameters`` are those of the partition_evolution operation, e.g. ``spec=["day(ts)", "bucket(16, id)"]``.
    Returns ``specs_changed``, ``files_rewritten``, ``files_added``, ``dry_run`` and the operation's other metrics;
    with ``dry_run`` what would be done. Raises an AurumError when it fails; what was committed stays.
    """
    from aurum_orchestration.maintenance.operations.partition_evolution import PartitionEvolutionOperation

    done = _carry_out(PartitionEvolutionOperation(), table, backend, parameters, dry_run=dry_run)
    metrics = dict.fromkeys(("specs_changed", "files_rewritten", "files_added"), 0.0)
    if dry_run:
        metrics["specs_changed"] = float(sum(step.action == "evolve" for step in done.plan.steps))
        metrics["files_rewritten"], metrics["files_added"] = done.planned("files"), done.planned("files_out")
    return {**metrics, **done.told()}


@dataclass
class _Done:
    """A plan, and what came of it; nothing for a dry run."""

    plan: MaintenancePlan
    dry_run: bool
    metrics: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    operation_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def told(self) -> dict[str, Any]:
        return {**self.metrics, "dry_run": self.dry_run, "plan_id": self.plan.plan_id}

    def planned(self, key: str) -> float:
        """A number of the plan's steps, added up; of lists their length."""
        values = [step.detail.get(key, 0) for step in self.plan.steps]
        return float(sum(len(value) if isinstance(value, list) else value for value in values))


def _carry_out(
    operation: BaseMaintenanceOperation,
    table: str,
    backend: IcebergMaintenanceBackend | None,
    parameters: dict[str, Any],
    *,
    dry_run: bool,
) -> _Done:
    """Plan, and unless it is a dry run stage, verify and commit each step."""
    engine = backend or _backend_of(table)
    plan = engine.plan(engine.table_id(table), operation.name, operation.parameters(parameters))
    done = _Done(plan, dry_run, warnings=list(plan.warnings))
    if dry_run or not plan.steps:
        return done
    run = RunContext(operation_id=done.operation_id)
    for unit in engine.open(plan, run).units():
        try:
            unit.stage(run)
            verification = unit.verify(run)
            if verification is not None and not verification.ok:
                raise VerificationError(f"{table}: {verification}", table=table, operation=operation.name)
        except BaseException:
            unit.discard()
            raise
        outcome = unit.commit(run)
        done.warnings += outcome.warnings
        for name, value in outcome.metrics.items():
            done.metrics[name] = done.metrics.get(name, 0) + value
    return done


def _backend_of(table: str) -> IcebergMaintenanceBackend:
    from aurum_orchestration.fleet.load import load_fleet
    from aurum_orchestration.fleet.table_id import TableId
    from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
    from aurum_orchestration.settings import AurumSettings

    settings = AurumSettings.from_env()
    name = TableId.parse(table).backend
    backends = load_fleet(settings.fleet, settings).backends
    if name not in backends:
        raise UnknownNameError(f"the fleet has no backend {name!r}", hint=nearest(name, backends))
    return IcebergMaintenanceBackend(backends[name].connection, name=name)


FUNCTIONS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "rewrite_data_files": rewrite_data_files,
    "expire_snapshots": expire_snapshots,
    "remove_orphan_files": remove_orphan_files,
    "restore_quarantine": restore_quarantine,
    "rewrite_manifests": rewrite_manifests,
    "evolve_partitions": evolve_partitions,
}
"""The functions by the name that the backend's bridge takes."""
