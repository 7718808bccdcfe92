"""Parquet files put together from row groups of complete Parquet sources, byte for byte, under a new footer.

Rows that had to be decoded come as row groups too: they are encoded into a small Parquet file in memory,
which is a source like all others. Memory is bounded by one such file and a few MiB to copy through.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from pyiceberg.io import FileIO

from aurum_orchestration.maintenance.backends.iceberg.compact.footer import (
    MAGIC,
    Chunk,
    ColumnMeta,
    Footer,
    Group,
    OpenSource,
    Span,
    chunk_span,
    elements,
    footer_bytes,
    index_spans,
    meta,
    read_footer,
    shifted_offset_index,
    value,
    with_row_groups,
)
from aurum_orchestration.maintenance.backends.iceberg.compact.healthy import Template
from aurum_orchestration.maintenance.backends.iceberg.compact.thrift_tree import (
    I16,
    I32,
    I64,
    LIST,
    STRING,
    STRUCT,
    NotThriftError,
    Struct,
    read_struct,
)
from aurum_orchestration.maintenance.backends.iceberg.compact.writer import OpenFile, WriteOptions, WrittenFile
from aurum_orchestration.maintenance.checksum import RowChecksum
from aurum_orchestration.maintenance.planner.binpack import SMALL_SHARE, files_out

COPY_BYTES = 4 * 1024 * 1024
_NEAR_BYTES = 64 * 1024
_BLOOM_HEADER_BYTES = 256
_MOST_ORDINAL = 2**15 - 1


@dataclass
class AssembledFile(WrittenFile):
    """A file put together, with its footer's tree and which of its row groups were encoded, not copied."""

    tree: Struct = field(default_factory=dict)
    encoded: list[int] = field(default_factory=list)
    checked: list[tuple[Span, bytes]] = field(default_factory=list)


class Assembler:
    """Puts row groups into files near the target size. Used like :class:`RollingWriter`, and copies besides."""

    def __init__(
        self,
        io: FileIO,
        schema: pa.Schema,
        template: Template,
        options: WriteOptions,
        location: Callable[[str], str],
    ) -> None:
        self._io, self._schema, self._template, self._options = io, schema, template, options
        self._location = location
        self._prefix = uuid.uuid4()
        self._current: _Assembly | None = None
        self._encoded_bytes = 0
        self.to_copy = self.to_decode = 0.0
        """Bytes of the input still to come."""
        self.files: list[AssembledFile] = []
        self.locations: list[str] = []
        self.groups_copied = self.bytes_copied = 0

    def write(self, table: pa.Table, remaining_share: float) -> None:
        """Encode one row group. ``remaining_share`` is the input still to be decoded over that so far."""
        sink = pa.BufferOutputStream()
        encoder = OpenFile(sink, "", table.unify_dictionaries(), self._schema, self._options)
        encoder.write(table.unify_dictionaries())
        strings = encoder.finish().dictionaries
        data = sink.getvalue()
        source = OpenSource(pa.BufferReader(data), "encoded")
        assembly, before = self._open()
        assembly.strings = assembly.strings & set(strings) if assembly.encoded else set(strings)
        for group in read_footer(source, data.size).groups:
            assembly.encoded.append(len(assembly.groups))
            assembly.add(source, group)
        self._encoded_bytes += assembly.position - before
        self.to_decode = self._encoded_bytes * remaining_share
        self._roll_if_full(assembly.position - before)

    def copy(self, source: OpenSource, footer: Footer, number: int) -> RowChecksum:
        """Copy a row group of an open source; its rows, and a digest of its chunks as read."""
        assembly, before = self._open()
        copied = assembly.add(source, footer.groups[number])
        self.groups_copied += 1
        self.bytes_copied += assembly.position - before
        self.to_copy -= assembly.position - before
        self._roll_if_full(assembly.position - before)
        return copied

    def close(self) -> None:
        """Finish the last file."""
        if self._current is not None:
            self._roll()

    def abandon(self) -> None:
        """Close what is open without finishing it; the caller deletes ``locations``."""
        current, self._current = self._current, None
        if current is not None:
            current.sink.close()

    def _open(self) -> tuple[_Assembly, int]:
        if self._current is None:
            where = self._location(f"{len(self.locations):05d}-0-{self._prefix}.parquet")
            self.locations.append(where)
            self._current = _Assembly(self._io.new_output(where).create(overwrite=False), self._template, where)
        return self._current, self._current.position

    def _roll_if_full(self, step: int) -> None:
        """End the file nearest to an even share of what is left, unless this one or the rest would be small.

        A copied row group cannot be divided: it is up to a small file's size, so files are up to 2.25 targets.
        """
        if self._current is None:
            return
        so_far, left = self._current.position, max(self.to_copy, 0) + max(self.to_decode, 0)
        target = self._options.target_bytes
        share = (so_far + left) / files_out(int(so_far + left), target)
        least = SMALL_SHARE * target
        if so_far + step / 2 >= share and so_far >= least and left >= least * 1.05:
            self._roll()

    def _roll(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            self.files.append(current.finish())


class _Assembly:
    """One file being put together."""

    def __init__(self, sink: Any, template: Template, location: str) -> None:
        self.sink, self._template, self._where = sink, template, location
        self.groups: list[Struct] = []
        self.encoded: list[int] = []
        self.strings: set[str] = set()
        self.position = 0
        self._indexes: list[tuple[Struct, bytes | None, bytes | None]] = []
        self._checked: list[tuple[Span, bytes]] = []
        self._buffer = memoryview(bytearray(COPY_BYTES))
        self._put(MAGIC)

    def add(self, source: OpenSource, group: Struct) -> RowChecksum:
        """Append a row group: its chunks, then their bloom filters; the page indexes wait for the end."""
        chunks = elements(group, Group.COLUMNS)
        spans = [chunk_span(chunk) for chunk in chunks]
        indexes = _read_near(source, [span for chunk in chunks for span in index_spans(chunk) if span is not None])
        begins = self.position
        starts, digest = self._copy_spans(source, spans)
        moved = [
            self._moved(chunk, span, start, path, indexes)
            for chunk, span, start, path in zip(chunks, spans, starts, self._template.leaves, strict=True)
        ]
        for chunk, old in zip(moved, chunks, strict=True):
            self._bloom(source, chunk, meta(old))
        placed = {
            **group,
            Group.COLUMNS: (LIST, (STRUCT, moved)),
            Group.FILE_OFFSET: (I64, begins),
            Group.ORDINAL: (I16, len(self.groups)),
        }
        if len(self.groups) > _MOST_ORDINAL:
            del placed[Group.ORDINAL]
        self.groups.append(placed)
        return RowChecksum(value(group, Group.NUM_ROWS), digest)

    def finish(self) -> AssembledFile:
        """Write the page indexes and the footer."""
        for place, start, length in (
            (1, Chunk.COLUMN_INDEX, Chunk.COLUMN_INDEX_BYTES),
            (2, Chunk.OFFSET_INDEX, Chunk.OFFSET_INDEX_BYTES),
        ):
            for entry in self._indexes:
                chunk, data = entry[0], entry[place]
                if isinstance(data, bytes):
                    chunk[start], chunk[length] = (I64, self.position), (I32, len(data))
                    self._put_checked(data)
        tree = with_row_groups(self._template.tree, self.groups)
        end = footer_bytes(tree)
        self._put(end)
        self.sink.close()
        metadata = pq.read_metadata(pa.BufferReader(MAGIC + end))
        return AssembledFile(
            self._where, self.position, metadata, sorted(self.strings), tree, self.encoded, self._checked
        )

    def _put(self, data: Any) -> None:
        self.sink.write(data)
        self.position += len(data)

    def _put_checked(self, data: bytes) -> None:
        self._checked.append((Span(self.position, len(data)), xxhash.xxh3_128_digest(data)))
        self._put(data)

    def _copy_spans(self, source: OpenSource, spans: Sequence[Span]) -> tuple[list[int], int]:
        """Where each span begins in this file, and the digest of them all."""
        starts = []
        digest = ChunksDigest(self._buffer, self._put)
        for span in spans:
            starts.append(self.position)
            digest.add(source, span)
        return starts, digest.value

    def _moved(self, chunk: Struct, span: Span, start: int, path: list[bytes], indexes: dict[Span, bytes]) -> Struct:
        shift = start - span.start
        column = {**meta(chunk), ColumnMeta.PATH: (LIST, (STRING, path))}
        column[ColumnMeta.DATA_PAGE] = I64, value(column, ColumnMeta.DATA_PAGE) + shift
        dictionary = value(column, ColumnMeta.DICTIONARY_PAGE, 0)
        column.pop(ColumnMeta.DICTIONARY_PAGE, None)
        if dictionary > 0:
            column[ColumnMeta.DICTIONARY_PAGE] = I64, dictionary + shift
        column.pop(ColumnMeta.BLOOM, None)
        column.pop(ColumnMeta.BLOOM_BYTES, None)
        moved: Struct = {
            # deprecated; what writers set is either nothing or the place of the chunk
            Chunk.FILE_OFFSET: (I64, start if value(chunk, Chunk.FILE_OFFSET, 0) else 0),
            Chunk.META: (STRUCT, column),
        }
        column_index, offset_index = index_spans(chunk)
        pages = shifted_offset_index(indexes[offset_index], span, shift) if offset_index is not None else None
        # a column index says nothing without the places of its pages
        if pages is not None:
            self._indexes.append((moved, indexes[column_index] if column_index is not None else None, pages))
        return moved

    def _bloom(self, source: OpenSource, chunk: Struct, old: Struct) -> None:
        """Copy a chunk's bloom filter; one that cannot be read is left out."""
        start, length = value(old, ColumnMeta.BLOOM, 0), value(old, ColumnMeta.BLOOM_BYTES, 0)
        if start <= 0:
            return
        if length <= 0:
            try:
                header, used = read_struct(source.read(Span(start, _BLOOM_HEADER_BYTES)))
            except NotThriftError:
                return
            length = used + value(header, 1, 0)
        data = source.read(Span(start, length))
        if len(data) == length:
            column = meta(chunk)
            column[ColumnMeta.BLOOM], column[ColumnMeta.BLOOM_BYTES] = (I64, self.position), (I32, length)
            self._put_checked(data)


class ChunksDigest:
    """A 64-bit digest of column chunks, read through ``buffer`` piece by piece, each handed on to ``put``."""

    def __init__(self, buffer: memoryview, put: Callable[[memoryview], None] = lambda _: None) -> None:
        self._buffer, self._put = buffer, put
        self._all = xxhash.xxh3_64()

    def add(self, source: OpenSource, chunk: Span) -> None:
        """The bytes of the next chunk. Raises as reading does."""
        digest = xxhash.xxh3_128()
        for piece in source.pieces(chunk, self._buffer):
            digest.update(piece)
            self._put(piece)
        self._all.update(digest.digest())

    @property
    def value(self) -> int:
        """The digest so far; the order of the chunks is part of it."""
        return self._all.intdigest()


def _read_near(source: OpenSource, spans: Sequence[Span]) -> dict[Span, bytes]:
    """The bytes of spans, those near each other in one read."""
    found: dict[Span, bytes] = {}
    near: list[Span] = []
    for span in [*sorted(spans, key=lambda span: span.start), None]:
        if near and (span is None or span.start > max(one.end for one in near) + _NEAR_BYTES):
            begin = near[0].start
            data = source.read(Span(begin, max(one.end for one in near) - begin))
            found.update({one: data[one.start - begin : one.end - begin] for one in near})
            near = []
        if span is not None:
            near.append(span)
    return found
