"""Expiry and rows by time through a real Trino.

What could lose a row or leave debris, and where it is tried here:

* a snapshot goes that has to stay: among the last ones, tagged, or made on purpose while the plan waits;
* an age below the catalog's floor is sent, or the floor lowered;
* rows that are not old, or have no time, leave with the old ones; the rows cannot be brought back though the undo
  says so;
* the connection breaks while Trino works: sent twice, or told wrong;
* files that nothing refers to stay behind a Trino that was killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.transforms import DayTransform

from aurum_orchestration.errors import BackendUnavailableError, OperationCancelledError, StateDriftedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.trino import retention
from aurum_orchestration.maintenance.backends.iceberg.trino.capabilities import probe
from aurum_orchestration.maintenance.backends.iceberg.trino.client import TrinoClient
from aurum_orchestration.maintenance.backends.iceberg.trino.connection import TrinoConnection
from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable
from aurum_orchestration.maintenance.flow import Tally, run_units
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, MaintenanceStatus, RunContext
from aurum_orchestration.maintenance.operations.retention import RetentionParameters
from aurum_orchestration.maintenance.stopping import StopSignal
from aurum_orchestration_tests.integration.iceberg.support import spec_of, typed
from aurum_orchestration_tests.integration.trino.upkeep import BELOW, Shared, files_of, shared, there
from aurum_orchestration_tests.servers.breaking_proxy import How, breaking_proxy, hangs_up, loses_the_answer
from aurum_orchestration_tests.servers.trino import TrinoServer

BY_DAY = {"spec": spec_of((2, DayTransform(), "on_day"))}
TODAY = datetime.now(UTC).date()


@pytest.fixture
def lake(trino: TrinoServer, tmp_path: Path) -> Iterator[Shared]:
    with shared(trino, tmp_path) as made:
        yield made


def days(*ago: int | None, first: int = 0) -> list[dict[str, Any]]:
    """A row for each day, so many days ago; None is a row without."""
    return [
        {"id": first + number, "day": None if one is None else TODAY - timedelta(days=one), "hub": "x"}
        for number, one in enumerate(ago)
    ]


def opened(lake: Shared, *, port: int | None = None) -> TrinoTable:
    config = {**lake.config(port=port), "http_attempts": 1}
    client = TrinoClient(TrinoConnection.of(config, "lake"), "lake")
    return TrinoTable(client, TableId("lake", (lake.namespace, "t")), probe(client), lake.table())


def planned(table: TrinoTable, **given: Any) -> MaintenancePlan:
    return retention.plan(table, table.table_id, RetentionParameters(**given))


def carry_out(plan: MaintenancePlan, table: TrinoTable) -> Tally:
    tally, run = Tally(), RunContext("an-operation")
    run_units(retention.execution(plan, table), run, tally, StopSignal(), lambda: None)
    return tally


def snapshots(lake: Shared) -> list[int]:
    return [one.snapshot_id for one in lake.table().metadata.snapshots]


async def test_old_snapshots_and_whole_old_days_go_and_nothing_else_does(lake: Shared) -> None:
    """Ten days on: the last two snapshots stay, so does the tagged first; rows without a day, and young ones, stay."""
    made = lake.make("t", days(60, 59), days(20, None, first=2), days(1, 0, first=4), **BY_DAY)
    made.manage_snapshots().create_tag(made.metadata.snapshots[0].snapshot_id, "first").commit()
    lake.aged("t", 10)
    before = snapshots(lake)

    dry = await lake.run("retention", dry_run=True, retain_last=1, time_column="day", row_days=15)
    assert snapshots(lake) == before
    assert dry.steps is not None
    assert [step.action for step in dry.steps] == ["delete_rows", "expire"]
    assert dry.steps[0].detail["rows"] == 3
    assert dry.steps[0].detail["metadata_only"]
    files = [path for kind in ("data_files", "manifests", "manifest_lists") for path in dry.steps[1].detail[kind]]
    assert files
    assert there(files) == files

    done = await lake.run("retention", retain_last=1, time_column="day", row_days=15)
    assert done.status == MaintenanceStatus.COMPLETED, done.problem
    assert lake.ids() == [3, 4, 5]
    assert lake.ids(version=before[0]) == [0, 1]
    assert (done.metrics["rows_deleted"], done.metrics["snapshots_expired"]) == (3, 1)
    assert done.verification is not None
    assert (done.verification.rows_before, done.verification.rows_after) == (3, 3)
    # the tagged one, where main stood when planned, and what the DELETE made
    assert snapshots(lake)[:-1] == [before[0], before[2]]
    assert done.metrics["files_deleted"] == len(files)
    assert there(files) == []
    assert done.undo_data == {"engine": "trino", "rollback_to": before[2], "snapshots": [snapshots(lake)[-1]]}
    assert "nothing brings expired snapshots back" in (done.undo or "")


async def test_a_renamed_time_column_waits_for_the_next_commit(lake: Shared) -> None:
    """Trino reads a snapshot by the names that it was written with."""
    lake.make("t", days(60, 1), **BY_DAY)
    lake.sql('ALTER TABLE {t}.t RENAME COLUMN "day" TO delivery')
    given: dict[str, Any] = {"time_column": "delivery", "row_days": 15}
    left = await lake.run("retention", **given)
    assert left.status == MaintenanceStatus.SKIPPED
    assert "time_column delivery: the newest snapshot is from before the column had this name" in left.reason
    lake.sql("INSERT INTO {t}.t (id, delivery) VALUES (2, current_date)")
    done = await lake.run("retention", **given)
    assert done.status == MaintenanceStatus.COMPLETED, done.problem
    assert lake.ids() == [1, 2]


async def test_an_age_below_the_catalogs_floor_is_refused_before_anything_is_sent(lake: Shared) -> None:
    lake.make("t", days(1), days(0))
    lake.aged("t", 6)
    before = lake.table().metadata_location
    told = await lake.run("retention", retention_days=5, retain_last=1, options={"floors": True})
    assert told.status == MaintenanceStatus.FAILED
    assert told.problem is not None
    assert told.problem.type == "validation-error"
    assert "nothing younger than 7 days" in (told.problem.detail or "")
    assert "retention_days to 7" in (told.problem.hint or "")
    assert lake.table().metadata_location == before


@pytest.mark.thorough
async def test_an_old_branch_holds_up_main_only_where_trino_cannot_be_told_how_many_to_keep(lake: Shared) -> None:
    """By age alone what main may lose takes the branch's last ones along: then it stays."""
    lake.make("t", *(days(0, first=number) for number in range(3)))
    lake.table().manage_snapshots().create_branch(snapshots(lake)[2], "audit").commit()
    for number in range(3, 6):
        lake.table().append(typed(lake.table(), days(0, first=number)))
    lake.aged("t", 30)
    first, second, third, fourth, *last = snapshots(lake)
    told = opened(lake).knows(retention.RETAIN_LAST)
    done = await lake.run("retention", retain_last=2)
    assert done.status == MaintenanceStatus.COMPLETED, done.problem
    assert first not in snapshots(lake)
    assert snapshots(lake) == [second, third, *([] if told else [fourth]), *last]
    assert lake.ids() == list(range(6))


@pytest.mark.thorough
async def test_the_last_ones_stay_where_trino_would_take_them(lake: Shared) -> None:
    """Trino has no "keep the last": with three of five to be kept, two go, whatever their age."""
    lake.make("t", *(days(0, first=number) for number in range(5)))
    lake.aged("t", 30)
    before = snapshots(lake)
    done = await lake.run("retention", retain_last=3)
    assert done.status == MaintenanceStatus.COMPLETED, done.problem
    assert snapshots(lake) == before[2:]
    again = await lake.run("retention", retain_last=3)
    assert again.status == MaintenanceStatus.SKIPPED
    assert "among the last 3" in again.reason
    assert lake.ids() == [0, 1, 2, 3, 4]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("kind", "layout", "unit"),
    [
        ("date", "month(at)", "%Y-%m"),
        ("timestamp(6)", "hour(at)", "%F %H"),
        ("timestamp(6)", "truncate(hub, 2)', 'day(at)", "%F"),
        ("timestamp(6) with time zone", "bucket(id, 4)', 'day(at)", "%F"),
        ("timestamp(6) with time zone", "year(at)", "%Y"),
        ("timestamp(6) with time zone", "bucket(id, 4)", ""),
    ],
)
async def test_no_row_that_is_younger_or_has_no_time_goes_however_a_table_is_partitioned(
    kind: str, layout: str, unit: str, lake: Shared
) -> None:
    """Rows right before, at and after the cutoff: whole partitions first, then the rest, whose delete files fold in."""
    now = datetime.now(UTC)
    hour = now.replace(minute=0, second=0, microsecond=0)
    cutoff = hour - timedelta(days=15)
    row_days = 15 + (now - hour - timedelta(minutes=30)) / timedelta(days=1)  # half past the hour that counts
    moments = [cutoff + timedelta(seconds=one) for one in (-400 * 86_400, -40 * 86_400, -86_400, -1, 0, 1)]

    def told(one: datetime) -> str:
        zone = " UTC" if "zone" in kind else ""
        return f"DATE '{one:%F}'" if kind == "date" else f"TIMESTAMP '{one:%F %T}{zone}'"

    values = [*map(told, moments), f"CAST(NULL AS {kind})"]
    lake.sql(f"CREATE TABLE {{t}}.t (id bigint, at {kind}, hub varchar) WITH (partitioning = ARRAY['{layout}'])")
    lake.sql("INSERT INTO {t}.t VALUES " + ", ".join(f"({id_}, {value}, 'hub')" for id_, value in enumerate(values)))
    old = [id_ for id_, one in enumerate(moments) if (one.date() < cutoff.date() if kind == "date" else one < cutoff)]

    gone = {id_ for id_ in old if f"{moments[id_]:{unit}}" < f"{cutoff:{unit}}"} if unit else set()

    given: dict[str, Any] = {"time_column": "at", "row_days": row_days, "retention_days": 30}
    done = await lake.run("retention", **given)
    assert done.status in {MaintenanceStatus.COMPLETED, MaintenanceStatus.SKIPPED}, done.problem
    assert set(lake.ids()) == set(range(len(values))) - gone
    done = await lake.run("retention", **given, rewrite_files=True)
    assert done.status in {MaintenanceStatus.COMPLETED, MaintenanceStatus.SKIPPED}, done.problem
    left = sorted(set(range(len(values))) - set(old))
    assert lake.ids() == left
    folded = await lake.run("compaction", max_deleted_ratio=0.01)
    assert folded.status in {MaintenanceStatus.COMPLETED, MaintenanceStatus.SKIPPED}, folded.problem
    assert lake.sql('SELECT count(*) FROM {t}."t$files" WHERE content <> 0') == [(0,)]
    assert lake.ids() == left


@pytest.mark.thorough
async def test_rows_among_others_go_when_asked_for_and_come_back(lake: Shared) -> None:
    lake.make("t", days(60, 0, None), days(50, 1, first=3))
    left = await lake.run("retention", time_column="day", row_days=15)
    assert left.status == MaintenanceStatus.SKIPPED
    assert "2 rows stay among others" in left.reason

    done = await lake.run("retention", time_column="day", row_days=15, rewrite_files=True)
    assert done.status == MaintenanceStatus.COMPLETED, done.problem
    assert lake.ids() == [1, 2, 4]
    assert done.metrics["rows_deleted"] == 2
    assert any("a compaction takes them out" in warning for warning in done.warnings)
    assert done.undo_data is not None
    assert lake.ids(version=done.undo_data["rollback_to"]) == [0, 1, 2, 3, 4]
    async with lake.service() as service:
        undone = await service.undo(done.operation_id)
    assert undone.status == MaintenanceStatus.COMPLETED, undone.problem
    assert lake.ids() == [0, 1, 2, 3, 4]


@pytest.mark.thorough
async def test_a_column_that_is_no_time_and_one_that_is_not_there(lake: Shared) -> None:
    lake.make("t", days(60))
    no_time = await lake.run("retention", time_column="hub")
    assert no_time.status == MaintenanceStatus.SKIPPED
    assert "no timestamp and no date" in no_time.reason
    not_there = await lake.run("retention", time_column="dya")
    assert not_there.problem is not None
    assert not_there.problem.type == "validation-error"
    assert lake.ids() == [0]


@pytest.mark.thorough
async def test_files_that_may_belong_to_another_table_stay(lake: Shared) -> None:
    lake.make("t", days(0), days(0), properties={"gc.enabled": "false"})
    lake.aged("t", 30)
    before = snapshots(lake)
    told = await lake.run("retention", retain_last=1)
    assert told.status == MaintenanceStatus.SKIPPED
    assert "gc.enabled" in told.reason
    assert snapshots(lake) == before


@pytest.mark.thorough
async def test_without_the_catalog_files_are_estimates_and_called_so(lake: Shared) -> None:
    lake.make("t", days(0), days(0), days(0))
    lake.aged("t", 30)
    done = await lake.run("retention", retain_last=1, options={"embedded": False})
    assert done.status == MaintenanceStatus.COMPLETED, done.problem
    assert done.steps is not None
    assert not done.steps[0].detail["exact"]
    assert any("estimates" in warning for warning in done.warnings)
    assert "files_deleted" not in done.metrics
    assert done.metrics["snapshots_expired"] == 2


@pytest.mark.thorough
def test_a_tag_made_while_the_plan_waits_keeps_its_snapshot(lake: Shared) -> None:
    lake.make("t", days(0), days(0), days(0))
    lake.aged("t", 30)
    table = opened(lake)
    plan = planned(table, retain_last=1)
    now = lake.table()
    now.manage_snapshots().create_tag(snapshots(lake)[0], "late").commit()
    before = snapshots(lake)
    with pytest.raises(StateDriftedError, match="may not go any more"):
        carry_out(plan, table)
    assert snapshots(lake) == before


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("how", "pattern", "takes_place"),
    [
        pytest.param(loses_the_answer(), "GET /v1/statement/executing", True, id="the answer is lost"),
        pytest.param(hangs_up, "GET /v1/statement/queued", False, id="it never starts"),
    ],
)
def test_a_connection_that_breaks_in_the_middle(lake: Shared, how: How, pattern: str, *, takes_place: bool) -> None:
    """Read back: what took place is told, what did not is done by the next run; sent twice is nothing."""
    lake.make("t", days(0), days(0), days(0))
    lake.aged("t", 30)
    before = snapshots(lake)
    with breaking_proxy(lake.server.url) as proxy:
        table = opened(lake, port=int(proxy.url.rpartition(":")[2]))
        plan = planned(table, retain_last=1)
        change = table.change

        def breaking(*given: Any, **named: Any) -> Any:
            proxy.breaks(pattern, how)
            try:
                return change(*given, **named)
            finally:
                proxy.heal()

        table.change = breaking  # type: ignore[method-assign] # a fault that begins with this statement
        if takes_place:
            tally = carry_out(plan, table)
            assert tally.metrics["snapshots_expired"] == 2
            assert any("read back" in warning for warning in tally.warnings)
        else:
            with pytest.raises(BackendUnavailableError):
                carry_out(plan, table)
            assert snapshots(lake) == before
    table = opened(lake)
    plan = planned(table, retain_last=1)
    if plan.steps:
        carry_out(plan, table)
    assert snapshots(lake) == before[2:]
    assert lake.ids() == [0, 0, 0]


@pytest.mark.thorough
def test_rows_that_a_cancelled_run_deleted_are_put_back(lake: Shared) -> None:
    """Cancelled between Trino's commit and its last answer: the rows went, which is found out, undone and told."""
    lake.make("t", days(60, 0), **BY_DAY)
    table, run, tally = opened(lake), RunContext("an-operation"), Tally()
    plan = planned(table, time_column="day", row_days=15)
    change, table.run = table.change, run

    def cancelled_at_the_end(*given: Any, **named: Any) -> Any:
        error = OperationCancelledError("the run was cancelled")
        error.query_id = change(*given, **named).query_id
        run.cancelled.set()
        raise error

    table.change = cancelled_at_the_end  # type: ignore[method-assign] # as the client ends with the last answer
    with pytest.raises(OperationCancelledError):
        run_units(retention.execution(plan, table), run, tally, StopSignal(), lambda: None)
    assert len(snapshots(lake)) == 2
    assert lake.ids() == [0, 1]
    assert ["was taken back because it could not be checked" in told for told in tally.taken_back] == [True]


@pytest.mark.thorough
async def test_what_a_killed_expiry_left_goes_with_the_next_vacuum(lake: Shared) -> None:
    """Snapshots out of the metadata, no file deleted: that is how a Trino that dies after its commit leaves a table."""
    made = lake.make("t", days(0), days(0, first=1))
    with made.transaction() as transaction, transaction.update_snapshot().overwrite() as overwrite:
        for task in made.scan("id = 0").plan_files():
            overwrite.delete_data_file(task.file)
    lost = files_of(made)
    now = lake.table()
    now.maintenance.expire_snapshots().by_ids([one.snapshot_id for one in now.metadata.snapshots[:-1]]).commit()
    assert (await lake.run("retention", retain_last=1)).status == MaintenanceStatus.SKIPPED
    done = await lake.run("vacuum", older_than_days=0, **BELOW)
    assert done.status == MaintenanceStatus.COMPLETED, done.problem
    assert done.metrics["files_deleted"] >= 3
    assert len(there(lost)) < len(lost)
    assert lake.ids() == [1]
