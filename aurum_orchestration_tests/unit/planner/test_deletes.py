"""When deletes let the planner compact a table whose files are large enough."""

from __future__ import annotations

import pytest

from aurum_orchestration.maintenance.operations.compaction import CompactionPolicy
from aurum_orchestration.maintenance.planner.debt import deletes_points
from aurum_orchestration.maintenance.planner.facts import NO_FACTS
from aurum_orchestration.maintenance.planner.triggers import compaction

LARGE = {"excess_files": 0.0, "data_files": 10.0, "data_bytes": 1e9, "rows": 1e6}


@pytest.mark.parametrize(
    ("deletes", "crossed"),
    [
        ({}, False),
        ({"delete_files": 1, "position_delete_rows": 99_999}, False),
        ({"delete_files": 1, "position_delete_rows": 100_000}, True),
        ({"delete_files": 2, "position_delete_rows": 50_000, "equality_delete_rows": 50_000}, True),
        ({"delete_files": 99}, False),
        ({"delete_files": 100}, True),
        ({"delete_files": 0, "position_delete_rows": 500_000}, False),
    ],
)
def test_the_share_of_rows_and_the_count_of_files(deletes: dict[str, float], crossed: bool) -> None:
    found = compaction({**LARGE, **deletes}, CompactionPolicy(), NO_FACTS)
    assert found is not None
    assert found.crossed is crossed
    if crossed:
        assert found.gain.debt_score == round(deletes_points({**LARGE, **deletes}), 2)
        assert found.cost.bytes == 2e9


def test_the_thresholds_are_the_policys() -> None:
    metrics = {**LARGE, "delete_files": 5.0, "position_delete_rows": 20_000.0}
    for policy, crossed in (
        (CompactionPolicy(max_deleted_ratio=0.02), True),
        (CompactionPolicy(max_deleted_ratio=0.03), False),
        (CompactionPolicy(max_delete_files=5), True),
        (CompactionPolicy(max_delete_files=6), False),
    ):
        found = compaction(metrics, policy, NO_FACTS)
        assert found is not None
        assert found.crossed is crossed
        assert not crossed or found.reason == (
            "5 delete files with 20,000 entries weigh on 1,000,000 rows; compaction would fold them in"
        )
