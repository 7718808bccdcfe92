"""Taking old rows out of main: whole files by metadata, files with younger rows by rewriting them.

What could go wrong, and what prevents it:

* a row goes that is not old: before a file leaves, its time column is read, whatever the metadata said;
  what a rewrite keeps is counted again by a reading of its own, and read back with a checksum;
* a deleted row comes back: delete files are folded into a rewrite, and leave only when they touch nothing
  any more (see :mod:`~aurum_orchestration.maintenance.backends.iceberg.commit`);
* a concurrent delete or upsert is undone, a file that another commit replaced is taken out: the commit checks
  both on the head that it lands on; the plan is made anew then;
* the column was dropped, another one has its name: the field ids are compared, not the names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import cached_property

import pyarrow as pa
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, ManifestEntry
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation

from aurum_orchestration.errors import AurumError, StateDriftedError, VerificationError
from aurum_orchestration.maintenance.backends.iceberg.arrow_types import field_id
from aurum_orchestration.maintenance.backends.iceberg.commit import Replacement, commit_replace
from aurum_orchestration.maintenance.backends.iceberg.compact.deletes import DeletedRows, NamedPaths
from aurum_orchestration.maintenance.backends.iceberg.compact.execute import CompactionExecution, CompactionUnit
from aurum_orchestration.maintenance.backends.iceberg.compact.fold import Deletions, FoldingRewrite
from aurum_orchestration.maintenance.backends.iceberg.compact.name_mapping import mapping_of
from aurum_orchestration.maintenance.backends.iceberg.compact.reader import GroupReader
from aurum_orchestration.maintenance.backends.iceberg.compact.rewrite import Rewrite, Source
from aurum_orchestration.maintenance.backends.iceberg.compact.state import read_state
from aurum_orchestration.maintenance.backends.iceberg.compact.writer import WriteOptions
from aurum_orchestration.maintenance.backends.iceberg.entries import EntryReader
from aurum_orchestration.maintenance.backends.iceberg.files import REMOTE_THREADS, Files, in_threads
from aurum_orchestration.maintenance.backends.iceberg.publish import Committed
from aurum_orchestration.maintenance.backends.iceberg.retention.cutoff import Cutoff, cutoff_of, time_column
from aurum_orchestration.maintenance.backends.iceberg.retention.row_plan import REMOVE
from aurum_orchestration.maintenance.backends.iceberg.retention.row_times import Counted, count_times, older
from aurum_orchestration.maintenance.backends.iceberg.retention.verdict import constant
from aurum_orchestration.maintenance.backends.iceberg.rollback import OPERATION_ID, undo_data, undo_text
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
    Verification,
)
from aurum_orchestration.maintenance.operations.compaction import CompactionParameters
from aurum_orchestration.maintenance.operations.retention import RetentionParameters

_READ_AT_ONCE = 2


class RowRemoval:
    """The row steps of a plan, on the table as it is now. ``table`` is the one after the latest commit."""

    def __init__(self, plan: MaintenancePlan, table: Table, parameters: RetentionParameters) -> None:
        self.plan, self.table, self.parameters = plan, table, parameters
        self.reader = EntryReader(table.io)
        self.state = read_state(table, self.reader)
        self.names = NamedPaths(table.io)

    def unit(self, step: PlanStep) -> Unit:
        """The unit of a step. Raises StateDriftedError when the table no longer fits it."""
        cutoff = self._cutoff(step)
        live = {item.data_file.file_path: item for item in self.state.data}
        paths = step.detail["data_files"]
        if gone := [path for path in paths if path not in live]:
            raise StateDriftedError(
                f"{len(gone):,} of {len(paths):,} planned files are gone, e.g. {gone[0]}", table=self.plan.table
            )
        members = [live[path] for path in paths]
        if step.action == REMOVE:
            return RemoveUnit(step, self, cutoff, [item.data_file for item in members])
        return KeepUnit(step, self.rewriting, cutoff, members)

    @cached_property
    def rewriting(self) -> _Rewriting:
        """How files are rewritten. Raises UnsupportedError when the table's files cannot be written."""
        return _Rewriting(self)

    def commit(self, run: RunContext, spec_id: int, removed: dict[str, DataFile], added: list[DataFile]) -> Committed:
        """Swap files, or take them out, in one snapshot."""
        base = self.state.snapshot
        if base is None:
            raise StateDriftedError("the table has no snapshot any more", table=self.plan.table)
        # new files count as old as the base, so that a newer equality delete applies to them
        number = base.sequence_number if self.table.metadata.format_version > 1 else None
        done = commit_replace(
            self.table,
            base,
            Replacement(
                spec_id, removed, added, number, self.names, Operation.OVERWRITE if added else Operation.DELETE
            ),
            self.reader,
            {OPERATION_ID: run.operation_id, "aurum.plan-id": self.plan.plan_id},
        )
        self.table = done.table
        return done

    def _cutoff(self, step: PlanStep) -> Cutoff:
        detail = step.detail
        try:
            column = time_column(self.state.table.schema(), detail["time_column"])
        except AurumError as error:
            raise StateDriftedError(str(error), table=self.plan.table) from error
        if list(column.path) != detail["field_ids"]:
            raise StateDriftedError(f"{column.name} is another column than planned", table=self.plan.table)
        return cutoff_of(column, datetime.fromisoformat(detail["cutoff"]), self.parameters.time_zone)


class RemoveUnit(Unit):
    """Files without a row that is kept leave main; no data file is written."""

    def __init__(self, step: PlanStep, removal: RowRemoval, cutoff: Cutoff, files: Sequence[DataFile]) -> None:
        super().__init__(step)
        self._removal, self._cutoff = removal, cutoff
        self._files = {file.file_path: file for file in files}

    def stage(self, run: RunContext) -> None:
        """Nothing is written before the commit."""

    def verify(self, run: RunContext) -> Verification | None:
        """Read the time column of every file. Raises VerificationError naming a file that has other rows.

        Rows before are those of the manifests, rows after those read that are old.
        """
        if not self._removal.parameters.verify:
            return None
        io = self._removal.table.io
        metadata, column = self._removal.state.table.metadata, self._cutoff.column
        specs, mapping = metadata.specs(), mapping_of(metadata.properties)
        paths = list(self._files)
        old = 0

        def read(path: str) -> Counted:
            run.check()
            file = self._files[path]
            absent = constant(file, specs[file.spec_id], column)
            return count_times(io, path, self._cutoff, absent=absent, mapping=mapping)

        local = Files(io.properties, io).is_local(paths[0])
        for number, (path, counted) in enumerate(
            zip(paths, in_threads(read, paths, _READ_AT_ONCE if local else REMOTE_THREADS), strict=True), 1
        ):
            if counted.kept:
                raise VerificationError(
                    f"data file {path} has {counted.kept:,} rows that are not before the cutoff or have no time, "
                    "though the table's metadata says that all are before it",
                    hint="Nothing was removed. The file's bounds or partition values are wrong: rewrite it first.",
                )
            old += counted.old
            run.progress(number, len(paths), "files")
        recorded = sum(file.record_count for file in self._files.values())
        return Verification(
            method="time-column-read", rows_before=recorded, rows_after=old, checksum_equal=recorded == old
        )

    def commit(self, run: RunContext) -> UnitOutcome:
        """Take the files out in one snapshot."""
        done = self._removal.commit(run, self.step.detail["spec_id"], self._files, [])
        return UnitOutcome(
            metrics={
                "rows_deleted": sum(file.record_count for file in self._files.values()),
                "files_removed": len(self._files),
                "bytes_removed": sum(file.file_size_in_bytes for file in self._files.values()),
                "commit_retries": done.retries,
                **_dropped(done),
                **_left(self.step),
            },
            undo=undo_text(run.operation_id, done),
            undo_data=undo_data(done),
        )

    def discard(self) -> None:
        """Nothing was staged."""


def _dropped(done: Committed) -> dict[str, float]:
    """How many delete files left with the data files that they were for; nothing when none did."""
    snapshot = done.table.metadata.snapshot_by_id(done.snapshot_id)
    told = snapshot.summary.additional_properties if snapshot and snapshot.summary else {}
    removed = int(told.get("removed-delete-files", 0))
    return {"delete_files_removed": removed} if removed else {}


def _left(step: PlanStep) -> dict[str, float]:
    left = step.detail.get("old_rows_left_at_most")
    return {} if left is None else {"old_rows_left_at_most": left}


class _Rewriting(CompactionExecution):
    """What a compaction of the same files would need, but commits are those of a removal."""

    def __init__(self, removal: RowRemoval) -> None:
        parameters = CompactionParameters(verify=removal.parameters.verify, max_concurrent_groups=1)
        plan = removal.plan.model_copy(update={"parameters": parameters.model_dump(), "steps": []})
        super().__init__(plan, removal.state, removal.reader)
        self._removal = removal
        steps = (step for step in removal.plan.steps if step.action not in {REMOVE, "expire"})
        self._to_read = sum(step.detail["data_bytes"] for step in steps)

    def commit(self, run: RunContext, spec_id: int, removed: dict[str, DataFile], added: list[DataFile]) -> Committed:
        return self._removal.commit(run, spec_id, removed, added)


class KeepUnit(CompactionUnit):
    """Files of one partition are replaced by their rows that are kept."""

    def __init__(self, step: PlanStep, execution: _Rewriting, cutoff: Cutoff, members: Sequence[ManifestEntry]) -> None:
        self._cutoff = cutoff
        super().__init__(step, execution, members)

    def _rewrite_of(self, members: Sequence[ManifestEntry]) -> Rewrite:
        execution = self._execution
        self._keeping = KeepingRewrite(
            execution.table.io,
            self._sources(members),
            execution.schema,
            execution.options,
            self._location,
            with_checksum=execution.parameters.verify,
            deletions=Deletions.of(execution.state.table.metadata, execution.deletes, members),
            cutoff=self._cutoff,
        )
        return self._keeping

    def verify(self, run: RunContext) -> Verification | None:
        """Count again what is to be kept, and compare it with the replacement read back."""
        found = super().verify(run)
        if found is None:
            return None
        kept = self._keeping.count_kept(run)
        return Verification(
            method=f"{found.method}+time-column-read",
            rows_before=kept,
            rows_after=found.rows_after,
            checksum_equal=found.checksum_equal and not self._keeping.count_old_written(),
        )

    def commit(self, run: RunContext) -> UnitOutcome:
        """Swap the files in one snapshot."""
        outcome = super().commit(run)
        outcome.metrics.pop("groups", None)
        outcome.metrics |= {"rows_deleted": self._keeping.rows_old, **_left(self.step)}
        return outcome


class KeepingRewrite(FoldingRewrite):
    """A rewrite that leaves out deleted rows and old ones. The checksum is over the rows that are kept."""

    def __init__(
        self,
        io: FileIO,
        sources: Sequence[Source],
        schema: pa.Schema,
        options: WriteOptions,
        location: Callable[[str], str],
        *,
        with_checksum: bool,
        deletions: Deletions,
        cutoff: Cutoff,
    ) -> None:
        super().__init__(io, sources, schema, options, location, with_checksum=with_checksum, deletions=deletions)
        self._cutoff = cutoff
        self._position = next(index for index, field in enumerate(schema) if field_id(field) == cutoff.column.path[0])
        self.rows_old = 0

    def _pieces(self, reader: GroupReader, source: Source) -> Iterator[pa.Table]:
        for piece in super()._pieces(reader, source):
            mask = older(piece.column(self._position), self._cutoff)
            self.rows_old += int(mask.sum())
            kept = piece.filter(pa.array(~mask)) if mask.any() else piece
            if kept.num_rows:
                yield kept

    def count_kept(self, run: RunContext) -> int:
        """Rows to be kept, by reading only the time column of the files once more."""
        kept = 0
        deleted: DeletedRows = self._deleted
        for source in self._sources:
            run.check()
            kept += count_times(self._io, source.location, self._cutoff, deleted, mapping=self._mapping).kept
        return kept

    def count_old_written(self) -> int:
        """Old rows among those written: none."""
        return sum(count_times(self._io, written.location, self._cutoff).old for written in self.files)
