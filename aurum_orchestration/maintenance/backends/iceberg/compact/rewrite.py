"""One group: read its files, checksum what was read, write the replacement; later read that back.

Memory is bounded by one row group being filled and one being written, whatever the files' sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.table.name_mapping import NameMapping

from aurum_orchestration.maintenance.backends.iceberg.arrow_types import conform
from aurum_orchestration.maintenance.backends.iceberg.compact.constants import Constants
from aurum_orchestration.maintenance.backends.iceberg.compact.reader import GroupReader, open_parquet, reading
from aurum_orchestration.maintenance.backends.iceberg.compact.writer import RollingWriter, WriteOptions, WrittenFile
from aurum_orchestration.maintenance.checksum import RowChecksum
from aurum_orchestration.maintenance.interfaces import RunContext
from aurum_orchestration.maintenance.row_sequence import columns_as_bytes, sequence_checksum

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.iceberg.compact.assemble import Assembler


@dataclass(frozen=True, slots=True)
class Source:
    """A data file to be replaced.

    ``mapping`` tells its columns when it has no field ids, ``constants`` those that only its partition tells.
    """

    location: str
    bytes: int
    rows: int
    mapping: NameMapping | None = None
    constants: Constants = field(default_factory=dict)


class Rewrite:
    """The rewrite of one group of files into a :class:`RollingWriter`.

    With ``ahead`` a row group is digested and written in a second thread while the next one is read. That takes
    the memory of one more row group: it is for a group that has no others beside it.
    """

    method = "row-count+sequence-digest"
    """How :meth:`read_back` compares: row group by row group, whose rows stand in the order in which they were read."""

    def __init__(
        self,
        io: FileIO,
        sources: Sequence[Source],
        schema: pa.Schema,
        options: WriteOptions,
        location: Callable[[str], str],
        *,
        with_checksum: bool,
        ahead: bool = False,
    ) -> None:
        self._io, self._sources, self._schema, self._options = io, sources, schema, options
        self._with_checksum = with_checksum
        self._behind = _Behind() if ahead else None
        self._mapping = sources[0].mapping if sources else None
        self._total = sum(source.bytes for source in sources) or 1
        self._decoded: float = self._total
        self._writer: RollingWriter | Assembler = RollingWriter(io, schema, options, location)
        self._as_bytes: list[frozenset[int]] = []
        self.before = RowChecksum()
        self.rows_folded = 0

    @property
    def files(self) -> Sequence[WrittenFile]:
        """The files written so far."""
        return self._writer.files

    @property
    def locations(self) -> list[str]:
        """Every file begun, finished or not: what a discard must delete."""
        return self._writer.locations

    def run(self, run: RunContext, on_read: Callable[[int], None] = lambda _: None) -> None:
        """Read everything and write the replacement. ``on_read`` is told the bytes of each file read."""
        reader = GroupReader(self._io, self._schema, self._mapping)
        group = RowGroup()
        done = 0.0
        try:
            for source in self._sources:
                run.check()
                stored = source.bytes / max(source.rows, 1)
                for piece in self._pieces(reader, source):
                    memory = piece.nbytes / max(piece.num_rows, 1)
                    start = 0
                    while start < piece.num_rows:
                        room = group.room(self._options, memory, stored)
                        if room < 1 and group.pieces:
                            self._hand_over(group.pieces, done)
                            group = RowGroup()
                            continue
                        part = piece.slice(start, max(room, 1))
                        group.add(part, memory, stored)
                        start += part.num_rows
                        done += part.num_rows * stored
                on_read(source.bytes)
            if group.pieces:
                self._hand_over(group.pieces, done)
            if self._behind is not None:
                self._behind.close()
            self._writer.close()
        except BaseException:
            if self._behind is not None:
                self._behind.abandon()
            self._writer.abandon()
            raise

    def _hand_over(self, pieces: list[pa.Table], done: float) -> None:
        """Write a row group, behind the reading of the next one if that is wanted."""
        if self._behind is None:
            self._flush(pieces, done)
        else:
            self._behind.do(lambda: self._flush(pieces, done))

    def _pieces(self, reader: GroupReader, source: Source) -> Iterator[pa.Table]:
        """The rows of a source that have to be decoded."""
        yield from reader.pieces(source.location, self._options.row_group_bytes, constants=source.constants)

    def _flush(self, pieces: list[pa.Table], done: float) -> None:
        columns = [
            assemble([piece.column(index) for piece in pieces], field) for index, field in enumerate(self._schema)
        ]
        if self._with_checksum:
            as_bytes = columns_as_bytes(pieces)
            self._as_bytes.append(as_bytes)
            parts = ([piece.column(index) for piece in pieces] for index in range(len(self._schema)))
            self.before += sequence_checksum(parts, self._schema, as_bytes)
        else:
            self.before += RowChecksum(sum(piece.num_rows for piece in pieces), 0)
        self._writer.write(pa.table(columns, names=self._schema.names), max(self._decoded - done, 0) / max(done, 1))

    def read_back(self, run: RunContext) -> RowChecksum:
        """Rows and checksum of the replacement, read from storage with a reader opened anew."""
        after, groups = RowChecksum(), 0
        for written in self.files:
            with reading(written.location), open_parquet(self._io, written.location, written.dictionaries) as file:
                for number in self._encoded(written, file.metadata.num_row_groups):
                    run.check()
                    after += self._checksum(file, number, groups)
                    groups += 1
        return after

    def _encoded(self, written: WrittenFile, count: int) -> Sequence[int]:  # noqa: ARG002
        """Which of a file's row groups were encoded."""
        return range(count)

    def _checksum(self, file: pq.ParquetFile, number: int, position: int) -> RowChecksum:
        """The checksum of row group ``number`` of a file; of all encoded ones it is the one at ``position``."""
        as_bytes = self._as_bytes[position] if position < len(self._as_bytes) else frozenset()
        return sequence_checksum(([column] for column in columns_of(file, number)), self._schema, as_bytes)

    def metrics(self) -> dict[str, float]:
        """What this way of rewriting counts besides files and rows."""
        return {}


class _Behind:
    """Does one thing at a time in a thread of its own, while its user goes on with the next."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="row-group")
        self._doing: Future[None] | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Begin ``work`` once what was begun before is done. Raises what that raised."""
        self._wait()
        self._doing = self._pool.submit(work)

    def close(self) -> None:
        """Wait for the last. Raises what it raised."""
        self._wait()
        self._pool.shutdown()

    def abandon(self) -> None:
        """Wait for the last, whatever becomes of it."""
        self._pool.shutdown()

    def _wait(self) -> None:
        doing, self._doing = self._doing, None
        if doing is not None:
            doing.result()


def columns_of(file: pq.ParquetFile, number: int) -> Iterator[pa.ChunkedArray]:
    """The columns of a row group, one read after the other: whole row groups come from memory that is new each time."""
    names = file.schema_arrow.names
    if any("." in name for name in names):  # which stands for a field inside a column
        yield from file.read_row_group(number, use_threads=False).columns
        return
    for name in names:
        yield file.read_row_group(number, columns=[name], use_threads=False).column(0)


@dataclass
class RowGroup:
    """Rows to be written together, with the bytes that they take in memory and took on storage."""

    pieces: list[pa.Table] = field(default_factory=list)
    rows: int = 0
    memory: float = 0.0
    stored: float = 0.0

    def room(self, options: WriteOptions, memory: float, stored: float) -> int:
        """How many more rows of so many bytes fit. At most an eighth of a file, so that files end near the target."""
        return int(
            min(
                options.row_group_rows - self.rows,
                (options.row_group_bytes - self.memory) / max(memory, 1),
                (options.target_bytes / 8 - self.stored) / max(stored, 0.01),
            )
        )

    def add(self, piece: pa.Table, memory: float, stored: float) -> None:
        """Gather the rows of a piece, which take so many bytes each."""
        self.pieces.append(piece)
        self.rows += piece.num_rows
        self.memory += piece.num_rows * memory
        self.stored += piece.num_rows * stored


def same_types(pieces: Sequence[pa.Table]) -> list[pa.Table]:
    """The pieces concatenated where their types agree (files may differ in what was kept encoded)."""
    by_types: dict[bytes, list[pa.Table]] = {}
    for piece in pieces:
        by_types.setdefault(piece.schema.serialize().to_pybytes(), []).append(piece)
    return [pa.concat_tables(alike) for alike in by_types.values()]


def assemble(parts: Sequence[pa.ChunkedArray], field: pa.Field) -> pa.ChunkedArray:
    """One column of a row group from the pieces' columns: encoded if any of them came encoded."""
    parts = [conform(part, field) for part in parts]
    encoded = next((part.type for part in parts if pa.types.is_dictionary(part.type)), None)
    if encoded is not None:
        parts = [part if pa.types.is_dictionary(part.type) else part.dictionary_encode() for part in parts]
    return pa.chunked_array([chunk for part in parts for chunk in part.chunks], type=encoded or field.type)
