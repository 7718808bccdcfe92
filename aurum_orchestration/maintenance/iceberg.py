"""Iceberg maintenance as plain synchronous functions, outside lease and history: for scripts and notebooks.

The service does the same with a lease, a record and retries; prefer it for anything scheduled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aurum_orchestration.errors import UnknownNameError, VerificationError, nearest
from aurum_orchestration.maintenance.interfaces import RunContext

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend


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

    engine = backend or _backend_of(table)
    operation = CompactionOperation()
    plan = engine.plan(engine.table_id(table), operation.name, operation.parameters(parameters))
    metrics: dict[str, float] = {"rewritten_files": 0, "added_files": 0}
    if dry_run:
        metrics["rewritten_files"] = sum(len(step.detail["files"]) for step in plan.steps)
        metrics["added_files"] = sum(step.detail["files_out"] for step in plan.steps)
        return {**metrics, "dry_run": True, "plan_id": plan.plan_id}
    run = RunContext(operation_id=plan.plan_id)
    for unit in engine.open(plan, run).units():
        try:
            unit.stage(run)
            verification = unit.verify(run)
            if verification is not None and not verification.ok:
                raise VerificationError(f"{table}: {verification}", table=table, operation=operation.name)
        except BaseException:
            unit.discard()
            raise
        for name, value in unit.commit(run).metrics.items():
            metrics[name] = metrics.get(name, 0) + value
    metrics["rewritten_files"] += metrics.pop("files_rewritten", 0)
    metrics["added_files"] += metrics.pop("files_added", 0)
    return {**metrics, "dry_run": False, "plan_id": plan.plan_id}


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


FUNCTIONS: Mapping[str, Callable[..., dict[str, Any]]] = {"rewrite_data_files": rewrite_data_files}
"""The functions by the name that the backend's bridge takes."""
