"""A compaction plan on the embedded engine: its groups as units that stage, verify and commit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pyiceberg.io.pyarrow import (
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestEntry
from pyiceberg.partitioning import PartitionKey
from pyiceberg.table import Table

from aurum_orchestration.errors import CorruptTableError, StateDriftedError, VerificationError
from aurum_orchestration.maintenance.backends.iceberg.arrow_types import arrow_schema
from aurum_orchestration.maintenance.backends.iceberg.commit import Replacement, commit_replace, delete_quietly
from aurum_orchestration.maintenance.backends.iceberg.compact.column_metrics import metrics_plan
from aurum_orchestration.maintenance.backends.iceberg.compact.constants import constants_of
from aurum_orchestration.maintenance.backends.iceberg.compact.copy import CopyingRewrite
from aurum_orchestration.maintenance.backends.iceberg.compact.deletes import DeleteIndex, NamedPaths
from aurum_orchestration.maintenance.backends.iceberg.compact.fold import Deletions, FoldingRewrite
from aurum_orchestration.maintenance.backends.iceberg.compact.name_mapping import mapping_of
from aurum_orchestration.maintenance.backends.iceberg.compact.ordering import ordering_of
from aurum_orchestration.maintenance.backends.iceberg.compact.rewrite import Rewrite, Source
from aurum_orchestration.maintenance.backends.iceberg.compact.sort import SortedRewrite
from aurum_orchestration.maintenance.backends.iceberg.compact.state import TableState
from aurum_orchestration.maintenance.backends.iceberg.compact.writer import WriteOptions, WrittenFile
from aurum_orchestration.maintenance.backends.iceberg.entries import EntryReader, schema_for
from aurum_orchestration.maintenance.backends.iceberg.failures import writing
from aurum_orchestration.maintenance.backends.iceberg.publish import Committed
from aurum_orchestration.maintenance.backends.iceberg.rollback import OPERATION_ID, undo_data, undo_text
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
    Verification,
)
from aurum_orchestration.maintenance.operations.compaction import MIB, CompactionParameters

if TYPE_CHECKING:
    from pyiceberg.typedef import Record


MOST_PARTITIONS = 10_000
"""Partitions that the rows of one group may fall into, unless an operation says otherwise."""


class CompactionExecution:
    """The units of a compaction plan. ``state`` is the table as it is now, which may be later than the plan."""

    def __init__(self, plan: MaintenancePlan, state: TableState, reader: EntryReader) -> None:
        self.plan, self.state, self.reader = plan, state, reader
        self.parameters = CompactionParameters.model_validate(plan.parameters)
        self.workers = self.parameters.max_concurrent_groups
        self.table = state.table
        self.schema = arrow_schema(state.table.schema())
        self.options = WriteOptions.of(
            state.table.metadata.properties, self.parameters.target_file_size_mb * MIB, state.table.schema()
        )
        self.ordering = ordering_of(state.table.metadata, self.parameters)
        self.mapping = mapping_of(state.table.metadata.properties)
        self.names = NamedPaths(state.table.io)
        self.deletes = DeleteIndex(state.deletes, state.table.metadata.specs(), self.names)
        self.max_partitions = MOST_PARTITIONS
        self.plan_id = plan.plan_id
        self.summary: dict[str, str] = {}
        self._read, self._to_read = 0, sum(step.detail["bytes"] for step in plan.steps)
        self._reading = threading.Lock()

    def units(self) -> Iterator[Unit]:
        """One unit per group. Raises StateDriftedError when the table no longer fits the plan."""
        from aurum_orchestration.maintenance.backends.iceberg.compact.respec import RespecUnit

        live = {item.data_file.file_path: item for item in self.state.data}
        self._refuse_drift(live)
        for step in self.plan.steps:
            if step.action == "drop_deletes":
                yield DropDeletesUnit(step, self)
            else:
                members = [live[path] for path in step.detail["files"]]
                kind = CompactionUnit if members[0].data_file.spec_id == self.state.spec.spec_id else RespecUnit
                yield kind(step, self, members)

    def commit(self, run: RunContext, spec_id: int, removed: dict[str, DataFile], added: list[DataFile]) -> Committed:
        """Swap files in one snapshot. New ones count as old as the base: a newer equality delete applies to them."""
        base = self.state.snapshot
        if base is None:
            raise StateDriftedError("the table has no snapshot any more", table=self.plan.table)
        metadata = self.state.table.metadata
        done = commit_replace(
            self.table,
            base,
            Replacement(
                spec_id, removed, added, base.sequence_number if metadata.format_version > 1 else None, self.names
            ),
            self.reader,
            {OPERATION_ID: run.operation_id, "aurum.plan-id": self.plan_id, **self.summary},
        )
        self.table = done.table
        return done

    def before_staging(self, run: RunContext) -> None:
        """Called before a group is staged, which may have to wait for something."""

    def count_read(self, run: RunContext, size: int) -> None:
        """Tell the progress of all groups together; called from the threads that stage them."""
        with self._reading:
            self._read += size
            run.progress(self._read, self._to_read, "bytes")

    def _refuse_drift(self, live: Mapping[str, ManifestEntry]) -> None:
        now, then = self.state.fingerprint(), self.plan.fingerprint
        if now == then:
            return
        for key in ("table_uuid", "schema_id", "spec_id"):
            if now[key] != then[key]:
                raise StateDriftedError(f"{key} is {now[key]} now, {then[key]} when planned", table=self.plan.table)
        planned = [path for step in self.plan.steps for path in step.detail["files"]]
        gone = [path for path in planned if path not in live]
        if gone:
            raise StateDriftedError(
                f"{len(gone)} of {len(planned)} planned files are gone at snapshot {now['snapshot_id']}, "
                f"e.g. {gone[0]}",
                table=self.plan.table,
            )


class CompactionUnit(Unit):
    """One group: its files are replaced by few, in one ``replace`` snapshot."""

    fenced = True

    def __init__(self, step: PlanStep, execution: CompactionExecution, members: Sequence[ManifestEntry]) -> None:
        super().__init__(step)
        self._execution = execution
        self._removed = {item.data_file.file_path: item.data_file for item in members}
        self._first = members[0].data_file
        self._rewrite = self._rewrite_of(members)

    def _rewrite_of(self, members: Sequence[ManifestEntry]) -> Rewrite:
        """How the group is rewritten."""
        return self._plain(members, self._location)

    def _sources(self, members: Sequence[ManifestEntry]) -> list[Source]:
        mapping, metadata = self._execution.mapping, self._execution.state.table.metadata
        return [
            Source(
                file.file_path,
                file.file_size_in_bytes,
                file.record_count,
                mapping,
                constants_of(metadata, file),
            )
            for file in (item.data_file for item in members)
        ]

    def _plain(self, members: Sequence[ManifestEntry], location: Callable[[str], str]) -> Rewrite:
        """Into one partition: with deletes folded in, with row groups copied, or plainly."""
        execution = self._execution
        sources = self._sources(members)
        given = (execution.table.io, sources, execution.schema, execution.options, location)
        verify = execution.parameters.verify
        metadata = execution.state.table.metadata
        found = Deletions.of(metadata, execution.deletes, members)
        if execution.ordering is not None:
            return SortedRewrite(
                *given,
                with_checksum=verify,
                deletions=found,
                ordering=execution.ordering,
                workers=execution.workers,
            )
        if execution.parameters.row_group_copy and CopyingRewrite.may_pay(sources, execution.options):
            return CopyingRewrite(*given, with_checksum=verify, deletions=found)
        if found.applied:
            return FoldingRewrite(*given, with_checksum=verify, deletions=found)
        alone = len(execution.plan.steps) == 1 and execution.workers > 1
        return Rewrite(*given, with_checksum=verify, ahead=alone)

    def stage(self, run: RunContext) -> None:
        """Write the replacement files."""
        self._execution.before_staging(run)
        with writing("a replacement file"):
            self._rewrite.run(run, partial(self._execution.count_read, run))

    def verify(self, run: RunContext) -> Verification | None:
        """Read the replacement back; None when the parameters say not to."""
        if not self._execution.parameters.verify:
            return None
        try:
            before, after = self._rewrite.before, self._rewrite.read_back(run)
        except CorruptTableError as error:
            raise VerificationError(f"what was written cannot be read back: {error.detail}") from error
        recorded = sum(file.record_count for file in self._removed.values())
        return Verification(
            method=self._rewrite.method,
            rows_before=recorded - self._rewrite.rows_folded,
            rows_after=after.rows,
            checksum_equal=before == after,
        )

    def commit(self, run: RunContext) -> UnitOutcome:
        """Swap the files in one snapshot."""
        # described by the schema they were written with: meanwhile columns may have been renamed
        ordering = self._execution.ordering
        order_id = ordering.order_id if ordering is not None else None
        added = [
            _data_file(self._execution.state.table, written, self._partition_of(written), order_id)
            for written in self._rewrite.files
        ]
        done = self._execution.commit(run, self._first.spec_id, self._removed, added)
        return UnitOutcome(
            metrics={
                "groups": 1,
                "files_rewritten": len(self._removed),
                "files_added": len(added),
                "bytes_rewritten": sum(file.file_size_in_bytes for file in self._removed.values()),
                "bytes_added": sum(file.file_size_in_bytes for file in added),
                "rows_rewritten": sum(file.record_count for file in added),
                "commit_retries": done.retries,
                **self._rewrite.metrics(),
                **({"deleted_rows_folded": self._rewrite.rows_folded} if self._execution.state.deletes else {}),
                **_dropped(done),
            },
            undo=undo_text(run.operation_id, done),
            undo_data=undo_data(done),
        )

    def discard(self) -> None:
        """Delete the files written; nothing references them."""
        for location in self._rewrite.locations:
            delete_quietly(self._execution.table, location)

    def _partition_of(self, written: WrittenFile) -> tuple[int, Record]:  # noqa: ARG002 - others depend on it
        """Partition spec and partition of a written file: those of what it replaces."""
        return self._first.spec_id, self._first.partition

    def _location(self, name: str) -> str:
        return location_in(self._execution.state.table, name, self._first.spec_id, self._first.partition)


class DropDeletesUnit(Unit):
    """Delete files that touch no data file any more leave the table; no data file changes."""

    def __init__(self, step: PlanStep, execution: CompactionExecution) -> None:
        super().__init__(step)
        self._execution = execution

    def stage(self, run: RunContext) -> None:
        """Nothing is written before the commit."""

    def verify(self, run: RunContext) -> Verification | None:  # noqa: ARG002
        """There are no rows to compare."""
        return None

    def commit(self, run: RunContext) -> UnitOutcome:
        """Drop what the head does not need."""
        done = self._execution.commit(run, self._execution.state.spec.spec_id, {}, [])
        return UnitOutcome(
            metrics={"commit_retries": done.retries, **_dropped(done)},
            undo=undo_text(run.operation_id, done),
            undo_data=undo_data(done),
        )

    def discard(self) -> None:
        """Nothing to remove."""


def _dropped(done: Committed) -> dict[str, float]:
    """How many delete files a commit dropped, as its snapshot says; nothing when none."""
    snapshot = done.table.metadata.snapshot_by_id(done.snapshot_id)
    told = snapshot.summary.additional_properties if snapshot and snapshot.summary else {}
    removed = int(told.get("removed-delete-files", 0))
    return {"delete_files_removed": removed} if removed else {}


def location_in(table: Table, name: str, spec_id: int, partition: Record) -> str:
    """Where a data file of that name goes."""
    metadata = table.metadata
    spec = metadata.specs()[spec_id]
    key = _Partition(partition, spec.partition_to_path(partition, schema_for(metadata, spec)))
    return table.location_provider().new_data_location(name, key if spec.fields else None)


class _Partition(PartitionKey):
    """A partition whose values are known as they stand in manifests, for making locations."""

    def __init__(self, record: Record, path: str) -> None:
        object.__setattr__(self, "record", record)
        object.__setattr__(self, "path", path)

    def to_path(self) -> str:
        return str(self.__dict__["path"])


def _data_file(table: Table, written: WrittenFile, where: tuple[int, Record], order_id: int | None) -> DataFile:
    """The manifest's description of a written file: its partition spec and partition, metrics from its footer."""
    spec_id, partition = where
    schema = table.schema()
    statistics = data_file_statistics_from_parquet_metadata(
        parquet_metadata=written.metadata,
        stats_columns=metrics_plan(schema, table.metadata.properties),
        parquet_column_mapping=parquet_path_to_id_mapping(schema),
    )
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=written.location,
        file_format=FileFormat.PARQUET,
        partition=partition,
        file_size_in_bytes=written.bytes,
        sort_order_id=order_id,
        spec_id=spec_id,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )
    file.spec_id = spec_id
    return file
