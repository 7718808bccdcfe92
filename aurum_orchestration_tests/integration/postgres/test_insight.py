"""What is told of a real database: MaintenanceUtils, aurum report, aurum doctor."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import jsonschema
import psycopg
import pytest

from aurum_orchestration.cli.reference import output_schema
from aurum_orchestration.maintenance.backends.postgres import checkup, horizon
from aurum_orchestration.maintenance.findings import Finding
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.maintenance.utils import MaintenanceUtils
from aurum_orchestration.settings import AurumSettings
from aurum_orchestration_tests.command import Outcome, aurum
from aurum_orchestration_tests.integration.postgres.support import ROWS, Pg, opened


@contextmanager
def utils(settings: AurumSettings, backend: str = "pg") -> Iterator[MaintenanceUtils]:
    service = MaintenanceService(settings)
    try:
        yield service.database(backend)
    finally:
        asyncio.run(service.close())


def command(pg: Pg, *arguments: str) -> Outcome:
    settings = pg.settings()
    return aurum(*arguments, AURUM_HOME=str(settings.home), AURUM_FLEET=str(settings.fleet), AURUM_HISTORY_URL="")


@contextmanager
def a_wait(pg: Pg) -> Iterator[tuple[int, int]]:
    """Somebody who waits for a lock, and somebody who holds it: their pids."""
    with pg.connect(application_name="holder") as holder, pg.connect(application_name="waiter") as waiter:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE trades")
        pid = waiter.info.backend_pid

        def wait() -> None:
            with suppress(psycopg.Error):
                waiter.execute("SELECT count(*) FROM trades")

        thread = threading.Thread(target=wait)
        thread.start()
        try:
            while not pg.sql(f"SELECT 1 FROM pg_locks WHERE pid = {pid} AND NOT granted"):
                time.sleep(0.02)
            yield pid, holder.info.backend_pid
        finally:
            holder.execute("ROLLBACK")
            thread.join()


def test_sizes_indexes_sessions_and_locks(pg: Pg) -> None:
    pg.sql("SET enable_seqscan = off", "SELECT count(*) FROM trades WHERE at < '2026-01-02'")
    with a_wait(pg) as (waiter, holder), utils(pg.settings()) as told:
        info = told.get_database_info()
        assert (info.is_postgresql, info.is_sqlite, info.name, info.user) == (True, False, pg.name, "postgres")
        assert info.engine.startswith("PostgreSQL 1")
        (table,) = told.get_table_sizes()
        assert table.table == "public.trades"
        assert table.rows == ROWS
        assert table.total_bytes == table.table_bytes + table.index_bytes
        assert told.get_database_size() > table.total_bytes > ROWS * 60
        assert {one.index for one in told.get_index_info()} == {
            f"public.{name}" for name in ("trades_pkey", "trades_curve", "trades_at")
        }
        assert told.get_active_connections() >= 3
        assert told.get_long_running_queries() == []
        assert {one.pid for one in told.get_long_running_queries(0)} >= {waiter, holder}
        (wait,) = told.check_for_locks()
        assert (wait.pid, wait.blocked_by, wait.relation) == (waiter, [holder], "trades")
        assert f"pid {holder} (user postgres, holder" in wait.blockers[0]


def test_unused_indexes_are_those_that_no_query_and_no_constraint_needs(pg: Pg) -> None:
    pg.sql("SET enable_seqscan = off", "SELECT count(*) FROM trades WHERE curve = 'curve-1'")
    with utils(pg.settings()) as told:
        assert [one.index for one in told.get_unused_indexes()] == ["public.trades_at"]


def test_time_is_estimated_from_bytes_and_then_from_history(pg: Pg) -> None:
    with utils(pg.settings()) as told:
        before = {one.operation: one for one in told.estimate_maintenance_time()}
        assert {"vacuum", "reindex", "backup"} <= set(before)
        assert {one.basis for one in before.values()} == {"bytes"}
    pg.sql("DELETE FROM trades WHERE id % 2 = 0")
    done = pg.run("vacuum")
    with utils(pg.settings()) as told:
        after = {one.operation: one for one in told.estimate_maintenance_time()}
        assert after["vacuum"].basis == "history"
        assert after["vacuum"].seconds == pytest.approx(done.seconds, abs=0.002)
        assert after["reindex"].basis == "bytes"


def test_the_report_is_one_object_and_a_text(pg: Pg) -> None:
    pg.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'trades_at'::regclass")
    with a_wait(pg):
        found = command(pg, "report", "--output", "json")
        text = command(pg, "report").out
    assert found.code == 0, found.err
    jsonschema.validate(found.json, output_schema("report"))
    (one,) = found.json["databases"]
    assert found.json["schema_version"] == 1
    assert (one["backend"], one["info"]["name"]) == ("pg", pg.name)
    assert [index["index"] for index in one["invalid_indexes"]] == ["public.trades_at"]
    assert [wait["relation"] for wait in one["locks"]] == ["trades"]
    assert "public.trades" in text
    assert "Invalid indexes" in text
    assert "behind pid" in text
    assert "Maintenance would take" in text
    assert not (pg.home / "history.db").exists()


def test_a_database_that_does_not_answer_has_its_problem_in_the_report(pg: Pg) -> None:
    settings = pg.settings()
    path = settings.fleet
    assert path is not None
    Path(path).write_text(Path(path).read_text().replace(pg.name, "no_such_database"))
    found = aurum("report", "--output", "json", AURUM_HOME=str(settings.home), AURUM_FLEET=str(path))
    assert found.code == 1
    assert found.json["databases"][0]["problem"]["type"] == "backend-unavailable"


def findings(pg: Pg, **config: object) -> dict[str, Finding]:
    with opened(pg.backend(**config)) as backend:
        return {one.check: one for one in backend.checkup(backend.discover([]))}


def test_doctor_finds_what_stands_in_the_way(pg: Pg, monkeypatch: pytest.MonkeyPatch) -> None:
    well = findings(pg)
    checks = ("reachable", "version", "rights", "long transactions", "locks", "wraparound", "indexes", "clock")
    assert {well[name].status for name in checks} == {"ok"}
    assert well["reachable"].detail == f"database {pg.name} answers, with 1 table"
    assert (well["autovacuum"].status, "trades" in well["autovacuum"].detail) == ("warning", True)
    pg.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'trades_at'::regclass")
    monkeypatch.setattr(checkup, "long_transactions", lambda session: horizon.long_transactions(session, 0))
    monkeypatch.setattr(checkup, "WARN_WRAPAROUND", 0.0)
    with a_wait(pg) as (waiter, holder):
        ill = findings(pg)
    assert "GiB are free in " in well["space"].detail  # the tests' server runs here
    assert {ill[name].status for name in ("long transactions", "locks", "wraparound", "indexes")} == {"warning"}
    assert f"pid {holder}" in ill["long transactions"].detail
    assert f"pid {waiter}" in ill["locks"].detail
    assert f"behind pid {holder}" in ill["locks"].detail
    assert "trades_at" in ill["indexes"].detail


def test_doctor_prints_what_the_database_says(pg: Pg) -> None:
    found = command(pg, "doctor", "--output", "json")
    (target,) = [one for one in found.json["targets"] if one["target"] == "pg"]
    assert {"version", "rights", "wraparound", "autovacuum"} <= {one["check"] for one in target["findings"]}
    assert not (pg.home / "history.db").exists()


def test_doctor_tells_a_role_what_it_lacks(pg: Pg) -> None:
    role = f"weak_{pg.name}"
    pg.sql(f"CREATE ROLE {role} LOGIN")
    try:
        weak = findings(Pg(psycopg.conninfo.make_conninfo(pg.dsn, user=role), pg.name, pg.home))
        assert weak["rights"].status == "warning"
        assert "cannot see what other sessions do" in weak["rights"].detail
        pg.sql(f"GRANT pg_monitor TO {role}")
        assert (
            "owns 0 of 1 table"
            in findings(Pg(psycopg.conninfo.make_conninfo(pg.dsn, user=role), pg.name, pg.home))["rights"].detail
        )
    finally:
        pg.sql(f"DROP ROLE {role}")


def test_a_sqlite_file_is_told_of_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT UNIQUE, b TEXT)")
        connection.execute("CREATE INDEX t_b ON t (b)")
        connection.executemany("INSERT INTO t (a, b) VALUES (?, ?)", [(str(n), "x" * 50) for n in range(500)])
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(f"version: 1\nbackends:\n  db: {{type: sqlite, path: {path}}}\n")
    with utils(AurumSettings(home=tmp_path, fleet=fleet), "db") as told:
        info = told.get_database_info()
        assert (info.is_sqlite, info.name) == (True, str(path))
        assert told.get_database_size() == path.stat().st_size
        assert {one.index: one.needed for one in told.get_index_info()} == {
            "main.t_b": False,
            "main.sqlite_autoindex_t_1": True,
        }
        assert told.get_unused_indexes() == [], "nobody counts scans"
        report = told.get_maintenance_report()
        assert [one.table for one in report.tables] in ([], ["main.t"])
        assert (report.connections, report.locks, report.long_running_queries) == (1, [], [])
