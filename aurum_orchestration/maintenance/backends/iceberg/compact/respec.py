"""A group of files of older partition specs, rewritten into the current one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pyiceberg.manifest import ManifestEntry
from pyiceberg.typedef import Record

from aurum_orchestration.maintenance.backends.iceberg.compact.destinations import Destinations, by_destination
from aurum_orchestration.maintenance.backends.iceberg.compact.execute import CompactionUnit, location_in
from aurum_orchestration.maintenance.backends.iceberg.compact.fold import Deletions
from aurum_orchestration.maintenance.backends.iceberg.compact.partitioning import Partitioner
from aurum_orchestration.maintenance.backends.iceberg.compact.parts import PartsRewrite
from aurum_orchestration.maintenance.backends.iceberg.compact.repartition import RepartitioningRewrite
from aurum_orchestration.maintenance.backends.iceberg.compact.rewrite import Rewrite
from aurum_orchestration.maintenance.planner.binpack import SMALL_SHARE

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.iceberg.compact.writer import WrittenFile


class RespecUnit(CompactionUnit):
    """One group: rows go to their partitions of the current spec, files that are in one partition go there whole."""

    def _rewrite_of(self, members: Sequence[ManifestEntry]) -> Rewrite:
        metadata = self._execution.state.table.metadata
        self._spec = metadata.spec()
        destinations = Destinations(self._spec, metadata.schema())
        by_path = {item.data_file.file_path: item for item in members}
        parts: list[tuple[Record | None, Rewrite]] = []
        own = SMALL_SHARE * self._execution.options.target_bytes
        for record, files in by_destination([item.data_file for item in members], destinations, own):
            chosen = [by_path[file.file_path] for file in files]
            if record is None:
                parts.append((None, self._repartitioning(chosen)))
            else:
                parts.append((record, self._plain(chosen, self._into(record))))
        self._parts = PartsRewrite(parts)
        return self._parts

    def _repartitioning(self, members: Sequence[ManifestEntry]) -> Rewrite:
        execution = self._execution
        metadata = execution.state.table.metadata
        return RepartitioningRewrite(
            execution.table.io,
            self._sources(members),
            execution.schema,
            execution.options,
            self._at,
            with_checksum=execution.parameters.verify,
            deletions=Deletions.of(metadata, execution.deletes, members),
            ordering=execution.ordering,
            workers=execution.workers,
            partitioner=Partitioner(self._spec, metadata.schema(), execution.schema),
            max_partitions=execution.max_partitions,
        )

    def _at(self, name: str, record: Record) -> str:
        return location_in(self._execution.state.table, name, self._spec.spec_id, record)

    def _into(self, record: Record) -> Callable[[str], str]:
        return partial(location_in, self._execution.state.table, spec_id=self._spec.spec_id, partition=record)

    def _partition_of(self, written: WrittenFile) -> tuple[int, Record]:
        return self._spec.spec_id, self._parts.partitions()[written.location]
