"""Which files of older partition specs a compaction rewrites into the current one, and in which groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pyiceberg.manifest import DataFile, ManifestEntry

from aurum_orchestration.maintenance.backends.iceberg.arrow_types import arrow_schema
from aurum_orchestration.maintenance.backends.iceberg.compact.candidates import Weight
from aurum_orchestration.maintenance.backends.iceberg.compact.destinations import (
    Destinations,
    Estimate,
    by_destination,
)
from aurum_orchestration.maintenance.backends.iceberg.compact.partitioning import Partitioner
from aurum_orchestration.maintenance.backends.iceberg.compact.state import TableState
from aurum_orchestration.maintenance.operations.compaction import MIB, CompactionParameters
from aurum_orchestration.maintenance.planner.binpack import SMALL_SHARE, Bin, files_out


class OldSpecs:
    """Gathers the files of older specs that are to be rewritten, and groups them by where their rows go.

    Files of all older specs and partitions come together: what they have in common is where they go.
    """

    def __init__(self, state: TableState, parameters: CompactionParameters, weight: Weight) -> None:
        self._state, self._parameters, self._weight = state, parameters, weight
        self._destinations = Destinations(state.spec, state.table.schema())
        self._target = parameters.target_file_size_mb * MIB
        self._chosen: list[ManifestEntry] = []
        self._wanted: set[str] = set()

    def offer(
        self,
        partition: Sequence[ManifestEntry],
        chosen: Sequence[ManifestEntry],
        wanted: Callable[[ManifestEntry], bool],
    ) -> None:
        """Take the files of one old partition, or those of them that a compaction would rewrite anyway."""
        if self._parameters.old_specs == "all":
            self._chosen += partition
            self._wanted |= {item.data_file.file_path for item in partition}
        elif self._parameters.old_specs == "as_needed":
            self._chosen += chosen
            self._wanted |= {item.data_file.file_path for item in chosen if wanted(item)}

    def groups(self) -> list[tuple[Bin, list[ManifestEntry]]]:
        """The groups, each with files that share partitions; without those that would only make more files."""
        files = sorted(self._chosen, key=lambda item: self._destinations.order(item.data_file))
        limit = max(self._parameters.max_group_size_mb * MIB, 2 * self._target)
        parts: list[list[ManifestEntry]] = [[]]
        total = 0
        for item in files:
            size = item.data_file.file_size_in_bytes
            if parts[-1] and total + size > limit:
                parts.append([])
                total = 0
            parts[-1].append(item)
            total += size
        found = [(self._bin(part), part) for part in parts if part]
        return [
            (bin_, part)
            for bin_, part in found
            if bin_.excess > 0 or any(item.data_file.file_path in self._wanted for item in part)
        ]

    def detail(self, members: Sequence[ManifestEntry]) -> dict[str, Any]:
        """What the step of a group says of it."""
        estimate = self.estimate(members)
        return {
            "old_spec_ids": sorted({item.data_file.spec_id for item in members}),
            "partitions_out_at_least": estimate.least,
            "partitions_out_at_most": estimate.most,
        }

    def estimate(self, members: Sequence[ManifestEntry]) -> Estimate:
        """How many partitions the files fall into, by their bounds."""
        return self._destinations.count(item.data_file for item in members)

    def require_known_fields(self, chosen: Sequence[DataFile]) -> None:
        """Raise UnsupportedError when partitions of the current spec cannot be computed from rows."""
        spec, schema = self._state.spec, self._state.table.schema()
        if any(file.spec_id != spec.spec_id for file in chosen):
            Partitioner(spec, schema, arrow_schema(schema))

    def _bin(self, part: Sequence[ManifestEntry]) -> Bin:
        by_path = {item.data_file.file_path: item for item in part}
        out = 0
        for record, files in by_destination(
            [item.data_file for item in part], self._destinations, SMALL_SHARE * self._target
        ):
            alive = sum(
                int(file.file_size_in_bytes * (1 - self._weight.ratio(by_path[file.file_path]))) for file in files
            )
            partitions = 1 if record is not None else self._destinations.count(files).least
            out += max(partitions, files_out(alive, self._target)) if alive else 0
        size = sum(item.data_file.file_size_in_bytes for item in part)
        return Bin(tuple(range(len(part))), size, out)
