"""Which files a bin-pack compaction would rewrite together.

Measuring and planning both call :func:`pack`, so a table that was just compacted leaves the set of
candidates: its files are either large enough or too few to be worth a commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SMALL_SHARE = 0.75
"""A file below this share of the target size is small (as in Apache Iceberg's and OpenHouse's planners)."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Positions (in what was given to :func:`pack`) of files to be rewritten as one group, and what comes out."""

    members: tuple[int, ...]
    bytes: int
    files_out: int

    @property
    def excess(self) -> int:
        """Files fewer after the rewrite."""
        return len(self.members) - self.files_out


def is_small(size: int, target: int) -> bool:
    """True when a file is worth merging into others."""
    return size < target * SMALL_SHARE


def files_out(total: int, target: int) -> int:
    """How many files hold ``total`` bytes, none of them small unless all of it is less than one small file.

    A remainder that would be a small file joins the others: files of 0.875 to 1.75 times the target,
    so that a writer may miss an even split by a seventh and still leave nothing for the next run.
    """
    return max(1, int(total / target + 1 - SMALL_SHARE))


def pack(sizes: Sequence[int], target: int, min_input_files: int, max_group_bytes: int) -> list[Bin]:
    """Bins over the small files of ONE partition, in the order given (so that neighbours stay neighbours).

    A bin never exceeds ``max_group_bytes`` of input, or two target files if that is more: from less,
    small files would come out again. A partition with fewer than ``min_input_files`` small files, or
    a bin that would not save at least one file, gives nothing. Packing what the bins leave behind
    gives nothing either.
    """
    small = [index for index, size in enumerate(sizes) if is_small(size, target)]
    if len(small) < min_input_files:
        return []
    limit = max(max_group_bytes, 2 * target)
    return [bin_ for bin_ in _fill(small, sizes, target, limit) if bin_.excess > 0]


def _fill(small: Iterable[int], sizes: Sequence[int], target: int, max_group_bytes: int) -> Iterable[Bin]:
    members: list[int] = []
    total = 0
    for index in small:
        if members and total + sizes[index] > max_group_bytes:
            yield Bin(tuple(members), total, files_out(total, target))
            members, total = [], 0
        members.append(index)
        total += sizes[index]
    if members:
        yield Bin(tuple(members), total, files_out(total, target))
