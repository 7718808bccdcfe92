"""REINDEX CONCURRENTLY through the whole flow, beside others and with the worst happening in the middle."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from aurum_orchestration.errors import AurumError, BackendUnavailableError, LeaseHeldError, TableNotFoundError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres import space
from aurum_orchestration.maintenance.backends.postgres.connection import Sessions
from aurum_orchestration.maintenance.interfaces import RunContext
from aurum_orchestration.maintenance.operations.reindex import ReindexParameters
from aurum_orchestration_tests.integration.postgres.support import CHURN, TRADES, Pg, a_run, carry_out, opened

LITTLE: dict[str, Any] = {"min_bloat_mb": 0.2}
INVALID = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid ORDER BY 1"
BUILDING = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'REINDEX INDEX CONCURRENTLY%' AND state = 'active'"


def churn(pg: Pg) -> None:
    """Indexes far larger than they need be."""
    pg.sql("DELETE FROM trades WHERE id % 8 <> 0")
    pg.sql("VACUUM ANALYZE trades")


def sizes(pg: Pg) -> dict[str, int]:
    rows = pg.sql(
        "SELECT indexrelid::regclass::text, pg_relation_size(indexrelid)"
        "  FROM pg_index WHERE indrelid = 'trades'::regclass"
    )
    return dict(rows)


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 100
    while not true():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.05)


@contextmanager
def reindexing(pg: Pg, **given: Any) -> Iterator[tuple[threading.Event, list[AurumError]]]:
    """A reindex of every index of the table in a thread; it builds when the body begins, and has ended after it."""
    run = a_run()
    problems: list[AurumError] = []

    def go() -> None:
        try:
            with opened(pg.backend()) as backend:
                parameters = ReindexParameters(scope="table", **given)
                carry_out(backend.open(backend.plan(TableId.parse(TRADES), "reindex", parameters), run), run)
        except AurumError as error:
            problems.append(error)

    thread = threading.Thread(target=go)
    thread.start()
    until(lambda: pg.sql(INVALID), "the new index")
    yield run.cancelled, problems
    thread.join(60)


def test_bloated_indexes_shrink_and_rows_stay(pg: Pg) -> None:
    churn(pg)
    before, rows = sizes(pg), pg.checksum()
    dry = pg.run("reindex", dry_run=True, **LITTLE)
    assert dry.status == "planned"
    assert {step.detail["index"] for step in dry.steps or []} == {"public.trades_pkey", "public.trades_at"}
    assert (dry.steps or [])[0].detail["sql"].startswith('REINDEX INDEX CONCURRENTLY "public"."trades_')
    assert sizes(pg) == before
    done = pg.run("reindex", **LITTLE)
    after = sizes(pg)
    assert (done.status, done.problem) == ("completed", None)
    assert done.metrics["indexes_rebuilt"] == 2
    assert done.metrics["bytes_freed"] == sum(before.values()) - sum(after.values()) > 0
    assert after["trades_pkey"] < before["trades_pkey"] / 3
    assert after["trades_curve"] == before["trades_curve"]
    assert pg.checksum() == rows
    assert pg.run("reindex", **LITTLE).status == "skipped"
    assert pg.run("reindex", scope="table").metrics["indexes_rebuilt"] == 4, "with the TOAST table's"


def test_the_database_is_reindexed_table_by_table(pg: Pg) -> None:
    pg.script("CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other SELECT generate_series(1, 10)")
    dry = pg.run("reindex", f"pg.{pg.name}", dry_run=True, scope="database")
    assert {step.detail["table"] for step in dry.steps or []} == {TRADES, "pg.public.other"}
    done = pg.run("reindex", f"pg.{pg.name}", scope="database", indexes=["other_pkey"])
    assert done.metrics["indexes_rebuilt"] == 1
    assert pg.run("reindex", scope="database").status == "skipped", "a table is not the database"


def test_what_killed_runs_left_goes_and_valid_indexes_of_such_a_name_stay(pg: Pg) -> None:
    pg.script(
        "CREATE INDEX trades_at_ccnew ON trades (at);"
        "CREATE INDEX trades_curve_ccnew ON trades (curve); CREATE INDEX mine_ccold ON trades (price)"
    )
    toast = pg.sql("SELECT reltoastrelid::regclass::text FROM pg_class WHERE relname = 'trades'")[0][0]
    with pg.transaction("SELECT count(*) FROM trades"), pytest.raises(psycopg.errors.LockNotAvailable):
        pg.sql("SET lock_timeout = 300", f"REINDEX INDEX CONCURRENTLY {toast}_index")
    pg.sql(
        "UPDATE pg_index SET indisvalid = false"
        " WHERE indexrelid IN ('trades_curve_ccnew'::regclass, 'mine_ccold'::regclass)"
    )
    dry = pg.run("reindex", dry_run=True, min_bloat_ratio=1)
    dropped = {step.detail["index"] for step in dry.steps or [] if step.action == "drop"}
    # not trades_at_ccnew, which is valid, nor mine_ccold, which nothing stands in for
    assert dropped == {"public.trades_curve_ccnew", f"{toast}_index_ccnew"}
    done = pg.run("reindex", min_bloat_ratio=1)
    assert (done.status, done.problem) == ("completed", None)
    assert done.metrics["leftovers_dropped"] == len(dropped)
    assert pg.sql(INVALID) == [], "mine_ccold was invalid and is built anew"
    assert {"mine_ccold", "trades_at_ccnew"} <= set(sizes(pg))


def test_a_backend_that_is_terminated_in_the_middle_leaves_nothing_after_the_next_run(pg: Pg) -> None:
    with pg.transaction("SELECT count(*) FROM trades"), reindexing(pg) as (_, problems):
        pg.sql(f"SELECT pg_terminate_backend(pid) FROM ({BUILDING}) b")
        until(lambda: problems, "the end")
    assert problems[0].problem().type == "backend-unavailable"
    rows = pg.checksum()
    again = pg.run("reindex", scope="table")
    assert (again.status, again.problem) == ("completed", None)
    assert pg.sql(INVALID) == []
    assert not any("_cc" in name for name in sizes(pg))
    assert pg.checksum() == rows


def test_an_index_that_its_rows_do_not_allow_keeps_no_other_from_being_built(pg: Pg) -> None:
    """What somebody's failed CREATE UNIQUE INDEX CONCURRENTLY leaves is invalid, and comes first."""
    with pytest.raises(psycopg.errors.UniqueViolation):
        pg.sql("CREATE UNIQUE INDEX CONCURRENTLY curves ON trades (curve)")
    names = {name for (name,) in pg.sql("SELECT relname FROM pg_class WHERE relname LIKE 'trades_%' AND relkind = 'i'")}
    before = {name: pg.sql(f"SELECT relfilenode FROM pg_class WHERE relname = '{name}'") for name in names}
    result = pg.run("reindex", scope="table")
    assert result.status == "failed"
    assert "1 of 5 indexes were not built anew: public.curves: could not create unique index" in result.reason
    assert "drop the index" in (result.problem.hint or "" if result.problem else "")
    after = {name: pg.sql(f"SELECT relfilenode FROM pg_class WHERE relname = '{name}'") for name in names}
    assert len(names) == 3
    assert not [name for name in names if before[name] == after[name]]
    assert result.metrics["indexes_rebuilt"] == 4, "that of the TOAST table, too"
    assert pg.sql(INVALID) == [("curves",)]


def test_a_step_after_one_that_failed_waits_as_long_as_the_first(pg: Pg) -> None:
    """It has a session of its own, for which nothing is set yet."""
    pg.sql("CREATE FUNCTION told(id bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN id; END'")
    pg.sql("CREATE TABLE small AS SELECT 1::bigint AS id")
    for name in ("one", "two"):
        pg.sql(f"CREATE INDEX {name} ON small (told(id))")
    pg.sql(
        "CREATE OR REPLACE FUNCTION told(id bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS "
        "$$BEGIN RAISE 'waits %', current_setting('lock_timeout'); END$$"
    )
    result = pg.run("reindex", "pg.public.small", scope="table", wait_timeout_seconds=77)
    assert result.reason.count("waits 77s") == 2, result.reason


def test_a_cancelled_run_stops_on_the_server(pg: Pg) -> None:
    with pg.transaction("SELECT count(*) FROM trades"), reindexing(pg) as (cancelled, problems):
        cancelled.set()
        until(lambda: problems, "the end")
        assert pg.sql(BUILDING.replace("SELECT pid", "SELECT count(*)") + " AND pid <> pg_backend_pid()") == [(0,)]
    assert problems[0].problem().type == "cancelled"
    pg.run("reindex", scope="table")
    assert pg.sql(INVALID) == []


def test_a_transaction_that_stays_open_is_named_and_the_old_index_serves_on(pg: Pg) -> None:
    with pg.transaction("SELECT count(*) FROM trades") as pid, reindexing(pg, wait_timeout_seconds=1) as (_, problems):
        until(lambda: problems, "the end")
        assert f"pid {pid} (user postgres" in str(problems[0])
        assert problems[0].problem().type == "lock-timeout"
        assert pg.sql("SELECT indisvalid FROM pg_index WHERE indexrelid = 'trades_pkey'::regclass") == [(True,)]


def test_a_lock_of_another_session_is_named_and_nothing_is_begun(pg: Pg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aurum_orchestration.maintenance.backends.postgres.connection.ATTEMPTS", 1)
    monkeypatch.setattr("aurum_orchestration.maintenance.backends.postgres.connection.LONGEST_PAUSE", 0.01)
    with opened(pg.backend()) as backend:
        plan = backend.plan(TableId.parse(TRADES), "reindex", ReindexParameters(scope="table"))
        lock = "LOCK TABLE trades IN SHARE UPDATE EXCLUSIVE MODE"
        with pg.transaction(lock, isolation="READ COMMITTED") as pid, pytest.raises(AurumError, match=f"pid {pid}"):
            carry_out(backend.open(plan, a_run()), a_run())
    assert pg.sql(INVALID) == []


def test_without_room_or_knowledge_of_it_an_index_is_left_alone(pg: Pg, monkeypatch: pytest.MonkeyPatch) -> None:
    churn(pg)
    if Path(pg.sql("SHOW data_directory")[0][0]).exists():  # not where AURUM_TEST_POSTGRES_DSN is another machine's
        known = pg.run("reindex", dry_run=True, free_space_factor=1e12, **LITTLE)
        assert known.status == "skipped"
        assert "are free in /" in known.reason
    monkeypatch.setattr(space, "_server_is_here", lambda _session: False)
    assert pg.run("reindex", dry_run=True, free_space_factor=1e12, **LITTLE).status == "planned"
    unknown = pg.run("reindex", dry_run=True, unknown_space_limit_mb=0.1, **LITTLE)
    assert unknown.status == "skipped"
    assert "the free space is not known" in unknown.reason


def test_a_table_or_index_that_was_dropped_meanwhile(pg: Pg) -> None:
    with opened(pg.backend()) as backend:
        plan = backend.plan(TableId.parse(TRADES), "reindex", ReindexParameters(indexes=["trades_at", "trades_curve"]))
        pg.sql("DROP INDEX trades_at")
        outcomes = [unit.commit(a_run()) for unit in backend.open(plan, a_run()).units()]
        assert sum(one.metrics.get("indexes_rebuilt", 0) for one in outcomes) == 1
        assert any("trades_at was replaced or dropped" in told for one in outcomes for told in one.warnings)
        pg.sql("DROP TABLE trades")
        with pytest.raises(AurumError, match="no table"):
            backend.open(plan, a_run())


def test_a_role_without_rights_is_told_the_grant(pg: Pg) -> None:
    pg.script("DROP ROLE IF EXISTS aurum_reader; CREATE ROLE aurum_reader LOGIN")
    dsn, pg.dsn = pg.dsn, pg.dsn.replace("user=postgres", "user=aurum_reader")
    try:
        one, whole = pg.run("reindex", scope="table"), pg.run("reindex", f"pg.{pg.name}", scope="database")
    finally:
        pg.dsn = dsn
        pg.sql("DROP ROLE aurum_reader")
    assert one.problem is not None
    assert one.problem.type == "access-denied"
    assert whole.status == "skipped"
    assert any("public.trades" in told for told in whole.warnings)


def test_a_role_that_maintains_but_does_not_own_says_who_can_drop_a_leftover(timescale: str, tmp_path: Path) -> None:
    server, name = timescale.replace("+psycopg", ""), f"aurum_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        role = f"keeper_{name}"
        try:
            pg = Pg(psycopg.conninfo.make_conninfo(server, dbname=name), name, tmp_path / "home")
            pg.script(
                f"{CHURN}; CREATE ROLE {role} LOGIN; GRANT pg_maintain, pg_monitor TO {role};"
                "CREATE INDEX trades_at_ccnew ON trades (at)"
            )
            pg.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'trades_at_ccnew'::regclass")
            pg.dsn = pg.dsn.replace("user=postgres", f"user={role}")
            done = pg.run("reindex", indexes=["trades_at", "trades_curve"])
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
            connection.execute(f"DROP ROLE {role}")
    assert (done.status, done.problem) == ("completed", None)
    assert done.metrics["indexes_rebuilt"] == 2
    told = "which only its owner postgres can drop: DROP INDEX CONCURRENTLY IF EXISTS"
    assert any(told in warning for warning in done.warnings)


def test_chunks_of_a_hypertable_are_reindexed_and_their_leftovers_dropped(timescale: str, tmp_path: Path) -> None:
    server, name = timescale.replace("+psycopg", ""), f"aurum_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            pg = Pg(psycopg.conninfo.make_conninfo(server, dbname=name), name, tmp_path / "home")
            pg.script(
                "CREATE EXTENSION timescaledb; CREATE TABLE readings (at timestamptz NOT NULL, n int);"
                "SELECT create_hypertable('readings', 'at', chunk_time_interval => interval '1 day');"
                "INSERT INTO readings SELECT '2026-01-01'::timestamptz + g * interval '1 minute', g"
                "  FROM generate_series(1, 3000) g"
            )
            rows = pg.checksum("readings")
            chunk = pg.sql("SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = ANY"
                           " (SELECT show_chunks('readings')::oid) ORDER BY 1")[0][0]  # fmt: skip
            with pg.transaction("SELECT count(*) FROM readings"), pytest.raises(psycopg.errors.LockNotAvailable):
                pg.sql("SET lock_timeout = 300", f"REINDEX INDEX CONCURRENTLY {chunk}")
            assert len(pg.sql(INVALID)) == 1
            done = pg.run("reindex", "pg.public.readings", scope="table", unknown_space_limit_mb=None)
            assert pg.sql(INVALID) == []
            assert pg.checksum("readings") == rows
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert (done.status, done.problem) == ("completed", None)
    assert done.metrics["leftovers_dropped"] == 1
    assert done.metrics["indexes_rebuilt"] >= 3


@pytest.mark.thorough
def test_a_process_that_is_killed_leaves_its_statement_to_the_server(pg: Pg, tmp_path: Path) -> None:
    code = (
        "import sys; from aurum_orchestration_tests.integration.postgres.support import Pg; from pathlib import Path;"
        "Pg(sys.argv[1], sys.argv[2], Path(sys.argv[3])).run('reindex', scope='table')"
    )
    command = [sys.executable, "-c", code, pg.dsn, pg.name, str(tmp_path / "killed")]
    with pg.transaction("SELECT count(*) FROM trades"):
        with subprocess.Popen(command) as process:
            try:
                until(lambda: pg.sql(INVALID), "the new index")
            finally:
                process.kill()
        with opened(pg.backend()) as backend:
            target = backend.load(TableId.parse(TRADES))
            with pytest.raises(LeaseHeldError, match="aurum:reindex:"), target.work("vacuum", a_run()):
                pass
        pg.sql(f"SELECT pg_terminate_backend(pid) FROM ({BUILDING}) b")
    done = pg.run("reindex", scope="table")
    assert (done.status, done.problem) == ("completed", None)
    assert done.metrics["leftovers_dropped"] == 1
    assert pg.sql(INVALID) == []


def test_the_indexes_of_a_table_share_a_session_that_ends_with_what_fails(
    pg: Pg, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    work = Sessions.work

    def counted(sessions: Sessions, operation: str, run: RunContext | None, **settings: str) -> Any:
        made.append(operation)
        return work(sessions, operation, run, **settings)

    monkeypatch.setattr(Sessions, "work", counted)
    with opened(pg.backend()) as backend:
        plan = backend.plan(TableId.parse(TRADES), "reindex", ReindexParameters(scope="table"))
        assert len(plan.steps) > 1
        carry_out(backend.open(plan, a_run()), a_run())
        assert made == ["reindex"]
        plan = backend.plan(TableId.parse(TRADES), "reindex", ReindexParameters(scope="table"))
        units = backend.open(plan, a_run()).units()
        next(units).commit(a_run())
        pg.sql(f"ALTER INDEX {plan.steps[1].detail['index']} RENAME TO renamed")
        # seen a moment ago, so that the server itself says it
        with pytest.raises(TableNotFoundError):
            next(units).commit(a_run())
        assert pg.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]


def test_a_session_that_was_ended_between_two_steps_is_used_by_no_third(pg: Pg) -> None:
    with opened(pg.backend()) as backend:
        plan = backend.plan(TableId.parse(TRADES), "reindex", ReindexParameters(scope="table"))
        units = backend.open(plan, a_run()).units()
        next(units).commit(a_run())
        pg.sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE 'aurum:reindex%'"
        )
        with pytest.raises(BackendUnavailableError):
            next(units).commit(a_run())
        assert next(units).commit(a_run()).metrics["indexes_rebuilt"] == 1
        next(units, None)
