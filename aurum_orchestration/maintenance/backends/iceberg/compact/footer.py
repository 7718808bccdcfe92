"""Parquet footers as thrift trees: reading them, and where the bytes of a column chunk and its indexes lie.

Field ids are those of parquet-format's ``parquet.thrift``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyiceberg.io import FileIO

from aurum_orchestration.errors import BackendUnavailableError, CorruptTableError
from aurum_orchestration.maintenance.backends.iceberg.compact.thrift_tree import (
    I64,
    LIST,
    STRUCT,
    NotThriftError,
    Struct,
    read_struct,
    write_struct,
)

MAGIC = b"PAR1"
TAIL_BYTES = 64 * 1024
"""So much of a file's end is read at once; most footers are smaller."""


class FileMeta:
    """Fields of ``FileMetaData``."""

    SCHEMA, NUM_ROWS, ROW_GROUPS, CREATED_BY, COLUMN_ORDERS, ENCRYPTION = 2, 3, 4, 6, 7, 8


class Group:
    """Fields of ``RowGroup``; ``LAST`` is the last one known here."""

    COLUMNS, NUM_ROWS, FILE_OFFSET, ORDINAL, LAST = 1, 3, 5, 7, 7


class Chunk:
    """Fields of ``ColumnChunk``."""

    FILE_PATH, FILE_OFFSET, META = 1, 2, 3
    OFFSET_INDEX, OFFSET_INDEX_BYTES, COLUMN_INDEX, COLUMN_INDEX_BYTES = 4, 5, 6, 7
    CRYPTO, LAST = 8, 9


class ColumnMeta:
    """Fields of ``ColumnMetaData``."""

    PATH, CODEC, NUM_VALUES, COMPRESSED_BYTES = 3, 4, 5, 7
    DATA_PAGE, INDEX_PAGE, DICTIONARY_PAGE, STATISTICS = 9, 10, 11, 12
    BLOOM, BLOOM_BYTES, LAST = 14, 15, 17


class Element:
    """Fields of ``SchemaElement``."""

    TYPE, TYPE_LENGTH, REPETITION, NAME, CHILDREN = 1, 2, 3, 4, 5
    CONVERTED, SCALE, PRECISION, FIELD_ID, LOGICAL = 6, 7, 8, 9, 10


CODECS = {0: "none", 1: "snappy", 2: "gzip", 3: "lzo", 4: "brotli", 6: "zstd", 7: "lz4"}
"""Codecs by the names that Arrow has for them. 5 is LZ4 with a framing that few read."""


class UnreadableFooterError(ValueError):
    """No plain Parquet footer: another format, an encrypted footer, or damage."""


@dataclass(frozen=True)
class Footer:
    """A footer's tree, and where it begins: all data lies before."""

    tree: Struct
    begins: int

    @property
    def groups(self) -> list[Struct]:
        """The row groups."""
        return elements(self.tree, FileMeta.ROW_GROUPS)


@dataclass(frozen=True, slots=True)
class Span:
    """A range of bytes in a file."""

    start: int
    length: int

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.start + self.length


class OpenSource:
    """A file open for reading. What the storage raises becomes BackendUnavailableError."""

    def __init__(self, stream: Any, location: str) -> None:
        self._stream, self._location = stream, location

    @classmethod
    @contextlib.contextmanager
    def at(cls, io: FileIO, location: str) -> Iterator[OpenSource]:
        """The file at a location, until the block ends. Raises CorruptTableError when it is missing."""
        try:
            stream = io.new_input(location).open()
        except FileNotFoundError as error:
            raise CorruptTableError(f"data file {location} is missing") from error
        except OSError as error:
            raise BackendUnavailableError(f"data file {location}: {error}") from error
        with stream:
            yield cls(stream, location)

    def read(self, span: Span) -> bytes:
        """The bytes of a span; fewer where the file ends before."""
        try:
            self._stream.seek(span.start)
            return bytes(self._stream.read(span.length))
        except OSError as error:
            raise BackendUnavailableError(f"data file {self._location}: {error}") from error

    def pieces(self, span: Span, buffer: memoryview) -> Iterator[memoryview]:
        """The bytes of a span through ``buffer``. Raises CorruptTableError when the file ends within it."""
        left, start = span.length, span.start
        while left:
            try:
                self._stream.seek(start)
                count = self._stream.readinto(buffer[: min(left, len(buffer))])
            except OSError as error:
                raise BackendUnavailableError(f"data file {self._location}: {error}") from error
            if not count:
                raise CorruptTableError(f"data file {self._location} ends {left} bytes before the end of a chunk")
            yield buffer[:count]
            left, start = left - count, start + count


def value(struct: Struct, field: int, default: Any = None) -> Any:
    """The value of a field, or ``default`` where it is not set."""
    found = struct.get(field)
    return default if found is None else found[1]


def elements(struct: Struct, field: int) -> list[Any]:
    """The elements of a list field; none where it is not set."""
    found = struct.get(field)
    return [] if found is None else list(found[1][1])


def meta(chunk: Struct) -> Struct:
    """A column chunk's ``ColumnMetaData``; empty where it is not in the footer."""
    found: Struct = value(chunk, Chunk.META, {})
    return found


def read_footer(source: OpenSource, size: int) -> Footer:
    """The footer of a file of ``size`` bytes. Raises UnreadableFooterError, or what reading raises."""
    tail = source.read(Span(max(0, size - TAIL_BYTES), min(size, TAIL_BYTES)))
    if len(tail) < 12 or tail[-4:] != MAGIC:
        raise UnreadableFooterError("no plain Parquet footer at the end")
    length = int.from_bytes(tail[-8:-4], "little")
    begins = size - 8 - length
    if begins < len(MAGIC):
        raise UnreadableFooterError(f"a footer of {length} bytes in a file of {size}")
    if length + 8 > len(tail):
        tail = source.read(Span(begins, length + 8))
    try:
        tree, used = read_struct(tail[-8 - length : -8])
    except NotThriftError as error:
        raise UnreadableFooterError(str(error)) from error
    if used != length:
        raise UnreadableFooterError(f"{length - used} bytes after the footer's struct")
    return Footer(tree, begins)


def footer_bytes(tree: Struct) -> bytes:
    """What ends a Parquet file: the footer, its length, the magic."""
    body = write_struct(tree)
    return body + len(body).to_bytes(4, "little") + MAGIC


def chunk_span(chunk: Struct) -> Span:
    """Where the pages of a column chunk lie. A dictionary offset of 0 means none: some writers set it so."""
    column = meta(chunk)
    dictionary = value(column, ColumnMeta.DICTIONARY_PAGE, 0)
    data = value(column, ColumnMeta.DATA_PAGE, 0)
    return Span(min(dictionary, data) if dictionary > 0 else data, value(column, ColumnMeta.COMPRESSED_BYTES, 0))


def index_spans(chunk: Struct) -> tuple[Span | None, Span | None]:
    """Where the column index and the offset index of a chunk lie, None for one it does not have."""
    pairs = (Chunk.COLUMN_INDEX, Chunk.COLUMN_INDEX_BYTES), (Chunk.OFFSET_INDEX, Chunk.OFFSET_INDEX_BYTES)
    column, offset = (
        Span(value(chunk, start, 0), value(chunk, length, 0)) if value(chunk, length, 0) > 0 else None
        for start, length in pairs
    )
    return column, offset


def shifted_offset_index(data: bytes, pages: Span, shift: int) -> bytes | None:
    """An offset index for a chunk moved by ``shift``; None when it names pages outside of the chunk's ``pages``."""
    try:
        index, _ = read_struct(data)
        kind, locations = value(index, 1)
        for location in locations:
            start, length = location[1][1], location[2][1]
            if start < pages.start or length < 0 or start + length > pages.end:
                return None
            location[1] = I64, start + shift
    except (NotThriftError, KeyError, TypeError):
        return None
    index[1] = LIST, (kind, locations)
    return write_struct(index)


def with_row_groups(template: Struct, groups: list[Struct]) -> Struct:
    """A footer like ``template`` over these row groups."""
    return {
        **template,
        FileMeta.NUM_ROWS: (I64, sum(value(group, Group.NUM_ROWS) for group in groups)),
        FileMeta.ROW_GROUPS: (LIST, (STRUCT, groups)),
    }


def walk_schema(tree: Struct) -> Iterator[tuple[Struct, tuple[bytes, ...]]]:
    """The schema's elements below the root, depth first, each with its path of names."""
    flat = iter(elements(tree, FileMeta.SCHEMA))

    def below(parent: Struct, path: tuple[bytes, ...]) -> Iterator[tuple[Struct, tuple[bytes, ...]]]:
        for _ in range(value(parent, Element.CHILDREN, 0)):
            element = next(flat, None)
            if element is None:
                raise UnreadableFooterError("the schema names more fields than it has")
            here = (*path, value(element, Element.NAME, b""))
            yield element, here
            yield from below(element, here)

    root = next(flat, None)
    if root is not None:
        yield from below(root, ())
