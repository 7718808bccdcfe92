"""Which ref a backup makes, and which older backups it makes superfluous."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRef
from pyiceberg.table.snapshots import Snapshot

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.lossless import refuse_lossy_commit
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType, PlanStep
from aurum_orchestration.maintenance.operations.backup import TIMESTAMP, BackupParameters

_FORMAT = "%Y%m%dT%H%M%SZ"
_STAMP = r"(\d{8}T\d{6}Z)"
_DAY_MS = 24 * 60 * 60 * 1000

_NO_RISK = "None: a ref changes no data; it only keeps the snapshot's files from expiring."
_PRUNE_RISK = "Their snapshots may expire from then on. Done only after a newer backup was verified."


def plan_backup(table: Table, table_id: TableId, parameters: BackupParameters) -> MaintenancePlan:
    """The plan for the table as it is."""
    metadata = table.metadata
    snapshot = metadata.snapshot_by_name(MAIN_BRANCH)
    steps: list[PlanStep] = []
    reason = "nothing to do: the table has no snapshot to back up"
    if snapshot is not None:
        backups = list(backups_of(metadata, parameters))
        newest = backups[-1] if backups else None
        if newest is not None and metadata.refs[newest].snapshot_id == snapshot.snapshot_id:
            reason = f"nothing to do: {newest} keeps snapshot {snapshot.snapshot_id} already"
        else:
            newest = _free_name(metadata, parameters)
            backups.append(newest)
            reason = f"{newest} will keep snapshot {snapshot.snapshot_id}"
            steps.append(_create(newest, snapshot, parameters))
        if superfluous := backups[: -parameters.keep_last]:
            steps.append(_prune(len(steps) + 1, newest, superfluous, metadata))
            reason += f"; of older backups the newest {parameters.keep_last:,} stay"
    if steps:
        refuse_lossy_commit(table)
    return MaintenancePlan(
        table=str(table_id),
        backend=table_id.backend,
        operation=OperationType.BACKUP,
        parameters=parameters.model_dump(),
        reason=reason,
        fingerprint={
            "table_uuid": str(metadata.table_uuid),
            "snapshot_id": snapshot.snapshot_id if snapshot else None,
        },
        steps=steps,
    )


def backups_of(metadata: TableMetadata, parameters: BackupParameters) -> Iterator[str]:
    """Names of the backups that were made under this name, oldest first. Only refs with a timestamp are ours."""
    before, after = parameters.name.split(TIMESTAMP)
    name_of_ours = re.compile(f"{re.escape(before)}{_STAMP}{re.escape(after)}")
    found = {match[1]: name for name in metadata.refs if (match := name_of_ours.fullmatch(name))}
    return (found[stamp] for stamp in sorted(found))


def ref_settings(ref: SnapshotRef) -> dict[str, Any]:
    """A ref as plain data, enough to make it again."""
    return {
        "snapshot_id": ref.snapshot_id,
        "type": ref.snapshot_ref_type.value,
        "max_ref_age_ms": ref.max_ref_age_ms,
        "max_snapshot_age_ms": ref.max_snapshot_age_ms,
        "min_snapshots_to_keep": ref.min_snapshots_to_keep,
    }


def _free_name(metadata: TableMetadata, parameters: BackupParameters) -> str:
    moment = datetime.now(UTC)
    while (name := parameters.name.replace(TIMESTAMP, moment.strftime(_FORMAT))) in metadata.refs:
        moment += timedelta(seconds=1)
    return name


def _create(name: str, snapshot: Snapshot, parameters: BackupParameters) -> PlanStep:
    # the age of a ref is that of its snapshot: one that was committed long ago would expire at once
    age = max(0, int(datetime.now(UTC).timestamp() * 1000) - snapshot.timestamp_ms)
    lives = None if parameters.keep_days is None else age + int(parameters.keep_days * _DAY_MS)
    is_branch = parameters.kind == "branch"
    summary = snapshot.summary.additional_properties if snapshot.summary else {}
    until = "" if parameters.keep_days is None else f" for {parameters.keep_days:g} days"
    return PlanStep(
        number=1,
        action="create-ref",
        summary=f"Keep snapshot {snapshot.snapshot_id} under the {parameters.kind} {name}{until}.",
        risk=_NO_RISK,
        detail={
            "name": name,
            "snapshot_id": snapshot.snapshot_id,
            "type": parameters.kind,
            "max_ref_age_ms": lives,
            "max_snapshot_age_ms": 1 if is_branch else None,
            "min_snapshots_to_keep": 1 if is_branch else None,
            "files": int(summary.get("total-data-files", 0)) + int(summary.get("total-delete-files", 0)),
            "bytes": int(summary.get("total-files-size", 0)),
        },
    )


def _prune(number: int, newest: str, names: list[str], metadata: TableMetadata) -> PlanStep:
    return PlanStep(
        number=number,
        action="remove-refs",
        summary=f"Remove {len(names):,} older backups: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}.",
        risk=_PRUNE_RISK,
        detail={"newest": newest, "refs": [{"name": name, **ref_settings(metadata.refs[name])} for name in names]},
    )
