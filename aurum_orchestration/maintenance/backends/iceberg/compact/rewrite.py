"""One group: read its files, checksum what was read, write the replacement; later read that back.

Memory is bounded by one row group being filled and one being written, whatever the files' sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.io import FileIO

from aurum_orchestration.maintenance.backends.iceberg.arrow_types import conform
from aurum_orchestration.maintenance.backends.iceberg.compact.reader import GroupReader, open_parquet
from aurum_orchestration.maintenance.backends.iceberg.compact.writer import RollingWriter, WriteOptions, WrittenFile
from aurum_orchestration.maintenance.checksum import RowChecksum, checksum
from aurum_orchestration.maintenance.interfaces import RunContext


@dataclass(frozen=True, slots=True)
class Source:
    """A data file to be replaced."""

    location: str
    bytes: int
    rows: int


class Rewrite:
    """The rewrite of one group of files into a :class:`RollingWriter`."""

    def __init__(
        self,
        io: FileIO,
        sources: Sequence[Source],
        schema: pa.Schema,
        options: WriteOptions,
        location: Callable[[str], str],
        *,
        with_checksum: bool,
    ) -> None:
        self._io, self._sources, self._schema, self._options = io, sources, schema, options
        self._with_checksum = with_checksum
        self._total = sum(source.bytes for source in sources) or 1
        self._writer = RollingWriter(io, schema, options, location)
        self.before = RowChecksum()

    @property
    def files(self) -> list[WrittenFile]:
        """The files written so far."""
        return self._writer.files

    @property
    def locations(self) -> list[str]:
        """Every file begun, finished or not: what a discard must delete."""
        return self._writer.locations

    def run(self, run: RunContext) -> None:
        """Read everything and write the replacement."""
        reader = GroupReader(self._io, self._schema)
        pieces: list[pa.Table] = []
        rows = size = 0
        done = 0.0
        try:
            for source in self._sources:
                run.check()
                bytes_per_row = source.bytes / max(source.rows, 1)
                for piece in reader.pieces(source.location, self._options.row_group_bytes):
                    for part, part_bytes, most in self._slices(piece, bytes_per_row):
                        if pieces and (rows + part.num_rows > self._options.row_group_rows or size + part_bytes > most):
                            self._flush(pieces, done)
                            pieces, rows, size = [], 0, 0
                        pieces.append(part)
                        rows += part.num_rows
                        size += part_bytes
                        done += part.num_rows * bytes_per_row
                run.progress(source.bytes, self._total, "bytes")
            if rows:
                self._flush(pieces, done)
            self._writer.close()
        except BaseException:
            self._writer.abandon()
            raise

    def _slices(self, piece: pa.Table, bytes_per_row: float) -> Iterator[tuple[pa.Table, int, int]]:
        """A piece in parts that fit a row group, each with its bytes and how many a row group may have.

        Row groups are a quarter of a file at most, so that files can end near the target.
        """
        size, rows = piece.nbytes, piece.num_rows
        stored = max(rows * bytes_per_row, 1)
        most = min(self._options.row_group_bytes, max(1, int(self._options.target_bytes / 4 * size / stored)))
        parts = max(-(-rows // self._options.row_group_rows), -(-size // most))
        step = max(1, -(-rows // max(parts, 1)))
        for start in range(0, rows, step):
            part = piece if step >= rows else piece.slice(start, step)
            yield part, size * part.num_rows // rows, most

    def _flush(self, pieces: list[pa.Table], done: float) -> None:
        columns = [
            _assemble([piece.column(index) for piece in pieces], field) for index, field in enumerate(self._schema)
        ]
        if self._with_checksum:
            for part in _same_types(pieces):
                self.before += checksum(part, self._schema)
        else:
            self.before += RowChecksum(sum(piece.num_rows for piece in pieces), 0)
        self._writer.write(pa.table(columns, names=self._schema.names), max(self._total - done, 0) / max(done, 1))

    def read_back(self, run: RunContext) -> RowChecksum:
        """Rows and checksum of the replacement, read from storage with a reader opened anew."""
        after = RowChecksum()
        for written in self.files:
            with open_parquet(self._io, written.location, written.dictionaries) as file:
                for group in range(file.metadata.num_row_groups):
                    run.check()
                    after += checksum(file.read_row_group(group, use_threads=False), self._schema)
        return after


def _same_types(pieces: Sequence[pa.Table]) -> list[pa.Table]:
    """The pieces concatenated where their types agree (files may differ in what was kept encoded)."""
    by_types: dict[bytes, list[pa.Table]] = {}
    for piece in pieces:
        by_types.setdefault(piece.schema.serialize().to_pybytes(), []).append(piece)
    return [pa.concat_tables(alike) for alike in by_types.values()]


def _assemble(parts: Sequence[pa.ChunkedArray], field: pa.Field) -> pa.ChunkedArray:
    """One column of a row group from the pieces' columns: encoded if any of them came encoded."""
    parts = [conform(part, field) for part in parts]
    encoded = next((part.type for part in parts if pa.types.is_dictionary(part.type)), None)
    if encoded is not None:
        parts = [part if pa.types.is_dictionary(part.type) else part.dictionary_encode() for part in parts]
    return pa.chunked_array([chunk for part in parts for chunk in part.chunks], type=encoded or field.type)
