"""The rewrite of one group of files in which healthy row groups are copied and only the others decoded.

Rows that are decoded gather across copied row groups until they fill one of their own: a small row group
between two healthy ones does not stay small, and its rows move behind those of the row groups copied meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import pyarrow as pa
import xxhash
from pyiceberg.io import FileIO

from aurum_orchestration.errors import VerificationError
from aurum_orchestration.maintenance.backends.iceberg.compact.assemble import (
    COPY_BYTES,
    AssembledFile,
    Assembler,
    ChunksDigest,
)
from aurum_orchestration.maintenance.backends.iceberg.compact.fold import Deletions, FoldingRewrite
from aurum_orchestration.maintenance.backends.iceberg.compact.footer import (
    Footer,
    Group,
    OpenSource,
    Span,
    UnreadableFooterError,
    chunk_span,
    elements,
    read_footer,
    value,
)
from aurum_orchestration.maintenance.backends.iceberg.compact.healthy import (
    Template,
    healthy_groups,
    may_have_healthy,
)
from aurum_orchestration.maintenance.backends.iceberg.compact.reader import GroupReader
from aurum_orchestration.maintenance.backends.iceberg.compact.rewrite import Source
from aurum_orchestration.maintenance.backends.iceberg.compact.writer import WriteOptions, WrittenFile
from aurum_orchestration.maintenance.checksum import RowChecksum
from aurum_orchestration.maintenance.interfaces import RunContext


class CopyingRewrite(FoldingRewrite):
    """A rewrite that copies healthy row groups without a deleted row. Their bytes are digested, their rows counted."""

    method = f"{FoldingRewrite.method}+chunk-digest"

    def __init__(
        self,
        io: FileIO,
        sources: Sequence[Source],
        schema: pa.Schema,
        options: WriteOptions,
        location: Callable[[str], str],
        *,
        with_checksum: bool,
        deletions: Deletions | None = None,
    ) -> None:
        super().__init__(io, sources, schema, options, location, with_checksum=with_checksum, deletions=deletions)
        self._template = Template.of(schema)
        self._assembler = Assembler(io, schema, self._template, options, location)
        self._writer = self._assembler
        self._healthy: dict[str, tuple[Footer, list[int]]] = {}
        self._run: RunContext | None = None

    @staticmethod
    def may_pay(sources: Sequence[Source], options: WriteOptions) -> bool:
        """Whether any of the files can have a row group worth copying, as far as their sizes tell."""
        return any(may_have_healthy(source.rows, source.bytes, options) for source in sources)

    def metrics(self) -> dict[str, float]:
        """What was copied."""
        return {"row_groups_copied": self._assembler.groups_copied, "bytes_copied": self._assembler.bytes_copied}

    def _prepare(self, run: RunContext) -> list[int]:
        """Find the deleted rows, then read the footers of the larger files."""
        self._run = run
        sizes = super()._prepare(run)
        for source, size in zip(self._sources, sizes, strict=True):
            if source.rows and may_have_healthy(self._recorded[source.location], size, self._options):
                run.check()
                with OpenSource.at(self._io, source.location) as opened, contextlib.suppress(UnreadableFooterError):
                    footer = read_footer(opened, size)
                    rows = _row_ranges(footer)
                    healthy = [
                        number
                        for number in healthy_groups(footer, self._template, self._options)
                        if self._deleted.living(source.location, *rows[number]) is None
                    ]
                    if healthy:
                        self._healthy[source.location] = footer, healthy
        copied = sum(
            chunk_span(chunk).length
            for footer, healthy in self._healthy.values()
            for number in healthy
            for chunk in elements(footer.groups[number], Group.COLUMNS)
        )
        self._decoded = max(self._total - copied, 0)
        self._assembler.to_copy, self._assembler.to_decode = copied, self._decoded
        return sizes

    def _pieces(self, reader: GroupReader, source: Source) -> Iterator[pa.Table]:
        if source.location not in self._healthy:
            yield from super()._pieces(reader, source)
            return
        footer, healthy = self._healthy[source.location]
        rows = _row_ranges(footer)
        if sum(count for _, count in rows) != self._recorded[source.location]:
            raise self._other_rows(source.location)
        with OpenSource.at(self._io, source.location) as opened:
            for number in healthy:
                if self._run is not None:
                    self._run.check()
                self.before += self._assembler.copy(opened, footer, number)
        if rest := sorted(set(range(len(footer.groups))) - set(healthy)):
            pieces = reader.pieces(source.location, self._options.row_group_bytes, rest, source.constants)
            yield from self._living_pieces(pieces, source.location, [rows[number] for number in rest])

    def read_back(self, run: RunContext) -> RowChecksum:
        """Rows and checksum of what was encoded, rows and digest of what was copied, all from storage.

        Raises VerificationError when a footer, a page index or a bloom filter is not what was written.
        """
        copied = sum((self._digests(written, run) for written in self._assembler.files), RowChecksum())
        return copied + super().read_back(run)

    def _encoded(self, written: WrittenFile, count: int) -> Sequence[int]:
        return written.encoded if isinstance(written, AssembledFile) else super()._encoded(written, count)

    def _digests(self, written: AssembledFile, run: RunContext) -> RowChecksum:
        after = RowChecksum()
        buffer = memoryview(bytearray(COPY_BYTES))
        with OpenSource.at(self._io, written.location) as opened:
            try:
                footer = read_footer(opened, written.bytes)
            except UnreadableFooterError as error:
                raise VerificationError(f"{written.location} as written: {error}") from error
            if footer.tree != written.tree:
                raise VerificationError(f"{written.location} has another footer than was written")
            for span, digest in written.checked:
                if xxhash.xxh3_128_digest(opened.read(span)) != digest:
                    raise VerificationError(f"{written.location} has other bytes at {span.start} than were written")
            end = 0
            for number, group in enumerate(footer.groups):
                run.check()
                spans = [chunk_span(chunk) for chunk in elements(group, Group.COLUMNS)]
                end = _require_apart(written.location, spans, end, footer.begins)
                if number not in written.encoded:
                    chunks = ChunksDigest(buffer)
                    for span in spans:
                        chunks.add(opened, span)
                    after += RowChecksum(value(group, Group.NUM_ROWS), chunks.value)
        return after


def _row_ranges(footer: Footer) -> list[tuple[int, int]]:
    """Of each row group the first row, counted in its file, and how many it has."""
    counts = [value(group, Group.NUM_ROWS, 0) for group in footer.groups]
    return list(zip(accumulate(counts, initial=0), counts, strict=False))


def _require_apart(location: str, spans: Sequence[Span], start: int, end: int) -> int:
    """Where the last of a row group's chunks ends, which stand one after another between two places."""
    for span in spans:
        if span.start < start or span.end > end:
            raise VerificationError(f"{location}: a column chunk at {span.start} is not in its place")
        start = span.end
    return start
