"""Rewriting manifests on real tables: the same entries in few manifests, whatever others do meanwhile."""

from __future__ import annotations

from aurum_orchestration_tests.integration.upkeep.lakeside import (
    BY_REGION,
    REGIONS,
    Lakeside,
    append,
    contents,
    entries,
    files_of,
    manifests,
)


def test_many_manifests_become_one_with_the_same_entries(lake: Lakeside) -> None:
    table = lake.table(spec=BY_REGION)
    for number, region in enumerate(REGIONS):
        append(table, 4, start=100 * number, region=region)
    before, rows, snapshot = entries(table), contents(table), table.current_snapshot()
    assert len(manifests(table)) == 20
    done = lake.run("manifests")
    table.refresh()
    assert (done.status, done.reason) == ("completed", "20 of 20 manifests become 1")
    assert len(manifests(table)) == 1
    assert entries(table) == before
    assert contents(table) == rows
    assert done.verification is not None
    assert done.verification.ok
    assert done.verification.rows_before == 200
    new, old = table.current_snapshot(), snapshot
    assert new is not None
    assert old is not None
    assert new.parent_snapshot_id == old.snapshot_id
