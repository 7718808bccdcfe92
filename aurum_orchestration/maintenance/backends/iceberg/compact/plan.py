"""Which files a compaction rewrites together: one step, and one commit, per group."""

from __future__ import annotations

from collections.abc import Sequence

from pyiceberg.manifest import ManifestEntry

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.compact.state import (
    TableState,
    filter_partitions,
    partition_text,
    partitions_of,
)
from aurum_orchestration.maintenance.backends.iceberg.refusals import compaction_refusal
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType, PlanStep
from aurum_orchestration.maintenance.operations.compaction import MIB, CompactionParameters
from aurum_orchestration.maintenance.planner.binpack import Bin, pack

_RISK = "None for readers and writers: the old files stay until their snapshot expires; a concurrent delete wins."


def plan_compaction(state: TableState, table: TableId, parameters: CompactionParameters) -> MaintenancePlan:
    """The plan for a table in this state.

    Raises UnsupportedError with the reason when the table cannot be rewritten safely, RequestError for
    a wrong partition filter.
    """
    entries = filter_partitions(state, parameters.partition_filter) if parameters.partition_filter else state.data
    groups = [
        (bin_, [partition[index] for index in bin_.members])
        for partition in partitions_of(entries).values()
        for bin_ in pack(
            [item.data_file.file_size_in_bytes for item in partition],
            parameters.target_file_size_mb * MIB,
            parameters.min_input_files,
            parameters.max_group_size_mb * MIB,
        )
    ]
    metadata = state.table.metadata
    refusal = compaction_refusal(
        format_version=metadata.format_version,
        default_spec_id=metadata.default_spec_id,
        delete_files=state.delete_files,
        encrypted="encryption.key-id" in metadata.properties,
        properties=metadata.properties,
        candidates=[item.data_file for _, members in groups for item in members],
    )
    if refusal:
        raise UnsupportedError(refusal, table=str(table), operation=OperationType.COMPACTION)
    steps = [_step(number, bin_, members, state) for number, (bin_, members) in enumerate(_largest_first(groups), 1)]
    return MaintenancePlan(
        table=str(table),
        backend=table.backend,
        operation=OperationType.COMPACTION,
        parameters=parameters.model_dump(),
        reason=_reason(state, groups, parameters),
        fingerprint=state.fingerprint(),
        steps=steps,
    )


def _largest_first(groups: Sequence[tuple[Bin, list[ManifestEntry]]]) -> list[tuple[Bin, list[ManifestEntry]]]:
    return sorted(groups, key=lambda group: -group[0].excess)


def _reason(
    state: TableState, groups: Sequence[tuple[Bin, list[ManifestEntry]]], parameters: CompactionParameters
) -> str:
    if not groups:
        return (
            f"nothing to do: no partition has {parameters.min_input_files} files below "
            f"{parameters.target_file_size_mb * 0.75:g} MiB; {len(state.data):,} data files in all"
        )
    files = sum(len(bin_.members) for bin_, _ in groups)
    out = sum(bin_.files_out for bin_, _ in groups)
    return f"{files:,} small files of {len(state.data):,} become {out:,} in {len(groups):,} groups"


def _step(number: int, bin_: Bin, members: list[ManifestEntry], state: TableState) -> PlanStep:
    first = members[0].data_file
    partition = partition_text(first, state.spec, state.table)
    where = f" of partition {partition}" if partition else ""
    return PlanStep(
        number=number,
        action="rewrite",
        summary=f"Rewrite {len(members):,} files{where} ({bin_.bytes / MIB:.1f} MiB) into {bin_.files_out:,}.",
        risk=_RISK,
        detail={
            "partition": partition,
            "spec_id": first.spec_id,
            "files": [item.data_file.file_path for item in members],
            "files_out": bin_.files_out,
            "bytes": bin_.bytes,
            "rows": sum(item.data_file.record_count for item in members),
        },
    )
