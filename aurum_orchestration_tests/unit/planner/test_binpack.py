from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from aurum_orchestration.maintenance.planner.binpack import SMALL_SHARE, Bin, files_out, is_small, pack
from aurum_orchestration_tests.unit.planner.builders import rule

TARGET = 1000

sizes_of_a_partition = st.lists(
    st.one_of(st.integers(0, 2 * TARGET), st.sampled_from([749, 750, 751, 625, 1, 999, 1000])), max_size=60
)
limits = st.integers(1, 20 * TARGET)
minimums = st.integers(1, 10)


def written(bin_: Bin) -> list[int]:
    """Sizes of the files that a writer makes of a bin: as even as whole bytes allow."""
    share, rest = divmod(bin_.bytes, bin_.files_out)
    return [share + (position < rest) for position in range(bin_.files_out)]


def after(sizes: list[int], bins: list[Bin]) -> list[int]:
    gone = {member for bin_ in bins for member in bin_.members}
    kept = [size for position, size in enumerate(sizes) if position not in gone]
    return kept + [size for bin_ in bins for size in written(bin_)]


@rule
@given(sizes_of_a_partition, limits, minimums, st.randoms(use_true_random=False))
def test_a_packed_partition_is_never_packed_again(sizes: list[int], limit: int, minimum: int, random: Random) -> None:
    left = after(sizes, pack(sizes, TARGET, minimum, limit))
    random.shuffle(left)  # the catalog may list the new files anywhere
    assert pack(left, TARGET, minimum, limit) == []


@rule
@given(sizes_of_a_partition, limits)
def test_at_most_one_small_file_is_left(sizes: list[int], limit: int) -> None:
    left = after(sizes, pack(sizes, TARGET, 1, limit))
    assert sum(is_small(size, TARGET) for size in left) <= 1


@rule
@given(st.integers(0, 100 * TARGET))
def test_what_comes_out_is_near_the_target(total: int) -> None:
    count = files_out(total, TARGET)
    assert total / count < 1.75 * TARGET
    assert count == 1 or total / count >= 0.875 * TARGET
    assert count > 1 or total < 1.75 * TARGET


@rule
@given(sizes_of_a_partition, limits, minimums)
def test_bins_hold_small_files_once_each_within_the_limit_and_save_files(
    sizes: list[int], limit: int, minimum: int
) -> None:
    bins = pack(sizes, TARGET, minimum, limit)
    members = [member for bin_ in bins for member in bin_.members]
    assert members == sorted(set(members))
    for bin_ in bins:
        assert all(sizes[member] < SMALL_SHARE * TARGET for member in bin_.members)
        assert bin_.bytes == sum(sizes[member] for member in bin_.members) <= max(limit, 2 * TARGET)
        assert bin_.excess == len(bin_.members) - bin_.files_out > 0


def test_too_few_small_files_are_left_alone() -> None:
    assert pack([10] * 4, TARGET, 5, 10**6) == []
    assert [bin_.members for bin_ in pack([10, 5000, 10, 10, 10, 10], TARGET, 5, 10**6)] == [(0, 2, 3, 4, 5)]


def test_a_group_limit_below_the_target_still_ends() -> None:
    sizes = [400] * 30
    left = after(sizes, pack(sizes, TARGET, 2, 1))
    assert len(left) < len(sizes)
    assert pack(left, TARGET, 2, 1) == []
