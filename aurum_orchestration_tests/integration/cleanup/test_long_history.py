"""A table with ten thousand snapshots: measured, expired, and right after it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.table import Table

from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration_tests.integration.cleanup.judges import (
    age_all,
    content_of,
    local,
    on_disk,
    reachable,
    rewrite_metadata,
)
from aurum_orchestration_tests.integration.upkeep.lakeside import Lakeside, append, contents, rows

MINUTE_MS = 60_000
REFS = {"audit": (0.1, "tag"), "work": (0.25, "branch")}
"""Where in the history they stand."""
KEPT_OF_MAIN, KEPT_OF_WORK = 5, 2


def long_history(lake: Lakeside, snapshots: int) -> Table:
    """Real commits, then copies of the newest one, each with a manifest list of its own; one a minute, an hour ago."""
    table = lake.table()
    append(table, 3)
    table.overwrite(rows(table, 100))
    append(table, 1, start=500)
    head = table.refresh().current_snapshot()
    assert head is not None
    listing = Path(local(head.manifest_list))

    def lengthen(metadata: dict[str, Any]) -> None:
        history = metadata["snapshots"]
        newest, last = history[-1], metadata["last-updated-ms"]
        for number in range(len(history) + 1, snapshots + 1):
            copy = listing.with_name(f"snap-{number}-0-copy.avro")
            shutil.copyfile(listing, copy)
            history.append(
                newest
                | {
                    "snapshot-id": number,
                    "parent-snapshot-id": history[-1]["snapshot-id"],
                    "sequence-number": number,
                    "manifest-list": f"file://{copy}",
                }
            )
        for number, one in enumerate(history, 1):
            one["timestamp-ms"] = last - (snapshots - number + 60) * MINUTE_MS
        refs = {name: {"snapshot-id": int(part * snapshots), "type": kind} for name, (part, kind) in REFS.items()}
        refs["work"]["min-snapshots-to-keep"] = KEPT_OF_WORK
        metadata |= {
            "last-sequence-number": snapshots,
            "current-snapshot-id": snapshots,
            "refs": {"main": {"snapshot-id": snapshots, "type": "branch"}, **refs},
            "snapshot-log": [],
        }

    return rewrite_metadata(lake, table, lengthen)


@pytest.mark.parametrize("snapshots", [1_600, pytest.param(10_000, marks=pytest.mark.thorough)])
def test_a_long_history_is_measured_expired_and_stays_right(lake: Lakeside, snapshots: int) -> None:
    lake.policy(retention={"retention_days": 1})
    table = long_history(lake, snapshots)
    before = {name: contents(table, ref.snapshot_id) for name, ref in table.metadata.refs.items()}
    first = content_of(table, table.metadata.snapshots[0].snapshot_id)

    async def decided() -> tuple[dict[str, float], str, str]:
        async with MaintenanceService(lake.settings) as service:
            (one,) = await service.status(["lake.ns.t"])
        (decision,) = [each for each in one.decisions if each.operation == "retention"]
        return dict(one.metrics), decision.code, decision.reason

    metrics, code, reason = asyncio.run(decided())
    young = (24 - 1) * 60 + 1  # of main, and the ones that are kept beside
    assert metrics["snapshots"] == snapshots
    assert abs(metrics["expirable_snapshots"] - (snapshots - young - 1 - KEPT_OF_WORK)) <= 5  # minutes that passed
    assert (code, reason.endswith(f"of {snapshots:,} snapshots may go")) == ("recommended", True)

    done = lake.run("retention", retention_days=1, retain_last=KEPT_OF_MAIN)
    assert (done.status, done.warnings) == ("completed", [])
    table.refresh()
    left = len(table.metadata.snapshots)
    assert left == snapshots - done.metrics["snapshots_expired"]
    assert abs(done.metrics["snapshots_expired"] - metrics["expirable_snapshots"]) <= 5
    assert {name: contents(table, ref.snapshot_id) for name, ref in table.metadata.refs.items()} == before
    assert on_disk(table) == reachable(table)
    assert not {path for path in first if path.endswith(".parquet")} & on_disk(table)

    append(table, 1, start=900)
    assert contents(table.refresh()).total() == before["main"].total() + 10
    age_all(table)
    assert lake.run("vacuum").metrics.get("files_quarantined", 0) <= 1, "the metadata file that was written by hand"
    assert contents(table.refresh()).total() == before["main"].total() + 10
