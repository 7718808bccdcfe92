"""Which files of a partition are rewritten together: small ones, and those that deletes weigh on.

A file that deletes weigh on is rewritten whatever its size; what was rewritten has no deletes left, so that
the next plan does not choose it again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from pyiceberg.manifest import ManifestEntry

from aurum_orchestration.maintenance.backends.iceberg.compact.deletes import DeleteIndex, Specs, is_equality
from aurum_orchestration.maintenance.backends.iceberg.entries import applies_everywhere, partition_key
from aurum_orchestration.maintenance.operations.compaction import MIB, CompactionParameters
from aurum_orchestration.maintenance.planner.binpack import Bin, files_out, pack


class Weight:
    """How much of a data file deletes take out, as far as it is known without reading it."""

    def __init__(
        self, data: Iterable[ManifestEntry], deletes: Sequence[ManifestEntry], index: DeleteIndex, specs: Specs
    ) -> None:
        self._index, self._specs = index, specs
        self.count = len(deletes)
        self._rows: defaultdict[tuple[int, str] | None, int] = defaultdict(int)
        if any(is_equality(item) for item in deletes):
            for item in data:
                self._rows[partition_key(item.data_file)] += item.data_file.record_count
                self._rows[None] += item.data_file.record_count

    def ratio(self, item: ManifestEntry) -> float:
        """The share of the file's rows that are deleted.

        Positions are counted. Of equality deletes each is taken to hit one row, somewhere in its scope.
        """
        positions = sum(count for _, count in self._index.positions_of(item))
        share = positions / max(item.data_file.record_count, 1)
        for delete in self._index.equality_of(item):
            key = partition_key(delete.data_file)
            scope = None if applies_everywhere(self._specs[key[0]]) else key
            share += delete.data_file.record_count / max(self._rows[scope], 1)
        return min(share, 1.0)

    def is_heavy(self, item: ManifestEntry, parameters: CompactionParameters) -> bool:
        """Whether the file is rewritten for its deletes alone."""
        if self.count >= parameters.max_delete_files and self._index.of(item):
            return True
        ratio = self.ratio(item)
        return ratio > 0 and ratio >= parameters.max_deleted_ratio


def choose(
    partition: Sequence[ManifestEntry],
    parameters: CompactionParameters,
    wanted: Callable[[ManifestEntry], bool],
    live_share: Callable[[ManifestEntry], float],
) -> list[tuple[Bin, list[ManifestEntry]]]:
    """The groups of one partition: its small files as :func:`pack` says, and those ``wanted`` besides."""
    sizes = [item.data_file.file_size_in_bytes for item in partition]
    target, limit = parameters.target_file_size_mb * MIB, parameters.max_group_size_mb * MIB
    bins = pack(sizes, target, parameters.min_input_files, limit)
    extra = {index for index, item in enumerate(partition) if wanted(item)}
    if extra:
        packed = {index for bin_ in bins for index in bin_.members}
        lives = [int(size * live_share(item)) for size, item in zip(sizes, partition, strict=True)]
        filled = _fill(sorted(packed | extra), sizes, lives, target, max(limit, 2 * target))
        bins = [bin_ for bin_ in filled if bin_.excess > 0 or not extra.isdisjoint(bin_.members)]
    return [(bin_, [partition[index] for index in bin_.members]) for bin_ in bins]


def _fill(chosen: Sequence[int], sizes: Sequence[int], lives: Sequence[int], target: int, limit: int) -> list[Bin]:
    parts: list[list[int]] = [[]]
    total = 0
    for index in chosen:
        if parts[-1] and total + sizes[index] > limit:
            parts.append([])
            total = 0
        parts[-1].append(index)
        total += sizes[index]
    return [
        Bin(
            tuple(part),
            sum(sizes[index] for index in part),
            files_out(sum(lives[index] for index in part), target) if any(lives[index] for index in part) else 0,
        )
        for part in parts
        if part
    ]
