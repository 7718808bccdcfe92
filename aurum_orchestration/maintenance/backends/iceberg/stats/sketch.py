"""Distinct values of every row that lives, kept as table statistics: a Puffin file of theta sketches.

What could go wrong, and what prevents it:

* planners are told what is not so: all rows of the snapshot are read, without those that delete files hide, and
  counted against its manifests; the file is read back before it is attached, and only to that snapshot;
* statistics of others are lost: what an older file of the same snapshot says besides is carried over;
* a file is left behind: it is deleted when the commit fails; after a kill nothing refers to it, so vacuum takes it;
* memory: columns of bounded pieces of a file are read, and a sketch has a bounded number of hashes.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import FileFormat, ManifestEntry
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.statistics import StatisticsFile
from pyiceberg.table.update import SetStatisticsUpdate, TableRequirement, ValidatableTableRequirement
from pyiceberg.types import PrimitiveType

from aurum_orchestration.errors import AurumError, StateDriftedError
from aurum_orchestration.maintenance.backends.iceberg.arrow_types import arrow_schema, conform
from aurum_orchestration.maintenance.backends.iceberg.compact.constants import constants_of
from aurum_orchestration.maintenance.backends.iceberg.compact.deletes import DeleteIndex, NamedPaths, is_readable
from aurum_orchestration.maintenance.backends.iceberg.compact.fold import Deletions, FoldingRewrite
from aurum_orchestration.maintenance.backends.iceberg.compact.name_mapping import mapping_of
from aurum_orchestration.maintenance.backends.iceberg.compact.reader import GroupReader
from aurum_orchestration.maintenance.backends.iceberg.compact.rewrite import Source
from aurum_orchestration.maintenance.backends.iceberg.compact.state import TableState, read_state
from aurum_orchestration.maintenance.backends.iceberg.compact.writer import WriteOptions
from aurum_orchestration.maintenance.backends.iceberg.entries import EntryReader
from aurum_orchestration.maintenance.backends.iceberg.failures import writing
from aurum_orchestration.maintenance.backends.iceberg.files import Files
from aurum_orchestration.maintenance.backends.iceberg.publish import commit_updates, delete_quietly, reload
from aurum_orchestration.maintenance.backends.iceberg.stats.puffin import (
    NDV,
    THETA,
    Blob,
    counted,
    read,
    statistics_file,
    write,
)
from aurum_orchestration.maintenance.backends.iceberg.stats.theta import ThetaSketch
from aurum_orchestration.maintenance.backends.iceberg.stats.values import has_bytes, packed
from aurum_orchestration.maintenance.interfaces import PlanStep, RunContext, Unit, UnitOutcome, Verification

METHOD = "row-count+puffin-read-back"
ACTION = "sketch"

_FINE, _COARSE, _MOST_FINE = 14, 12, 256
"""Logarithm of the hashes that a sketch keeps (an error of 0.8 % or of 1.6 %); up to so many columns get the finer."""

_FILES_AT_ONCE = 256
"""Files whose deleted rows are held together, a bit each."""

_RISK = "None for rows: no data file changes. Readers that plan by statistics see the new ones."


def sketchable(table: Table, names: Sequence[str]) -> dict[int, str]:
    """The columns, by id, that a sketch can be made of: top-level ones with values that have bytes."""
    return {
        one.field_id: one.name
        for one in table.schema().fields
        if one.name in names and isinstance(one.field_type, PrimitiveType) and has_bytes(one.field_type)
    }


def statistics_of(metadata: TableMetadata, snapshot_id: int) -> StatisticsFile | None:
    """The statistics file of a snapshot."""
    return next((file for file in metadata.statistics if file.snapshot_id == snapshot_id), None)


def sketch_step(table: Table, snapshot: Snapshot, columns: Mapping[int, str], number: int) -> PlanStep | None:
    """The step that counts the distinct values of columns; None when they are told already."""
    if not columns.keys() - counted(statistics_of(table.metadata, snapshot.snapshot_id)):
        return None
    return PlanStep(
        number=number,
        action=ACTION,
        summary=f"Read all rows, and attach the distinct values of {len(columns):,} columns to snapshot "
        f"{snapshot.snapshot_id} as theta sketches.",
        risk=_RISK,
        detail={"snapshot_id": snapshot.snapshot_id, "columns": {str(id_): name for id_, name in columns.items()}},
    )


def unreadable(state: TableState) -> str | None:
    """Why the rows that live cannot be told; None when they can."""
    others = [one for one in state.data if one.data_file.file_format is not FileFormat.PARQUET]
    if others:
        return f"{len(others):,} data files are not Parquet"
    deletes = [one for one in state.deletes if not is_readable(one)]
    return f"{len(deletes):,} delete files cannot be read here" if deletes else None


class LivingRows(FoldingRewrite):
    """Reads some columns of files, without the rows that delete files hide; nothing is written."""

    def __init__(self, table: Table, schema: pa.Schema, deletes: DeleteIndex, members: Sequence[ManifestEntry]) -> None:
        metadata = table.metadata
        mapping = mapping_of(metadata.properties)
        sources = [
            Source(file.file_path, file.file_size_in_bytes, file.record_count, mapping, constants_of(metadata, file))
            for file in (item.data_file for item in members)
        ]
        super().__init__(
            table.io,
            sources,
            schema,
            WriteOptions.of({}, 1, table.schema()),
            lambda name: name,
            with_checksum=False,
            deletions=Deletions.of(metadata, deletes, members),
        )

    def pieces(self, run: RunContext) -> Iterator[pa.Table]:
        """The rows, in pieces of bounded size."""
        self._prepare(run)
        reader = GroupReader(self._io, self._schema, self._mapping, prune=True)
        for source in self._sources:
            run.check()
            yield from self._pieces(reader, source)

    @property
    def rows(self) -> int:
        """How many rows there have to be, once they are read."""
        return sum(source.rows for source in self._sources)


class SketchUnit(Unit):
    """Counts distinct values of a snapshot and attaches them to it."""

    def __init__(self, step: PlanStep, table: Table) -> None:
        super().__init__(step)
        self._table = table
        self._snapshot_id: int = step.detail["snapshot_id"]
        self._columns = {int(id_): str(name) for id_, name in step.detail["columns"].items()}
        self._before = statistics_of(table.metadata, self._snapshot_id)
        self._blobs: list[Blob] = []
        self._location: str | None = None
        self._sizes = (0, 0)
        self._expected = self._seen = 0
        self._warnings: list[str] = []

    def stage(self, run: RunContext) -> None:
        """Read the rows and write the file. Raises StateDriftedError when the columns are not what they were."""
        if sketchable(self._table, list(self._columns.values())) != self._columns:
            raise StateDriftedError("columns whose values were to be counted have changed")
        snapshot = _existing(self._table.metadata, self._snapshot_id)
        # all sketches together have to fit into memory, also those of a wide table
        lg_k = _FINE if len(self._columns) <= _MOST_FINE else _COARSE
        sketches = {id_: ThetaSketch(lg_k) for id_ in self._columns}
        self._count(sketches, snapshot, run)
        number = snapshot.sequence_number or 0
        self._blobs = [
            Blob(THETA, [id_], self._snapshot_id, number, sketch.compact(), {NDV: str(sketch.estimate)})
            for id_, sketch in sketches.items()
        ] + self._carried_over()
        content, footer = write(self._blobs)
        self._sizes = len(content), footer
        self._location = self._table.location_provider().new_metadata_location(
            f"{self._snapshot_id}-{uuid.uuid4()}.stats"
        )
        with writing("a statistics file"), self._table.io.new_output(self._location).create() as stream:
            stream.write(content)
        told = {self._columns[id_]: sketch.estimate for id_, sketch in sketches.items()}
        self.step = self.step.model_copy(update={"detail": {**self.step.detail, "distinct": told}})

    def _count(self, sketches: Mapping[int, ThetaSketch], snapshot: Snapshot, run: RunContext) -> None:
        table = self._table
        state = read_state(table, EntryReader(table.io), snapshot)
        deletes = DeleteIndex(state.deletes, table.metadata.specs(), NamedPaths(table.io))
        kinds = {one.field_id: one.field_type for one in table.schema().fields}
        fields = dict(zip((one.field_id for one in table.schema().fields), arrow_schema(table.schema()), strict=True))
        schema = pa.schema([fields[id_] for id_ in sketches])
        self._expected = self._seen = 0
        total = sum(item.data_file.record_count for item in state.data)
        for start in range(0, len(state.data), _FILES_AT_ONCE):
            living = LivingRows(table, schema, deletes, state.data[start : start + _FILES_AT_ONCE])
            for piece in living.pieces(run):
                for (id_, sketch), column in zip(sketches.items(), piece.columns, strict=True):
                    for values in packed(conform(column, fields[id_]), kinds[id_]):
                        sketch.add(values)
                self._seen += piece.num_rows
                run.progress(self._seen, total, "rows")
            self._expected += living.rows

    def _carried_over(self) -> list[Blob]:
        """What the snapshot's statistics say of other columns, or in other ways."""
        if self._before is None:
            return []
        try:
            blobs = read(Files(self._table.io.properties, self._table.io).read(self._before.statistics_path))
        except (ValueError, AurumError) as error:
            self._warnings = [f"older statistics of the snapshot are not carried over, they cannot be read: {error}"]
            return []
        return [blob for blob in blobs if blob.kind != THETA or {*blob.fields}.isdisjoint(self._columns)]

    def verify(self, run: RunContext) -> Verification | None:  # noqa: ARG002 - the base's signature
        """Compare the file with what was to be written, and the rows read with those of the manifests."""
        found = read(Files(self._table.io.properties, self._table.io).read(str(self._location)))
        return Verification(
            method=METHOD,
            rows_before=self._expected,
            rows_after=self._seen,
            checksum_equal=found == self._blobs,
        )

    def commit(self, run: RunContext) -> UnitOutcome:
        """Attach the file to the snapshot, which must not have expired."""
        self._table = reload(self._table)
        _existing(self._table.metadata, self._snapshot_id)
        before = statistics_of(self._table.metadata, self._snapshot_id)
        path = str(self._location)
        statistics = statistics_file(self._snapshot_id, path, self._blobs, *self._sizes)
        set_statistics(self._table, statistics)
        return UnitOutcome(
            metrics={"columns_counted": len(self._columns), "statistics_bytes": self._sizes[0]},
            undo=f"aurum undo {run.operation_id}: the snapshot's statistics are again what they were before",
            undo_data={
                "snapshot_id": self._snapshot_id,
                "statistics_path": path,
                "before": before.model_dump(mode="json", by_alias=True) if before else None,
            },
            warnings=self._warnings,
        )

    def discard(self) -> None:
        """Delete the file; nothing refers to it."""
        if self._location is not None:
            delete_quietly(self._table, self._location)


class SnapshotStays(ValidatableTableRequirement):
    """The snapshot has not expired. Checked by PyIceberg on the metadata that it replaces."""

    type: str = "aurum-snapshot-stays"
    snapshot_id: int

    def validate(self, base_metadata: TableMetadata | None) -> None:  # type: ignore[override] # as PyIceberg names it
        """Raise CommitFailedException when it has."""
        if base_metadata is None or base_metadata.snapshot_by_id(self.snapshot_id) is None:
            raise CommitFailedException(f"Requirement failed: snapshot {self.snapshot_id} expired concurrently")


def set_statistics(table: Table, statistics: StatisticsFile) -> Table:
    """Commit a statistics file of a snapshot in place of the one it has."""
    path, needed = statistics.statistics_path, list[TableRequirement]()
    if isinstance(table.catalog, MetastoreCatalog):
        needed.append(SnapshotStays(snapshot_id=statistics.snapshot_id))  # type: ignore[arg-type] # as above
    return commit_updates(
        table,
        needed,
        [SetStatisticsUpdate(statistics=statistics)],
        lambda now: any(file.statistics_path == path for file in now.statistics),
    )


def _existing(metadata: TableMetadata, snapshot_id: int) -> Snapshot:
    snapshot = metadata.snapshot_by_id(snapshot_id)
    if snapshot is None:
        raise StateDriftedError(f"snapshot {snapshot_id}, whose values were to be counted, has expired")
    return snapshot
