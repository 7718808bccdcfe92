"""The rewrite of files whose rows belong to several partitions of the current spec.

Rows are gathered up to a bounded number of bytes, put in order of their partitions (and of the sort order within
each), and written to a file per partition. Few files are open at a time: the one that waited longest is finished
when another is needed, and its partition gets a new one if more rows come.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
from pyiceberg.io import FileIO
from pyiceberg.typedef import Record

from aurum_orchestration.errors import UnsupportedError, VerificationError
from aurum_orchestration.maintenance.backends.iceberg.arrow_types import conform
from aurum_orchestration.maintenance.backends.iceberg.compact.fold import Deletions
from aurum_orchestration.maintenance.backends.iceberg.compact.ordering import Ordering
from aurum_orchestration.maintenance.backends.iceberg.compact.partitioning import Partitioner
from aurum_orchestration.maintenance.backends.iceberg.compact.reader import open_parquet, reading
from aurum_orchestration.maintenance.backends.iceberg.compact.rewrite import Source
from aurum_orchestration.maintenance.backends.iceberg.compact.sort import SortedRewrite, combined
from aurum_orchestration.maintenance.backends.iceberg.compact.writer import RollingWriter, WriteOptions, WrittenFile
from aurum_orchestration.maintenance.backends.iceberg.entries import values_key
from aurum_orchestration.maintenance.checksum import RowChecksum, checksum
from aurum_orchestration.maintenance.interfaces import RunContext

MOST_OPEN = 64
"""Files written at a time by one group."""

PartitionLocation = Callable[[str, Record], str]
"""Where a file of that name goes in that partition."""


class RepartitioningRewrite(SortedRewrite):
    """A rewrite that sends every row to its partition. Deleted rows are left out."""

    def __init__(
        self,
        io: FileIO,
        sources: Sequence[Source],
        schema: pa.Schema,
        options: WriteOptions,
        location: PartitionLocation,
        *,
        with_checksum: bool,
        deletions: Deletions,
        ordering: Ordering | None,
        workers: int,
        partitioner: Partitioner,
        max_partitions: int,
    ) -> None:
        super().__init__(
            io,
            sources,
            schema,
            options,
            lambda name: name,
            with_checksum=with_checksum,
            deletions=deletions,
            ordering=ordering or Ordering([]),
            workers=workers,
        )
        self._partitioner, self._most_partitions = partitioner, max_partitions
        self._sorted = ordering is not None
        self._fan = FanOut(io, schema, options, location)
        self._writer = self._fan

    @property
    def partitions(self) -> Mapping[str, Record]:
        """The partition of every file written, by its location."""
        return self._fan.partitions

    def _write_run(self, held: list[pa.Table], stored: float, run: RunContext) -> None:
        rows = sum(piece.num_rows for piece in held)
        if not rows:
            return
        columns = self._gathered(held)
        codes, partitions = self._partitioner.split(columns)
        self._fan.expect(partitions, self._most_partitions)
        order = self._order(columns) if self._sorted else np.arange(rows, dtype=np.int64)
        order = order[np.argsort(codes[order], kind="stable")]
        ends = np.cumsum(np.bincount(codes, minlength=len(partitions)))
        for partition, start, end in zip(partitions, [0, *ends.tolist()], ends.tolist(), strict=False):
            self._fan.turn_to(partition)
            self._write_ordered(columns, order[start:end], stored / rows, run)
        if self._sorted:
            self._fan.finish_open()  # what comes next is in an order of its own

    def read_back(self, run: RunContext) -> RowChecksum:
        """Rows and checksum of the files, and that every row is in the partition its file says.

        Raises VerificationError when one is not.
        """
        after = RowChecksum()
        for written in self.files:
            with reading(written.location), open_parquet(self._io, written.location, written.dictionaries) as file:
                for group in range(file.metadata.num_row_groups):
                    run.check()
                    rows = file.read_row_group(group, use_threads=False)
                    after += checksum(rows, self._schema)
                    self._require(written, rows)
        return after

    def _require(self, written: WrittenFile, rows: pa.Table) -> None:
        columns = [combined(conform(rows.column(index), field)) for index, field in enumerate(self._schema)]
        expected = self.partitions[written.location]
        for found in self._partitioner.split(columns)[1]:
            if values_key(found) != values_key(expected):
                raise VerificationError(f"rows of partition {found} were written to {written.location} of {expected}")


class FanOut(RollingWriter):
    """Writers of many partitions that look like one; rows go to the partition last turned to."""

    def __init__(self, io: FileIO, schema: pa.Schema, options: WriteOptions, location: PartitionLocation) -> None:
        super().__init__(io, schema, options, lambda name: name)
        self._place = location
        self._writers: dict[str, RollingWriter] = {}
        self._records: dict[str, Record] = {}
        self._open: OrderedDict[str, RollingWriter] = OrderedDict()
        self.partitions: dict[str, Record] = {}

    def expect(self, partitions: Sequence[Record], most: int) -> None:
        """Count partitions. Raises UnsupportedError when there are more than ``most`` of them."""
        for record in partitions:
            self._records.setdefault(values_key(record), record)
        if len(self._records) > most:
            raise UnsupportedError(
                f"the rows of one group fall into more than {most:,} partitions",
                hint="Choose a coarser spec, or raise max_partitions.",
            )

    def turn_to(self, partition: Record) -> None:
        """Let the rows that come next go to that partition."""
        key = values_key(partition)
        if key not in self._writers:
            self._writers[key] = RollingWriter(self._io, self._schema, self._options, lambda name: self._at(name, key))
        self._open[key] = self._writers[key]
        self._open.move_to_end(key)
        if len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)[1].close()

    def write(self, table: pa.Table, remaining_share: float) -> None:
        """Write one row group; of what is still to come, the partition is taken to get the share it had so far."""
        next(reversed(self._open.values())).write(table, remaining_share)

    def finish_open(self) -> None:
        """Finish every file that is open."""
        while self._open:
            self._open.popitem()[1].close()

    def close(self) -> None:
        """Finish every file."""
        self.finish_open()
        self.files = [file for writer in self._writers.values() for file in writer.files]

    def abandon(self) -> None:
        """Close what is open without finishing it."""
        for writer in self._open.values():
            writer.abandon()

    def _at(self, name: str, key: str) -> str:
        # writers number their own files only
        _, _, rest = name.partition("-")
        location = self._place(f"{len(self.locations):05d}-{rest}", self._records[key])
        self.locations.append(location)
        self.partitions[location] = self._records[key]
        return location
