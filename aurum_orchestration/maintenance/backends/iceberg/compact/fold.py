"""The rewrite of one group of files without the rows that delete files take out of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
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
        deletions: Deletions,
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
        if self._deletions.applied:
            self._deleted = self._deletions.rows(self._io)
        sizes = [source.bytes for source in self._sources]
        self._sources = [self._living(source) for source in self._sources]
        self.rows_folded = sum(self._recorded.values()) - sum(source.rows for source in self._sources)
        self._total = sum(source.bytes for source in self._sources) or 1
        self._decoded = self._total
        return sizes

    def _living(self, source: Source) -> Source:
        rows = source.rows - self._deleted.count(source.location)
        return Source(source.location, source.bytes * rows // max(source.rows, 1), rows)

    def _pieces(self, reader: GroupReader, source: Source) -> Iterator[pa.Table]:
        recorded = self._recorded[source.location]
        if source.rows == 0 and recorded:
            return
        position = 0
        for piece in super()._pieces(reader, source):
            mask = self._deleted.slice(source.location, position, min(piece.num_rows, recorded - position))
            position += piece.num_rows
            if position > recorded:
                break
            yield piece if mask is None else piece.filter(pa.array(np.logical_not(mask)))
        if position != recorded:
            raise CorruptTableError(f"data file {source.location} does not have the {recorded:,} rows of its manifest")
