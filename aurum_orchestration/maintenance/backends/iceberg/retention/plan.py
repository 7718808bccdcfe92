"""What a retention would do now, as data."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH

from aurum_orchestration.errors import CorruptTableError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.files import Files
from aurum_orchestration.maintenance.backends.iceberg.lossless import refuse_lossy_commit
from aurum_orchestration.maintenance.backends.iceberg.reachability import (
    References,
    inside,
    refuse_foreign_files,
    table_locations,
)
from aurum_orchestration.maintenance.backends.iceberg.refusals import GC_ENABLED
from aurum_orchestration.maintenance.backends.iceberg.retention.expire import refs_of
from aurum_orchestration.maintenance.backends.iceberg.retention.expiry import Expiry, Rules, expirable, wrong_property
from aurum_orchestration.maintenance.backends.iceberg.retention.row_plan import RowPlan, plan_rows
from aurum_orchestration.maintenance.backends.iceberg.retention.unreachable import Unreachable, held_only_by
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType, PlanStep
from aurum_orchestration.maintenance.operations.retention import RetentionParameters
from aurum_orchestration.maintenance.planner.words import count, size

EXPIRE = "expire"

_RISK = (
    "Expired snapshots cannot be read any more, by nobody. Refs and what they keep stay; files are deleted only "
    "after the commit, and only those that nothing refers to then."
)


def plan_retention(table: Table, table_id: TableId, parameters: RetentionParameters) -> MaintenancePlan:
    """The plan for a table as it is now.

    Old rows leave main first, then snapshots expire: the one that still has the rows is never among these.
    Raises UnsupportedError with the reason when its files are not its own or rows cannot be deleted,
    RequestError for a time column that is not there, CorruptTableError when what its snapshots refer to
    cannot be read.
    """
    metadata = table.metadata
    refuse_foreign_files(metadata, OperationType.RETENTION)
    rows = RowPlan() if parameters.time_column is None else plan_rows(table, table_id, parameters)
    steps = [step.model_copy(update={"number": number}) for number, step in enumerate(rows.steps, 1)]
    planned = expirable_now(metadata, parameters)
    unreachable = Unreachable()
    warnings = list(rows.warnings)
    if planned.snapshots or planned.refs:
        refuse_lossy_commit(table)
        gone = set(planned.snapshots)
        expiring = [snapshot for snapshot in metadata.snapshots if snapshot.snapshot_id in gone]
        references = References(Files(table.io.properties, table.io))
        require_head(metadata, references)
        unreachable = held_only_by(expiring, metadata, references)
        steps.append(_expire_step(len(steps) + 1, planned, unreachable))
        warnings += outside(unreachable, metadata)
    told = _reason(metadata, planned, unreachable, parameters)
    return MaintenancePlan(
        table=str(table_id),
        backend=table_id.backend,
        operation=OperationType.RETENTION,
        parameters=parameters.model_dump(),
        reason=("" if steps else "nothing to do: ") + "; ".join(filter(None, (rows.told, told))),
        fingerprint=fingerprint(metadata),
        steps=steps,
        warnings=warnings,
    )


def require_head(metadata: TableMetadata, references: References) -> None:
    """Raise CorruptTableError when the head of main cannot be read: then an older snapshot is what saves the table."""
    head = metadata.snapshot_by_name(MAIN_BRANCH)
    if head is not None:
        for _ in references.content_files(references.manifests([head])[0]):
            pass


def expirable_now(metadata: TableMetadata, parameters: RetentionParameters) -> Expiry:
    """What may go at this moment. Raises CorruptTableError for a property that cannot be understood."""
    if wrong := wrong_property(metadata.properties):
        raise CorruptTableError(f"table property {wrong} is {metadata.properties[wrong]!r}, which is no number")
    rules = Rules.of(metadata.properties, parameters.retention_days, parameters.retain_last)
    return expirable(metadata.snapshots, refs_of(metadata), rules, int(time.time() * 1000))


def fingerprint(metadata: TableMetadata) -> dict[str, Any]:
    """What a plan depends on."""
    return {
        "table_uuid": str(metadata.table_uuid),
        "snapshot_id": metadata.current_snapshot_id,
        "refs": {name: ref.snapshot_id for name, ref in sorted(metadata.refs.items())},
    }


def _expire_step(number: int, planned: Expiry, unreachable: Unreachable) -> PlanStep:
    refs = f" and {count(len(planned.refs), 'ref')} past their age ({', '.join(planned.refs)})" if planned.refs else ""
    return PlanStep(
        number=number,
        action=EXPIRE,
        summary=(
            f"Expire {count(len(planned.snapshots), 'snapshot')}{refs}; then delete {count(unreachable.count, 'file')} "
            f"that nothing else refers to ({size(unreachable.bytes)})."
        ),
        risk=_RISK,
        detail={
            "snapshots": list(planned.snapshots),
            "refs": list(planned.refs),
            "data_files": unreachable.data_files,
            "statistics_files": unreachable.statistics_files,
            "manifests": unreachable.manifests,
            "manifest_lists": unreachable.manifest_lists,
            "files": unreachable.count,
            "bytes": unreachable.bytes,
        },
    )


def outside(unreachable: Unreachable, metadata: TableMetadata) -> Iterable[str]:
    """Files that were added from elsewhere belong to the table by Iceberg's rules; a person may not expect it."""
    own = table_locations(metadata)
    others = [path for path in unreachable.data_files if not inside(path, own)]
    if others:
        yield (
            f"{count(len(others), 'data file')} to be deleted lie outside the table's locations, e.g. {others[0]}: "
            f"they were added from there. If they are not this table's own, set its property {GC_ENABLED} to false."
        )


def _reason(metadata: TableMetadata, planned: Expiry, unreachable: Unreachable, parameters: RetentionParameters) -> str:
    total = len(metadata.snapshots)
    if not planned.snapshots and not planned.refs:
        if not total:
            return "the table has no snapshot"
        return (
            f"each of {count(total, 'snapshot')} is younger than {parameters.retention_days:g} days, "
            f"among the last {parameters.retain_last} or kept by a ref or by the table's own properties"
        )
    return (
        f"{len(planned.snapshots):,} of {count(total, 'snapshot')} are past {parameters.retention_days:g} days and not "
        f"among the last {parameters.retain_last}; {count(unreachable.count, 'file')} become unreachable"
    )
