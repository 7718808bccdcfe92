"""How well a table's live data files are laid out, by the rules of its compaction policy. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import msgspec
from pydantic import BaseModel

from aurum_orchestration.maintenance.backends.iceberg.manifests import LiveFile
from aurum_orchestration.maintenance.backends.iceberg.metadata import TableState
from aurum_orchestration.maintenance.backends.iceberg.refusals import PARQUET
from aurum_orchestration.maintenance.operations.compaction import MIB, CompactionPolicy
from aurum_orchestration.maintenance.planner.binpack import SMALL_SHARE, files_out, is_small, pack


class Rules(msgspec.Struct, frozen=True, gc=False):
    """What of a compaction policy decides which files count; sizes in bytes."""

    target: int
    min_input_files: int
    max_group: int
    clear: int

    @classmethod
    def of(cls, policy: BaseModel) -> Rules:
        """The rules of a compaction policy."""
        given = cast(CompactionPolicy, policy)
        return cls(
            given.target_file_size_mb * MIB,
            given.min_input_files,
            given.max_group_size_mb * MIB,
            max(1, given.clear_excess_files),
        )


@dataclass(frozen=True, slots=True)
class Layout:
    """Exact numbers about the live data files, and the ones that a compaction would rewrite."""

    metrics: dict[str, float]
    candidates: list[LiveFile]


def layout_of(files: Iterable[LiveFile], rules: Rules) -> Layout:
    """The layout of live data files, given in the order of the manifests; packed as they were committed."""
    files = sorted(files, key=_committed)
    # among Parquet files those of other formats are left as they are; where all are others, they are the reason
    small, excess, candidates = _packed([file for file in files if file.file_format == PARQUET] or files, rules)
    count, size = len(files), sum(file.file_size_in_bytes for file in files)
    metrics = {
        "data_files": count,
        "data_bytes": size,
        "rows": sum(file.record_count for file in files),
        "avg_file_bytes": size / count if count else 0.0,
        "small_files": small,
        "small_bytes": sum(file.file_size_in_bytes for file in candidates),
        "excess_files": excess,
        "partitions": len({(file.spec_id, file.partition) for file in files}),
    }
    return Layout({name: float(value) for name, value in metrics.items()}, candidates)


def _packed(files: Iterable[LiveFile], rules: Rules) -> tuple[int, int, list[LiveFile]]:
    """Small files, how many could be saved, and the files that a compaction would rewrite."""
    partitions: defaultdict[tuple[object, ...], list[LiveFile]] = defaultdict(list)
    for file in files:
        partitions[(file.spec_id, file.partition)].append(file)
    small = excess = 0
    candidates: list[LiveFile] = []
    for members in partitions.values():
        sizes = [file.file_size_in_bytes for file in members]
        small_here = sum(is_small(one, rules.target) for one in sizes)
        if small_here >= rules.min_input_files:
            small += small_here
            for bin_ in pack(sizes, rules.target, rules.min_input_files, rules.max_group):
                excess += bin_.excess
                candidates += (members[position] for position in bin_.members)
    return small, excess, candidates


def _committed(file: LiveFile) -> int:
    return file.sequence_number


def estimate(state: TableState, rules: Rules) -> tuple[int, int]:
    """(small files, excess files) as the summaries suggest: the most that the table or its latest commits could save.

    Zero where files are on average large enough.
    """
    best = (0, 0)
    for files, size in state.windows:
        if files >= rules.min_input_files and size < files * rules.target * SMALL_SHARE:
            best = max(best, (files - files_out(size, rules.target), files))
    return best[1], best[0]


def suspicion(state: TableState, rules: Rules) -> float:
    """How many files a compaction might save: what decides whether the manifests are worth reading."""
    if not state.windows:
        return float("inf")
    return max(
        (files - files_out(size, rules.target) for files, size in state.windows if files >= rules.min_input_files),
        default=0,
    )
