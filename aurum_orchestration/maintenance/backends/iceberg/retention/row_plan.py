"""Which data files hold rows that are old by the time column, and what is done about each.

Files that are old as a whole leave main by metadata alone. Of the others the metadata cannot tell how many
rows are old: they stay, or, when they are to be rewritten, their time column is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pyiceberg.manifest import DataFile, ManifestEntry
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.transforms import IdentityTransform

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.compact.deletes import DeleteIndex, NamedPaths, is_readable
from aurum_orchestration.maintenance.backends.iceberg.compact.name_mapping import mapping_of
from aurum_orchestration.maintenance.backends.iceberg.compact.state import (
    TableState,
    partition_text,
    partitions_of,
    read_state,
)
from aurum_orchestration.maintenance.backends.iceberg.entries import EntryReader
from aurum_orchestration.maintenance.backends.iceberg.files import REMOTE_THREADS, Files, in_threads
from aurum_orchestration.maintenance.backends.iceberg.lossless import refuse_lossy_commit
from aurum_orchestration.maintenance.backends.iceberg.refusals import NEWEST_FORMAT, compaction_refusal
from aurum_orchestration.maintenance.backends.iceberg.retention.cutoff import Cutoff, cutoff_at, time_column
from aurum_orchestration.maintenance.backends.iceberg.retention.row_times import (
    Counted,
    count_times,
    has_fields,
    unreadable,
)
from aurum_orchestration.maintenance.backends.iceberg.retention.verdict import Verdict, constant, verdict
from aurum_orchestration.maintenance.interfaces import OperationType, PlanStep
from aurum_orchestration.maintenance.operations.compaction import MIB, CompactionParameters
from aurum_orchestration.maintenance.operations.retention import RetentionParameters
from aurum_orchestration.maintenance.planner.words import count, moment, size

REMOVE, REWRITE = "remove_rows", "rewrite_rows"

_RISK = (
    "The rows leave main for good once the snapshot before expires; until then `aurum undo` brings them back. "
    "A concurrent commit is never lost."
)


@dataclass
class RowPlan:
    """The steps that take old rows out, a sentence about them, and what a person should know."""

    told: str = ""
    steps: list[PlanStep] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass
class _Sorted:
    """Data files by what happens to them. ``left`` counts why files with old rows stay, with their rows."""

    whole: list[ManifestEntry] = field(default_factory=list)
    mixed: list[tuple[ManifestEntry, Counted]] = field(default_factory=list)
    undecided: list[ManifestEntry] = field(default_factory=list)
    left: list[tuple[DataFile, str]] = field(default_factory=list)

    @property
    def rows_left(self) -> int:
        """Rows of the files that stay though some of their rows may be old."""
        files = [*(item.data_file for item in self.undecided), *(file for file, _ in self.left)]
        return sum(file.record_count for file in files)


def plan_rows(table: Table, table_id: TableId, parameters: RetentionParameters) -> RowPlan:
    """What would be done now about rows that are old by ``time_column``.

    Raises RequestError for a column that is not there, UnsupportedError with the reason when rows cannot be
    deleted, CorruptTableError or BackendUnavailableError when the table cannot be read.
    """
    metadata, name = table.metadata, parameters.time_column or ""
    days = parameters.retention_days if parameters.row_days is None else parameters.row_days
    cutoff = cutoff_at(time_column(table.schema(), name), datetime.now(UTC), days, parameters.time_zone)
    before = f"rows with {name} before {moment(cutoff.moment)} ({days:g} days)"
    if refusal := _refusal(table):
        raise UnsupportedError(refusal, table=str(table_id), operation=OperationType.RETENTION)
    state = read_state(table, EntryReader(table.io))
    listed = [item.data_file.file_path for item in state.data]
    if len(listed) != len(set(listed)):
        raise UnsupportedError("a data file is listed twice in the table: every row in it counts twice")
    found = _sort(state, cutoff, parameters)
    plan = RowPlan(before)
    if found.whole or found.mixed:
        refuse_lossy_commit(table)
    if found.mixed:
        _refuse_rewrite(state, [item for item, _ in found.mixed])
    plan.steps = [*_removals(state, cutoff, found.whole), *_rewrites(state, cutoff, found.mixed)]
    if plan.steps:
        plan.steps[-1].detail["old_rows_left_at_most"] = found.rows_left
    plan.told = f"{before}: {_told(found)}"
    plan.warnings = list(_warnings(metadata.refs, plan, found))
    return plan


def _refusal(table: Table) -> str | None:
    metadata = table.metadata
    if metadata.format_version > NEWEST_FORMAT:
        return (
            f"rows of a table of format version {metadata.format_version} cannot be deleted yet; "
            "Spark with Iceberg 1.10 or later can"
        )
    return "the table is encrypted" if "encryption.key-id" in metadata.properties else None


def _refuse_rewrite(state: TableState, chosen: Sequence[ManifestEntry]) -> None:
    """Raise UnsupportedError when files, or delete files that apply to them, cannot be rewritten here."""
    metadata = state.table.metadata
    refusal = compaction_refusal(
        format_version=metadata.format_version,
        properties=metadata.properties,
    )
    if state.deletes and refusal is None:
        index = DeleteIndex(state.deletes, metadata.specs(), NamedPaths(state.table.io))
        unread = {one.data_file.file_path for item in chosen for one in index.of(item) if not is_readable(one)}
        if unread:
            refusal = f"{count(len(unread), 'delete file')} on files to be rewritten are not plain Parquet"
    if refusal:
        raise UnsupportedError(refusal, hint="Without rewrite_files only files that are old as a whole leave.")


def _sort(state: TableState, cutoff: Cutoff, parameters: RetentionParameters) -> _Sorted:
    specs = state.table.metadata.specs()
    found = _Sorted()
    for item in state.data:
        file = item.data_file
        known = verdict(file, specs[file.spec_id], cutoff)
        if known == Verdict.OLD and parameters.verify and (why := unreadable(file)):
            found.left.append((file, f"{why}, so that its times cannot be verified"))
        elif known == Verdict.OLD:
            found.whole.append(item)
        elif known == Verdict.UNKNOWN:
            found.undecided.append(item)
    if parameters.rewrite_files and found.undecided:
        _read_undecided(state, cutoff, found)
    return found


def _read_undecided(state: TableState, cutoff: Cutoff, found: _Sorted) -> None:
    """Decide by reading the time column."""
    undecided, found.undecided = found.undecided, []
    for item, counted in zip(undecided, _read(state.table, undecided, cutoff), strict=True):
        if isinstance(counted, str):
            found.left.append((item.data_file, counted))
        elif counted.old and not counted.kept:
            found.whole.append(item)
        elif counted.old:
            found.mixed.append((item, counted))


def _read(table: Table, items: Sequence[ManifestEntry], cutoff: Cutoff) -> Iterator[Counted | str]:
    """Old and kept rows of each file, or why it cannot be read."""
    io, specs, mapping = table.io, table.metadata.specs(), mapping_of(table.metadata.properties)

    def read(item: ManifestEntry) -> Counted | str:
        if why := unreadable(item.data_file):
            return why
        try:
            file = item.data_file
            spec = specs[file.spec_id]
            absent = constant(file, spec, cutoff.column)
            counted = count_times(io, file.file_path, cutoff, absent=absent, mapping=mapping)
            if counted.old and counted.kept and not has_fields(io, file.file_path, _identities(spec), mapping):
                return "it lacks a column that readers take from its partition, which a rewrite would lose"
            return counted
        except UnsupportedError as error:
            return error.detail

    local = all(Files(io.properties, io).is_local(item.data_file.file_path) for item in items)
    return in_threads(read, items, 2 if local else REMOTE_THREADS)


def _identities(spec: PartitionSpec) -> set[int]:
    """The columns that a file of a spec need not have: all rows have the partition's value."""
    return {field.source_id for field in spec.fields if isinstance(field.transform, IdentityTransform)}


def _removals(state: TableState, cutoff: Cutoff, whole: Sequence[ManifestEntry]) -> Iterator[PlanStep]:
    """A step for each partition spec: a commit rewrites the manifests of one."""
    for spec_id in sorted({item.data_file.spec_id for item in whole}):
        files = [item.data_file for item in whole if item.data_file.spec_id == spec_id]
        spec = state.table.metadata.specs()[spec_id]
        partitions = sorted({partition_text(file, spec, state.table) for file in files}) if spec.fields else []
        where = f" in {count(len(partitions), 'partition')}" if partitions else ""
        rows, stored = sum(file.record_count for file in files), sum(file.file_size_in_bytes for file in files)
        yield PlanStep(
            number=1,
            action=REMOVE,
            summary=(
                f"Take {count(len(files), 'data file')}{where} with only rows before {moment(cutoff.moment)} out of "
                f"main: {count(rows, 'row')}, {size(stored)}."
            ),
            risk=_RISK,
            detail=_detail(cutoff, files, rows) | {"partitions": partitions},
        )


def _rewrites(state: TableState, cutoff: Cutoff, mixed: Sequence[tuple[ManifestEntry, Counted]]) -> Iterator[PlanStep]:
    """A step, and a commit, for each partition, or for so much of it as is rewritten at once."""
    old = {item.data_file.file_path: counted.old for item, counted in mixed}
    limit = CompactionParameters().max_group_size_mb * MIB
    for members in partitions_of([item for item, _ in mixed]).values():
        for files in _portions([item.data_file for item in members], limit):
            spec = state.table.metadata.specs()[files[0].spec_id]
            partition = partition_text(files[0], spec, state.table)
            rows = sum(old[file.file_path] for file in files)
            total = sum(file.record_count for file in files)
            where = f" of partition {partition}" if partition else ""
            yield PlanStep(
                number=1,
                action=REWRITE,
                summary=(
                    f"Rewrite {count(len(files), 'file')}{where} "
                    f"({size(sum(file.file_size_in_bytes for file in files))}) without {rows:,} of {total:,} rows, "
                    f"those before {moment(cutoff.moment)}."
                ),
                risk=_RISK,
                detail=_detail(cutoff, files, rows) | {"partition": partition},
            )


def _portions(files: Sequence[DataFile], limit: int) -> Iterator[list[DataFile]]:
    part: list[DataFile] = []
    for file in files:
        if part and sum(one.file_size_in_bytes for one in part) + file.file_size_in_bytes > limit:
            yield part
            part = []
        part.append(file)
    if part:
        yield part


def _detail(cutoff: Cutoff, files: Sequence[DataFile], rows: int) -> dict[str, Any]:
    return {
        "time_column": cutoff.column.name,
        "field_ids": list(cutoff.column.path),
        "cutoff": cutoff.moment.isoformat(),
        "spec_id": files[0].spec_id,
        "rows": rows,
        "data_files": [file.file_path for file in files],
        "data_bytes": sum(file.file_size_in_bytes for file in files),
    }


def _told(found: _Sorted) -> str:
    parts = []
    if found.whole:
        rows = sum(item.data_file.record_count for item in found.whole)
        parts.append(f"{count(rows, 'row')} in {count(len(found.whole), 'file')} without others")
    if found.mixed:
        rows = sum(counted.old for _, counted in found.mixed)
        parts.append(f"{count(rows, 'row')} in {count(len(found.mixed), 'file')} among others")
    if found.undecided:
        most = sum(item.data_file.record_count for item in found.undecided)
        parts.append(
            f"at most {count(most, 'row')} stay in {count(len(found.undecided), 'file')} with others "
            "(rewrite_files is off)"
        )
    if found.left:
        parts.append(f"{count(len(found.left), 'file')} that cannot be read here stay")
    return "; ".join(parts) or "no file holds one"


def _warnings(refs: Any, plan: RowPlan, found: _Sorted) -> Iterator[str]:
    others = sorted(name for name in refs if name != MAIN_BRANCH)
    if plan.steps and others:
        named = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        yield f"rows leave main only; {count(len(others), 'other ref')} keep theirs: {named}"
    for why, files in Counter(why for _, why in found.left).items():
        example = next(file.file_path for file, reason in found.left if reason == why)
        yield f"{count(files, 'file')} that may hold old rows stay, e.g. {example}: {why}"
