"""The rewrite of one group of files without the rows that delete files take out of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestEntry
from pyiceberg.table.metadata import TableMetadata

from aurum_orchestration.errors import CorruptTableError
from aurum_orchestration.maintenance.backends.iceberg.compact.deletes import (
    DeletedRows,
    DeleteIndex,
    is_equality,
    load_positions,
)
from aurum_orchestration.maintenance.backends.iceberg.compact.equality import fold_equality
from aurum_orchestration.maintenance.backends.iceberg.compact.reader import GroupReader
from aurum_orchestration.maintenance.backends.iceberg.compact.rewrite import Rewrite, Source
from aurum_orchestration.maintenance.backends.iceberg.compact.writer import WriteOptions
from aurum_orchestration.maintenance.interfaces import RunContext


@dataclass(frozen=True)
class Deletions:
    """The delete files that apply to the data files of a group, by the location of each data file."""

    metadata: TableMetadata
    data: Mapping[str, ManifestEntry]
    applied: Mapping[str, Sequence[ManifestEntry]]

    @classmethod
    def of(cls, metadata: TableMetadata, index: DeleteIndex, data: Sequence[ManifestEntry]) -> Deletions:
        """Those of an index."""
        if not index.any:
            return cls(metadata, {}, {})
        applied = {item.data_file.file_path: found for item in data if (found := index.of(item))}
        return cls(metadata, {item.data_file.file_path: item for item in data}, applied)

    @property
    def files(self) -> list[ManifestEntry]:
        """The delete files, each once."""
        return list({item.data_file.file_path: item for items in self.applied.values() for item in items}.values())

    def rows(self, io: FileIO) -> DeletedRows:
        """Read the delete files: which rows are deleted."""
        touched = {path: self.data[path] for path in self.applied}
        deleted = DeletedRows({path: item.data_file.record_count for path, item in touched.items()})
        load_positions(io, [item for item in self.files if not is_equality(item)], touched, deleted)
        by_delete: dict[str, list[ManifestEntry]] = {}
        for path, items in self.applied.items():
            for item in items:
                by_delete.setdefault(item.data_file.file_path, []).append(self.data[path])
        fold_equality(io, self.metadata, [item for item in self.files if is_equality(item)], by_delete, deleted)
        return deleted


class FoldingRewrite(Rewrite):
    """A :class:`Rewrite` that leaves deleted rows out. The checksum is over the rows that live."""

    def __init__(
        self,
        io: FileIO,
        sources: Sequence[Source],
        schema: pa.Schema,
        options: WriteOptions,
        location: Callable[[str], str],
        *,
        with_checksum: bool,
        deletions: Deletions | None,
    ) -> None:
        super().__init__(io, sources, schema, options, location, with_checksum=with_checksum)
        self._deletions = deletions
        self._deleted = DeletedRows({})
        self._recorded = {source.location: source.rows for source in sources}

    def run(self, run: RunContext, on_read: Callable[[int], None] = lambda _: None) -> None:
        """Read the delete files, then the data files, and write what lives."""
        sizes = iter(self._prepare(run))
        super().run(run, lambda _: on_read(next(sizes)))

    def _prepare(self, run: RunContext) -> list[int]:
        """Read the delete files and count what they leave; the sizes of the files as they are."""
        run.check()
        if self._deletions is not None and self._deletions.applied:
            self._deleted = self._deletions.rows(self._io)
        sizes = [source.bytes for source in self._sources]
        self._sources = [self._living(source) for source in self._sources]
        self.rows_folded = sum(self._recorded.values()) - sum(source.rows for source in self._sources)
        self._total = sum(source.bytes for source in self._sources) or 1
        self._decoded = self._total
        return sizes

    def _living(self, source: Source) -> Source:
        rows = source.rows - self._deleted.count(source.location)
        return replace(source, bytes=source.bytes * rows // max(source.rows, 1), rows=rows)

    def _pieces(self, reader: GroupReader, source: Source) -> Iterator[pa.Table]:
        recorded = self._recorded[source.location]
        if source.rows or not recorded:
            yield from self._living_pieces(super()._pieces(reader, source), source.location, [(0, recorded)])

    def _living_pieces(
        self, pieces: Iterable[pa.Table], location: str, ranges: Sequence[tuple[int, int]]
    ) -> Iterator[pa.Table]:
        """The living rows of pieces, which are made of ``ranges`` (first row, rows) of a file.

        Raises CorruptTableError when they are not: what positions say would be about other rows.
        """
        rows = _Ranges(ranges)
        for piece in pieces:
            parts = rows.take(piece.num_rows)
            if sum(count for _, count in parts) != piece.num_rows:
                break
            masks = [self._deleted.living(location, start, count) for start, count in parts]
            if all(mask is None for mask in masks):
                yield piece
            else:
                full = [
                    pa.repeat(True, count) if mask is None else mask
                    for mask, (_, count) in zip(masks, parts, strict=True)
                ]
                yield piece.filter(full[0] if len(full) == 1 else pa.concat_arrays(full))
        else:
            if not rows.left:
                return
        raise self._other_rows(location)

    def _other_rows(self, location: str) -> CorruptTableError:
        rows = self._recorded[location]
        return CorruptTableError(f"data file {location} does not have the {rows:,} rows of its manifest")


class _Ranges:
    """Ranges of rows to be taken from the front."""

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        self._ranges = deque(ranges)

    def take(self, count: int) -> list[tuple[int, int]]:
        """The ranges that the next ``count`` rows come from; fewer when there are no more."""
        taken = []
        while count and self._ranges:
            start, length = self._ranges.popleft()
            if length > count:
                self._ranges.appendleft((start + count, length - count))
                length = count
            taken.append((start, length))
            count -= length
        return taken

    @property
    def left(self) -> int:
        """Rows not yet taken."""
        return sum(length for _, length in self._ranges)
