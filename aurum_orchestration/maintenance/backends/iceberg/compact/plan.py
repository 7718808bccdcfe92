"""Which files a compaction rewrites together: one step, and one commit, per group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pyiceberg.manifest import DataFile, ManifestEntry

from aurum_orchestration.errors import CorruptTableError, UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.arrow_types import select_columns
from aurum_orchestration.maintenance.backends.iceberg.compact.candidates import Weight, choose
from aurum_orchestration.maintenance.backends.iceberg.compact.deletes import (
    DeleteIndex,
    NamedPaths,
    droppable,
    is_equality,
    is_readable,
)
from aurum_orchestration.maintenance.backends.iceberg.compact.equality import key_columns
from aurum_orchestration.maintenance.backends.iceberg.compact.name_mapping import identified, mapping_of
from aurum_orchestration.maintenance.backends.iceberg.compact.old_specs import OldSpecs
from aurum_orchestration.maintenance.backends.iceberg.compact.ordering import Ordering, ordering_of
from aurum_orchestration.maintenance.backends.iceberg.compact.reader import open_parquet
from aurum_orchestration.maintenance.backends.iceberg.compact.state import (
    TableState,
    filter_partitions,
    partition_text,
    partitions_of,
)
from aurum_orchestration.maintenance.backends.iceberg.refusals import compaction_refusal, parquet_only
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType, PlanStep
from aurum_orchestration.maintenance.operations.compaction import MIB, CompactionParameters
from aurum_orchestration.maintenance.planner.binpack import Bin, is_small

_RISK = "None for readers and writers: the old files stay until their snapshot expires; a concurrent delete wins."


def plan_compaction(
    state: TableState, table: TableId, parameters: CompactionParameters, *, only_old_specs: bool = False
) -> MaintenancePlan:
    """The plan for a table in this state.

    Raises UnsupportedError with the reason when the table cannot be rewritten safely, RequestError for
    a wrong partition filter.
    """
    entries = (
        state.data if parameters.partition_filter is None else filter_partitions(state, parameters.partition_filter)
    )
    entries, others = parquet_only(entries)
    metadata = state.table.metadata
    if only_old_specs:
        entries = [item for item in entries if item.data_file.spec_id != metadata.default_spec_id]
    ordering = ordering_of(metadata, parameters)
    names = NamedPaths(state.table.io)
    index = DeleteIndex(state.deletes, metadata.specs(), names)
    weight = Weight(state.data, state.deletes, index, metadata.specs())
    groups: list[tuple[Bin, list[ManifestEntry]]] = []
    old = OldSpecs(state, parameters, weight)
    for partition in partitions_of(entries).values():
        wanted = _wanted(partition, parameters, ordering, weight)
        chosen_here = choose(partition, parameters, wanted, lambda item: 1 - weight.ratio(item))
        if partition[0].data_file.spec_id == metadata.default_spec_id:
            groups += chosen_here
        else:
            old.offer(partition, [item for _, members in chosen_here for item in members], wanted)
    groups += old.groups()
    applied = {
        item.data_file.file_path: index.of(item) if state.deletes else [] for _, members in groups for item in members
    }
    chosen = [item.data_file for _, members in groups for item in members]
    refusal = (
        compaction_refusal(
            format_version=metadata.format_version,
            encrypted="encryption.key-id" in metadata.properties,
            properties=metadata.properties,
            candidates=chosen,
        )
        or _files_refusal(state, chosen)
        or _deletes_refusal(state, applied)
    )
    if refusal:
        raise UnsupportedError(refusal, table=str(table), operation=OperationType.COMPACTION)
    if parameters.old_specs != "leave":
        old.require_known_fields(chosen)
    steps = _steps(_largest_first(groups), state, applied, names, old)
    return MaintenancePlan(
        table=str(table),
        backend=table.backend,
        operation=OperationType.COMPACTION,
        parameters=parameters.model_dump(),
        reason=_reason(state, groups, parameters) if groups or not steps else steps[0].summary,
        fingerprint=state.fingerprint(),
        steps=steps,
        warnings=[others] if others else [],
    )


def _wanted(
    partition: Sequence[ManifestEntry], parameters: CompactionParameters, ordering: Ordering | None, weight: Weight
) -> Callable[[ManifestEntry], bool]:
    """Which files are rewritten whatever their size: all, those under deletes, those not in the table's order."""
    unsorted: set[str] = set()
    if parameters.rewrite_all:
        return lambda _: True
    if ordering is not None and ordering.order_id is not None:
        others = [item.data_file for item in partition if item.data_file.sort_order_id != ordering.order_id]
        size = sum(file.file_size_in_bytes for file in others)
        if len(others) >= parameters.min_input_files or not is_small(size, parameters.target_file_size_mb * MIB):
            unsorted = {file.file_path for file in others}
    return lambda item: item.data_file.file_path in unsorted or (weight.count > 0 and weight.is_heavy(item, parameters))


def _files_refusal(state: TableState, chosen: Sequence[DataFile]) -> str | None:
    """Why the chosen files cannot be rewritten, or None."""
    if twice := len(chosen) - len({file.file_path for file in chosen}):
        return f"{twice:,} of the data files to be rewritten are listed twice: every row in them counts twice"
    if chosen:
        # one file tells of most tables whose files were added as they were; others are refused when they are read
        mapping = mapping_of(state.table.metadata.properties)
        try:
            with open_parquet(state.table.io, chosen[0].file_path, ()) as file:
                select_columns(identified(file.schema_arrow.empty_table(), mapping).schema, ())
        except UnsupportedError as error:
            return "; ".join(filter(None, (error.detail, error.hint)))
        except CorruptTableError:
            return None  # carrying the plan out says so, and which file it is
    return None


def _deletes_refusal(state: TableState, applied: Mapping[str, Sequence[ManifestEntry]]) -> str | None:
    """Why the delete files that apply to chosen data files cannot be folded in, or None."""
    deletes = {item.data_file.file_path: item for items in applied.values() for item in items}
    if unreadable := sum(not is_readable(item) for item in deletes.values()):
        return f"{unreadable:,} delete files are not plain Parquet; Spark and Trino can read such deletes"
    ids = {tuple(sorted(item.data_file.equality_ids or ())) for item in deletes.values() if is_equality(item)}
    for one in ids:
        try:
            key_columns(state.table.metadata, one)
        except UnsupportedError as error:
            return error.detail
    return None


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
    kind = "small files" if parameters.strategy == "binpack" and not state.deletes else "files"
    return f"{files:,} {kind} of {len(state.data):,} become {out:,} in {len(groups):,} groups"


def _steps(
    groups: Sequence[tuple[Bin, list[ManifestEntry]]],
    state: TableState,
    applied: Mapping[str, Sequence[ManifestEntry]],
    names: NamedPaths,
    old: OldSpecs,
) -> list[PlanStep]:
    """A step per group; each says which delete files it folds in, and which ones nothing needs after it."""
    steps: list[PlanStep] = []
    deletes, remaining = list(state.deletes), {item.data_file.file_path: item for item in state.data}
    specs = state.table.metadata.specs()
    for number, (bin_, members) in enumerate(groups, 1):
        for item in members:
            del remaining[item.data_file.file_path]
        dropped = droppable(deletes, remaining.values(), specs, names) if deletes else []
        gone = {item.data_file.file_path for item in dropped}
        deletes = [item for item in deletes if item.data_file.file_path not in gone]
        folded = {item.data_file.file_path for one in members for item in applied[one.data_file.file_path]}
        steps.append(_step(number, bin_, members, state, (sorted(folded), sorted(gone)), old=old))
    if not groups and (idle := droppable(deletes, remaining.values(), specs, names)):
        steps.append(_drop_step(idle))
    return steps


def _drop_step(idle: Sequence[ManifestEntry]) -> PlanStep:
    return PlanStep(
        number=1,
        action="drop_deletes",
        summary=f"Drop {len(idle):,} delete files that touch no data file any more.",
        risk="None: no reader needs them; the files stay until their snapshots expire.",
        detail={
            "files": [],
            "files_out": 0,
            "bytes": 0,
            "rows": 0,
            "delete_files": [],
            "delete_files_dropped": sorted(item.data_file.file_path for item in idle),
        },
    )


def _step(
    number: int,
    bin_: Bin,
    members: list[ManifestEntry],
    state: TableState,
    deletes: tuple[list[str], list[str]],
    *,
    old: OldSpecs,
) -> PlanStep:
    first = members[0].data_file
    partition, respec, where = "", {}, ""
    if first.spec_id == state.spec.spec_id:
        partition = partition_text(first, state.spec, state.table)
        where = f" of partition {partition}" if partition else ""
    else:
        respec = old.detail(members)
        where = f" of older partition specs, to {respec['partitions_out_at_most']:,} partitions at most,"
    folded, dropped = deletes
    summary = f"Rewrite {len(members):,} files{where} ({bin_.bytes / MIB:.1f} MiB) into {bin_.files_out:,}"
    if folded or dropped:
        summary += f"; fold in {len(folded):,} delete files, drop {len(dropped):,}"
    return PlanStep(
        number=number,
        action="rewrite",
        summary=f"{summary}.",
        risk=_RISK,
        detail={
            "partition": partition,
            "spec_id": state.spec.spec_id,
            **respec,
            "files": [item.data_file.file_path for item in members],
            "files_out": bin_.files_out,
            "bytes": bin_.bytes,
            "rows": sum(item.data_file.record_count for item in members),
            **({"delete_files": folded, "delete_files_dropped": dropped} if folded or dropped else {}),
        },
    )
