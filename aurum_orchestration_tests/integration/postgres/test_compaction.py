"""Tables written anew: by the real pg_repack beside their users, by VACUUM FULL when that is allowed."""

from __future__ import annotations

import shutil
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
from psycopg import sql

from aurum_orchestration.errors import AurumError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.compaction import client
from aurum_orchestration.maintenance.operations.compaction import CompactionParameters
from aurum_orchestration_tests.engines import missing
from aurum_orchestration_tests.integration.postgres.support import CHURN, TRADES, Pg, a_run, carry_out, opened
from aurum_orchestration_tests.servers.timescale import ENGINE, repack_program

LITTLE: dict[str, Any] = {"min_bloat_mb": 0.1, "min_bloat_ratio": 0.3}
ONLINE: dict[str, Any] = {**LITTLE, "online_rewrite": True, "unknown_space_limit_mb": None}
LEFT = "SELECT relname::text FROM pg_class WHERE relnamespace = 'repack'::regnamespace AND relkind = 'r'"
TRIGGERS = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'trades'::regclass"


def churn(pg: Pg) -> None:
    pg.sql("DELETE FROM trades WHERE id % 8 <> 0")
    pg.sql("VACUUM ANALYZE trades")


def size(pg: Pg) -> int:
    return int(pg.sql("SELECT pg_total_relation_size('trades')")[0][0])


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 100
    while not true():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.05)


@contextmanager
def writing(pg: Pg) -> Iterator[list[int]]:
    """Somebody inserts row after row, with ids below 0, as long as the body runs."""
    written: list[int] = []
    ended = threading.Event()

    def go() -> None:
        with pg.connect() as other:
            while not ended.is_set():
                id = -1 - len(written)
                other.execute("INSERT INTO trades VALUES (%s, 'meanwhile', 1, now(), '')", (id,))
                other.execute("UPDATE trades SET price = 2 WHERE id = %s", (id,))
                written.append(id)
                time.sleep(0.01)

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield written
    finally:
        ended.set()
        thread.join(60)


@pytest.fixture
def repackable(timescale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pg]:
    """The table of trades, most of its rows deleted, where pg_repack is installed; its program is on PATH."""
    program = repack_program(tmp_path)
    if program is None and shutil.which("pg_repack") is None:
        missing(ENGINE.name, "there is no program pg_repack")
    if program is not None:
        monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    server, name = timescale.replace("+psycopg", ""), f"aurum_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            pg = Pg(psycopg.conninfo.make_conninfo(server, dbname=name), name, tmp_path / "home")
            pg.script(f"CREATE EXTENSION pg_repack; {CHURN}")
            churn(pg)
            yield pg
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_pg_repack_shrinks_the_table_beside_a_writer_and_rows_stay(repackable: Pg) -> None:
    pg = repackable
    before, rows = size(pg), pg.checksum()
    dry = pg.run("compaction", dry_run=True, **ONLINE)
    assert dry.status == "planned", dry.reason
    assert '--table="public"."trades"' in (dry.steps or [])[0].detail["command"]
    assert "--no-kill-backend" in (dry.steps or [])[0].detail["command"]
    assert size(pg) == before
    with writing(pg) as written:
        done = pg.run("compaction", **ONLINE)
    assert (done.status, done.problem) == ("completed", None)
    assert done.metrics["tables_rewritten"] == 1
    assert done.metrics["bytes_freed"] > before / 2
    assert pg.sql("SELECT count(*) FROM trades WHERE id < 0") == [(len(written),)]
    assert len(written) > 1, "somebody wrote meanwhile"
    pg.sql("DELETE FROM trades WHERE id < 0")
    assert pg.checksum() == rows
    assert pg.sql(LEFT) == []
    assert pg.sql(TRIGGERS) == [(0,)]
    assert pg.run("compaction", **ONLINE).status == "skipped"


def test_a_transaction_that_stays_open_is_named_and_nothing_is_left(repackable: Pg) -> None:
    pg = repackable
    rows = pg.checksum()
    with opened(pg.backend()) as backend:
        parameters = CompactionParameters(**ONLINE, wait_timeout_seconds=1)
        plan = backend.plan(TableId.parse(TRADES), "compaction", parameters)
        with pg.transaction("SELECT 1 FROM pg_class") as pid, pytest.raises(AurumError, match=f"pid {pid}") as found:
            carry_out(backend.open(plan, a_run()), a_run())
    assert found.value.problem().type == "lock-timeout"
    assert pg.sql(LEFT) == []
    assert pg.sql(TRIGGERS) == [(0,)]
    assert pg.checksum() == rows


def test_a_lock_of_another_session_is_waited_for_no_longer_than_allowed(repackable: Pg) -> None:
    pg = repackable
    with opened(pg.backend()) as backend:
        parameters = CompactionParameters(**ONLINE, wait_timeout_seconds=1)
        plan = backend.plan(TableId.parse(TRADES), "compaction", parameters)
        with (
            pg.transaction("LOCK TABLE trades IN ROW EXCLUSIVE MODE", isolation="READ COMMITTED") as pid,
            pytest.raises(AurumError, match=f"pid {pid}") as found,
        ):
            carry_out(backend.open(plan, a_run()), a_run())
        assert found.value.problem().type == "lock-timeout"
    assert pg.sql(LEFT) == []


def test_what_a_killed_pg_repack_left_goes_with_the_next_run(repackable: Pg, monkeypatch: pytest.MonkeyPatch) -> None:
    pg = repackable
    rows = pg.checksum()
    monkeypatch.setattr(client, "_end", lambda process: process.kill())
    monkeypatch.setattr(
        "aurum_orchestration.maintenance.backends.postgres.compaction.execute._Step._tidy", lambda _: None
    )
    run, problems = a_run(), list[AurumError]()

    def go() -> None:
        with opened(pg.backend()) as backend:
            plan = backend.plan(TableId.parse(TRADES), "compaction", CompactionParameters(**ONLINE))
            try:
                carry_out(backend.open(plan, run), run)
            except AurumError as error:
                problems.append(error)

    with pg.transaction("SELECT 1 FROM pg_class"):
        thread = threading.Thread(target=go)
        thread.start()
        until(lambda: pg.sql(TRIGGERS) != [(0,)], "pg_repack's trigger")
        run.cancelled.set()
        thread.join(60)
    monkeypatch.undo()
    assert problems[0].problem().type == "cancelled"
    assert pg.sql(LEFT) != []
    assert told_of_leftovers(pg) == [True, True]
    pg.sql("INSERT INTO trades VALUES (0, 'after', 1, now(), '')", "DELETE FROM trades WHERE id = 0")
    until(lambda: not pg.sql("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = 16185446"), "its end")
    done = pg.run("compaction", **{**ONLINE, "min_bloat_mb": 1000})
    assert (done.status, done.problem) == ("completed", None)
    assert done.metrics["leftovers_dropped"] >= 3
    assert pg.sql(LEFT) == []
    assert told_of_leftovers(pg) == [False, False]
    assert pg.sql(TRIGGERS) == [(0,)]
    assert pg.checksum() == rows


def told_of_leftovers(pg: Pg) -> list[bool]:
    """Whether ``aurum doctor`` and the report on the database's bloat name the table."""
    with opened(pg.backend()) as backend:
        findings = [one for one in backend.checkup(backend.discover([])) if one.check == "pg_repack"]
    told = [*(one.detail for one in findings), ""][0], " ".join(pg.run("bloat", f"pg.{pg.name}").warnings)
    return ["a killed pg_repack left" in text and "trades" in text for text in told]


def test_pg_repack_whose_sessions_are_terminated_leaves_nothing(repackable: Pg) -> None:
    pg = repackable
    rows = pg.checksum()

    def end() -> None:
        until(lambda: pg.sql(TRIGGERS) != [(0,)], "pg_repack's trigger")
        pg.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pg_repack'")

    with opened(pg.backend()) as backend, pg.transaction("SELECT 1 FROM pg_class"):
        plan = backend.plan(TableId.parse(TRADES), "compaction", CompactionParameters(**ONLINE))
        threading.Thread(target=end).start()
        with pytest.raises(AurumError, match="pg_repack"):
            carry_out(backend.open(plan, a_run()), a_run())
    assert pg.sql(LEFT) == []
    assert pg.sql(TRIGGERS) == [(0,)]
    assert pg.checksum() == rows
    assert pg.run("compaction", **ONLINE).metrics["tables_rewritten"] == 1


@pytest.mark.thorough
def test_a_process_that_is_killed_leaves_pg_repack_to_its_end_or_to_the_next_run(
    repackable: Pg, tmp_path: Path
) -> None:
    pg = repackable
    rows = pg.checksum()
    code = (
        "import sys; from aurum_orchestration_tests.integration.postgres.support import Pg; from pathlib import Path;"
        "Pg(sys.argv[1], sys.argv[2], Path(sys.argv[3])).run('compaction', min_bloat_mb=0.1, min_bloat_ratio=0.3,"
        " online_rewrite=True, unknown_space_limit_mb=None)"
    )
    command = [sys.executable, "-c", code, pg.dsn, pg.name, str(tmp_path / "killed")]
    with pg.transaction("SELECT 1 FROM pg_class"):
        with subprocess.Popen(command) as process:
            try:
                until(lambda: pg.sql(TRIGGERS) != [(0,)], "pg_repack's trigger")
            finally:
                process.kill()
        busy = pg.run("compaction", **ONLINE)
        assert busy.status == "skipped"
        assert "a pg_repack is at work on the table" in busy.reason
    until(lambda: pg.sql(TRIGGERS) == [(0,)] and pg.sql(LEFT) == [], "its end")
    assert pg.checksum() == rows
    assert pg.run("compaction", **ONLINE).status == "skipped", "it is done"


def test_without_leave_or_program_a_rewrite_is_refused_with_the_alternatives(pg: Pg) -> None:
    churn(pg)
    with opened(pg.backend()) as backend:
        for given, why in (
            ({}, "never rewritten unless online_rewrite or vacuum_full"),
            ({"online_rewrite": True}, "the extension pg_repack is not installed"),
        ):
            parameters = CompactionParameters(**{**LITTLE, **given})
            with pytest.raises(AurumError, match=why) as found:
                backend.plan(TableId.parse(TRADES), "compaction", parameters)
            assert "vacuum lets the space be used again" in (found.value.hint or "")


def test_vacuum_full_only_when_it_is_allowed_and_never_waiting_long(pg: Pg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aurum_orchestration.maintenance.backends.postgres.connection.LONGEST_PAUSE", 0.01)
    churn(pg)
    before, rows = size(pg), pg.checksum()
    full = {**LITTLE, "vacuum_full": True, "unknown_space_limit_mb": None}
    with opened(pg.backend(lock_timeout=0.1)) as backend:
        plan = backend.plan(TableId.parse(TRADES), "compaction", CompactionParameters(**full))
        with pg.transaction("SELECT 1 FROM trades") as pid, pytest.raises(AurumError, match=f"pid {pid}"):
            carry_out(backend.open(plan, a_run()), a_run())
    dry = pg.run("compaction", dry_run=True, **full)
    assert (dry.steps or [])[0].detail["sql"] == f'VACUUM (FULL, ANALYZE) {pg.only}"public"."trades"'
    assert any("locks readers and writers out" in told for told in dry.warnings)
    done = pg.run("compaction", **full)
    assert done.metrics["bytes_freed"] == before - size(pg) > 0
    assert pg.checksum() == rows


def test_without_room_nothing_is_begun(pg: Pg) -> None:
    churn(pg)
    given = {**LITTLE, "vacuum_full": True, "free_space_factor": 1e12, "unknown_space_limit_mb": 0.1}
    refused = pg.run("compaction", **given)
    assert refused.status == "skipped"
    assert "a second copy needs" in refused.reason
