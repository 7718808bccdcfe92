"""A real pooler before a real server: in transaction mode it is refused with the reason, in session mode all works."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aurum_orchestration.errors import LeaseHeldError, OperationCancelledError, UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.advisory import reserved
from aurum_orchestration_tests.integration.postgres.support import ROWS, TRADES, Pg, a_run, opened
from aurum_orchestration_tests.servers.pgbouncer import pooled


@pytest.mark.parametrize(("mode", "in_turn"), [("transaction", False), ("transaction", True), ("statement", False)])
def test_a_pool_without_sessions_is_refused_before_anything_is_done(pg: Pg, mode: str, in_turn: bool) -> None:
    with pooled(pg.dsn, mode, in_turn=in_turn) as dsn:
        through = replace(pg, dsn=dsn)
        with through.connect() as one, through.connect() as two:  # a pool with two processes that are free by turns
            for connection in (one, two):
                connection.execute("BEGIN") if mode == "transaction" else None
            for connection in (one, two):
                connection.execute("ROLLBACK") if mode == "transaction" else None
            with opened(through.backend()) as backend, pytest.raises(UnsupportedError, match="in transaction mode"):
                backend.server()
        refused = through.run("vacuum")
    assert refused.status == "failed"
    assert "advisory lock" in str(refused.problem and refused.problem.detail)
    assert pg.sql("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'") == []


def test_a_pool_in_session_mode_serves_leases_settings_and_cancellation(pg: Pg) -> None:
    pg.sql("DELETE FROM trades WHERE id % 2 = 0")
    with pooled(pg.dsn, "session") as dsn:
        through = replace(pg, dsn=dsn)
        with opened(through.backend()) as backend:
            assert backend.server().pooler
            oid = backend.load(TableId.parse(TRADES)).oid
            with backend.sessions.work("vacuum", None) as session, reserved(session, oid, TRADES):
                assert pg.sql(f"SELECT application_name FROM pg_stat_activity WHERE pid = {session.pid}") == [
                    ("aurum:vacuum:-",)
                ]
                with backend.sessions.work("reindex", None) as other:
                    assert other.value("SHOW lock_timeout") == "2s"
                    with pytest.raises(LeaseHeldError, match="aurum:vacuum"), reserved(other, oid, TRADES):
                        pass
            run = a_run()
            threading.Timer(0.2, run.cancelled.set).start()
            with backend.sessions.work("vacuum", run) as session, pytest.raises(OperationCancelledError):
                session.execute("SELECT pg_sleep(60)")
        freed = through.run("vacuum")
    assert freed.metrics["dead_tuples_removed"] == ROWS // 2


@pytest.mark.thorough
def test_every_operation_works_through_a_pool_in_session_mode(pg: Pg, tmp_path: Path) -> None:
    pg.sql("CREATE MATERIALIZED VIEW curves AS SELECT curve, count(*) AS n FROM trades GROUP BY 1")
    pg.sql("DELETE FROM trades WHERE id % 2 = 0", "ANALYZE")
    groups = "    logs:\n      - {title: Trades, table: public.trades, time_column: at, age_days: 1}\n"
    database = f"pg.{pg.name}"
    with pooled(pg.dsn, "session") as dsn:
        through = replace(pg, dsn=dsn)

        def run(operation: str, target: str = TRADES, **given: Any) -> tuple[str, Any]:
            result = through.run(operation, target, **given)
            return str(result.status), result.problem

        done = {
            "vacuum": run("vacuum"),
            "reindex": run("reindex", scope="table"),
            "views": run("views", database, allow_plain=True),
            "stats": run("stats", analyze="all"),
            "bloat": run("bloat"),
            "backup": run("backup", database, path=str(tmp_path / "backups"), verify="restore"),
            "logs": run("logs", database, extra=groups),
        }
    assert done == dict.fromkeys(done, ("completed", None))
    deadline = time.monotonic() + 60
    while pg.sql("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'"):
        assert time.monotonic() < deadline, "a lease outlived its session"
        time.sleep(0.05)
