"""The rewrite of one group of files with its rows in order, without those that delete files take out.

Memory is bounded: rows are gathered up to a share of :data:`SORT_BYTES`, sorted, and written; a group that is larger
comes out as several runs, each sorted by itself and in files of its own, so that a file is always in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import FileIO

from aurum_orchestration.maintenance.backends.iceberg.compact.fold import Deletions, FoldingRewrite
from aurum_orchestration.maintenance.backends.iceberg.compact.ordering import Ordering
from aurum_orchestration.maintenance.backends.iceberg.compact.reader import GroupReader
from aurum_orchestration.maintenance.backends.iceberg.compact.rewrite import RowGroup, Source, assemble, same_types
from aurum_orchestration.maintenance.backends.iceberg.compact.writer import WriteOptions
from aurum_orchestration.maintenance.checksum import RowChecksum, checksum
from aurum_orchestration.maintenance.interfaces import RunContext

SORT_BYTES = 512 * 1024 * 1024
"""Rows held for sorting by all groups that are rewritten at the same time, as they are in memory."""


class SortedRewrite(FoldingRewrite):
    """A rewrite that puts the rows in order, stably. What is read and what is written compare as multisets."""

    method = "row-count+multiset-checksum"

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
        ordering: Ordering,
        workers: int,
    ) -> None:
        super().__init__(io, sources, schema, options, location, with_checksum=with_checksum, deletions=deletions)
        self._ordering = ordering
        self._most = max(SORT_BYTES // workers, options.row_group_bytes)
        self._done = 0.0

    def run(self, run: RunContext, on_read: Callable[[int], None] = lambda _: None) -> None:
        """Read everything and write it in order."""
        sizes = self._prepare(run)
        reader = GroupReader(self._io, self._schema, self._mapping)
        held: list[pa.Table] = []
        memory, stored = 0, 0.0
        try:
            for source, size in zip(self._sources, sizes, strict=True):
                run.check()
                for piece in self._pieces(reader, source):
                    if held and memory + piece.nbytes > self._most:
                        self._write_run(held, stored, run)
                        held, memory, stored = [], 0, 0.0
                    held.append(piece)
                    memory += piece.nbytes
                    stored += piece.num_rows * source.bytes / max(source.rows, 1)
                on_read(size)
            if held:
                self._write_run(held, stored, run)
            self._writer.close()
        except BaseException:
            self._writer.abandon()
            raise

    def _write_run(self, held: list[pa.Table], stored: float, run: RunContext) -> None:
        """Sort and write what is held, and let go of it on the way."""
        rows = sum(piece.num_rows for piece in held)
        if not rows:
            return
        columns = self._gathered(held)
        self._write_ordered(columns, self._order(columns), stored / rows, run)
        if self._decoded - self._done > 1:
            self._writer.close()  # what comes next is in an order of its own

    def _gathered(self, held: list[pa.Table]) -> list[pa.Array]:
        """What is held as an array per column, its checksum taken; ``held`` is empty then."""
        if self._with_checksum:
            # summed within one expression: a name left over would hold the rows twice later on
            self.before = sum((checksum(part, self._schema) for part in same_types(held)), self.before)
        else:
            self.before += RowChecksum(sum(piece.num_rows for piece in held), 0)
        parts = [[piece.column(index) for piece in held] for index in range(len(self._schema))]
        held.clear()
        columns: list[pa.Array] = []
        for index, field in enumerate(self._schema):
            columns.append(combined(assemble(parts[index], field)))
            parts[index].clear()
        pa.default_memory_pool().release_unused()
        return columns

    def _order(self, columns: Sequence[pa.Array]) -> npt.NDArray[np.int64]:
        """The rows in the order in which they are written."""
        return self._ordering.permutation(columns)

    def _write_ordered(
        self, columns: Sequence[pa.Array], order: npt.NDArray[np.int64], stored: float, run: RunContext
    ) -> None:
        """Write the rows at ``order``, which take so many bytes each on storage, in row groups of about one size."""
        rows = len(order)
        memory = sum(column.nbytes for column in columns) / len(columns[0])
        most = max(1, RowGroup().room(self._options, memory, stored))
        step = -(-rows // -(-rows // most))
        for start in range(0, rows, step):
            run.check()
            chosen = order[start : start + step]
            self._done += len(chosen) * stored
            table = pa.table([_taken(column, chosen) for column in columns], names=self._schema.names)
            self._writer.write(table, max(self._decoded - self._done, 0) / max(self._done, 1))

    def _checksum(self, file: pq.ParquetFile, number: int, position: int) -> RowChecksum:  # noqa: ARG002
        return checksum(file.read_row_group(number, use_threads=False), self._schema)


def combined(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    made = column.combine_chunks()
    return made.combine_chunks() if isinstance(made, pa.ChunkedArray) else made


def _taken(column: pa.Array, order: npt.NDArray[np.int64]) -> pa.Array:
    """The rows at ``order``; of a dictionary only the values that they use."""
    taken = column.take(pa.array(order))
    if not pa.types.is_dictionary(taken.type) or not len(taken.dictionary):
        return taken
    indices = taken.indices.fill_null(0).to_numpy()
    used = np.zeros(len(taken.dictionary), np.bool_)
    used[indices] = True
    if used.all():
        return taken
    codes = (np.cumsum(used) - 1).astype(np.int32)[indices]
    null = taken.is_null().to_numpy(zero_copy_only=False) if taken.null_count else None
    return pa.DictionaryArray.from_arrays(
        pa.array(codes, mask=null), taken.dictionary.take(pa.array(np.flatnonzero(used)))
    )
