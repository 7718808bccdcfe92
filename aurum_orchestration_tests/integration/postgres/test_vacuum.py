"""VACUUM through the whole flow, and what keeps it from being done."""

from __future__ import annotations

import threading
import time

import pytest

from aurum_orchestration.errors import LeaseHeldError, LockTimeoutError, OperationCancelledError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.advisory import reserved
from aurum_orchestration.maintenance.backends.postgres.vacuum import execute
from aurum_orchestration.maintenance.operations.vacuum import VacuumParameters
from aurum_orchestration_tests.integration.postgres.support import ROWS, TRADES, Pg, a_run, opened


def test_dead_rows_go_and_live_ones_stay(pg: Pg) -> None:
    pg.sql("DELETE FROM trades WHERE id > 15000")
    before = pg.checksum()
    dry = pg.run("vacuum", dry_run=True)
    assert dry.status == "planned"
    assert (dry.steps or [])[0].detail["sql"] == f'VACUUM (SKIP_LOCKED, ANALYZE) {pg.only}"public"."trades"'
    assert pg.health(TRADES)[0].metrics["dead_tuples"] == 5_000
    done = pg.run("vacuum")
    assert (done.status, done.problem) == ("completed", None)
    assert done.metrics["dead_tuples_removed"] == 5_000
    assert done.metrics["dead_tuples_left"] == 0
    assert done.metrics["bytes_freed"] > 0
    assert pg.checksum() == before
    assert pg.run("vacuum").status == "skipped"


def test_a_transaction_that_sees_the_dead_rows_is_named(pg: Pg) -> None:
    with pg.transaction("SELECT count(*) FROM trades") as pid:
        pg.sql("DELETE FROM trades WHERE id % 2 = 0")
        first = pg.run("vacuum")
        assert first.status == "skipped"
        assert f"pid {pid} (user postgres" in first.reason
        planned = pg.run("vacuum", dry_run=True)
        assert planned.status == "skipped", "a vacuum ended since that transaction began"
        assert f"none of {ROWS // 2:,} dead rows" in planned.reason
    assert pg.run("vacuum").metrics["dead_tuples_removed"] == ROWS / 2


def test_rows_are_frozen_when_asked(pg: Pg) -> None:
    pg.sql(*["SELECT txid_current()"] * 5)
    assert pg.run("vacuum").status == "skipped", "nothing is dead"
    assert pg.run("vacuum", freeze="always").metrics["xids_frozen"] > 0


def test_a_lock_of_another_is_not_queued_for_and_told(pg: Pg, monkeypatch: pytest.MonkeyPatch) -> None:
    pg.sql("DELETE FROM trades WHERE id % 2 = 0")
    monkeypatch.setattr(execute, "patiently", lambda work, _run: work())
    with (
        pg.transaction("LOCK TABLE trades IN SHARE UPDATE EXCLUSIVE MODE", isolation="READ COMMITTED") as pid,
        opened(pg.backend()) as backend,
    ):
        plan = backend.plan(TableId.parse(TRADES), "vacuum", VacuumParameters())
        (unit,) = backend.open(plan, a_run()).units()
        with pytest.raises(LockTimeoutError, match=f"pid {pid}"):
            unit.commit(a_run())
    assert pg.health(TRADES)[0].metrics["dead_tuples"] == ROWS / 2


def test_two_maintenances_of_one_table_exclude_each_other_on_the_server(pg: Pg) -> None:
    with opened(pg.backend()) as backend:
        target = backend.load(TableId.parse(TRADES))
        with (
            target.work("vacuum", a_run("first")),
            pytest.raises(LeaseHeldError, match=r"aurum:reindex|aurum:vacuum:first \(pid"),
            target.work("reindex", a_run("second")),
        ):
            pass
        with target.work("reindex", a_run("third")) as session, reserved(session, 1, "another table"):
            pass


def test_a_cancelled_run_stops_its_statement_on_the_server(pg: Pg) -> None:
    run = a_run()
    with opened(pg.backend()) as backend:
        target = backend.load(TableId.parse(TRADES))
        threading.Timer(0.3, run.cancelled.set).start()
        begun = time.monotonic()
        with pytest.raises(OperationCancelledError), target.work("vacuum", run) as session:
            session.execute("SELECT pg_sleep(60)")
        assert time.monotonic() - begun < 30
        assert pg.sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND state = 'active'"
                      " AND pid <> pg_backend_pid()")[0][0] == 0  # fmt: skip


def test_bloat_is_reported_for_a_table_and_for_the_database(pg: Pg) -> None:
    pg.sql("DELETE FROM trades WHERE id % 2 = 0", "VACUUM ANALYZE trades")
    table, database = pg.run("bloat"), pg.run("bloat", f"pg.{pg.name}")
    assert table.status == database.status == "completed"
    assert table.metrics["bloat_bytes"] == database.metrics["bloat_bytes"] > 0
    assert list((database.steps or [])[0].detail["tables"]) == [TRADES]
    assert {one["index"] for one in (table.steps or [])[0].detail["indexes"]} >= {'"public"."trades_pkey"'}
