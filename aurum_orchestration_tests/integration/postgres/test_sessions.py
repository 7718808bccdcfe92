"""Sessions: what one leaves never reaches the next, the dead are replaced, and few messages are sent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import psycopg
import pytest
from psycopg.pq import PipelineStatus
from sqlalchemy import Engine, event

from aurum_orchestration.errors import BackendUnavailableError, LockTimeoutError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.advisory import reserved
from aurum_orchestration.maintenance.backends.postgres.connection import Sessions
from aurum_orchestration.maintenance.operations.vacuum import VacuumParameters
from aurum_orchestration_tests.integration.postgres.support import Pg, a_run, opened

_SETTINGS = """
SELECT current_setting('application_name'), current_setting('statement_timeout'), current_setting('lock_timeout'),
       current_setting('work_mem'), current_setting('timezone')
"""


def test_a_session_begins_with_nothing_of_the_one_before(empty: Pg) -> None:
    with opened(empty.backend()) as backend:
        default = empty.sql("SHOW work_mem")[0][0]
        with backend.sessions.work("vacuum", a_run("one"), work_mem="1MB") as first:
            first.set(lock_timeout="7s", timezone="Asia/Tokyo")
            first.value("SELECT pg_advisory_lock(1, 2)")
            assert first.tuples(_SETTINGS)[0][2:] == ("7s", "1MB", "Asia/Tokyo")
            pid = first.pid
        with backend.sessions.look("plan") as second:
            assert second.pid == second.value("SELECT pg_backend_pid()") == pid
            assert second.tuples(_SETTINGS)[0] == ("aurum:plan:-", "1min", "2s", default, "UTC")
        assert empty.sql("SELECT pg_try_advisory_lock(1, 2)") == [(True,)]


def test_a_failure_at_work_leaves_no_lock(empty: Pg) -> None:
    with opened(empty.backend()) as backend:
        with suppress(ZeroDivisionError), backend.sessions.work("vacuum", a_run("one")) as session:
            session.value("SELECT pg_advisory_lock(1, 2)")
            raise ZeroDivisionError
        locks_end(empty, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND (classid, objid) = (1, 2)")


def locks_end(empty: Pg, count: str) -> None:
    deadline = time.monotonic() + 30
    while empty.sql(count) != [(0,)]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_cancellation_that_hits_the_end_of_work_leaves_no_lock(empty: Pg) -> None:
    empty.sql("CREATE FUNCTION pg_advisory_unlock(int, int) RETURNS bool BEGIN ATOMIC SELECT pg_sleep(60) IS NULL; END")
    run = a_run()
    with opened(empty.backend()) as backend:
        with backend.sessions.work("vacuum", run) as session, reserved(session, 7, "table"):
            session.set(search_path="public, pg_catalog")  # to give the lock back takes until the cancellation comes
            run.cancelled.set()
        locks_end(empty, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7")


def test_sessions_that_died_while_they_waited_are_replaced(empty: Pg) -> None:
    with opened(empty.backend()) as backend:
        with ExitStack() as many:
            pids = [many.enter_context(backend.sessions.look()).pid for _ in range(3)]
        assert empty.sql(f"SELECT bool_and(pg_terminate_backend(pid, 5000)) FROM unnest(ARRAY{pids}) pid") == [(True,)]
        with backend.sessions.look() as session:
            assert session.pid not in pids


def test_a_session_that_never_answers_is_given_up(empty: Pg, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(empty.backend()) as backend:
        begin = Sessions._settings
        fatal = b"SELECT pg_terminate_backend(pg_backend_pid()); "
        monkeypatch.setattr(Sessions, "_settings", lambda *given: fatal + begin(*given))
        with pytest.raises(BackendUnavailableError), backend.sessions.look():
            pass


def test_several_questions_are_one_message(empty: Pg) -> None:
    with opened(empty.backend()) as backend, backend.sessions.look() as session:
        odd = 'it\'s 100 % \\ "odd"; SELECT 3'
        with counted() as count:
            numbers, nothing, texts = session.together(
                ("SELECT g AS number, g / 2.0::float8 AS half FROM generate_series(1, %s) g", (2,)),
                ("SELECT 1 AS one WHERE false", None),
                ("SELECT %(text)s::text AS text, '10 %%' AS share", {"text": odd}),
            )
        assert [(row.number, row.half) for row in numbers] == [(1, 0.5), (2, 1.0)]
        assert (nothing, texts) == ([], [(odd, "10 %")])
        assert count["messages"] == 1


@pytest.mark.parametrize(
    ("operation", "parameters", "fixed", "for_a_step"),
    [("vacuum", {}, 5, 6), ("reindex", {"scope": "table"}, 10, 2)],
)
def test_a_maintained_table_takes_few_messages_and_commits(
    pg: Pg, operation: str, parameters: dict[str, Any], fixed: int, for_a_step: int
) -> None:
    pg.script("CREATE TABLE other AS SELECT * FROM trades; CREATE INDEX ON other (at); CREATE INDEX ON other (id)")
    pg.sql("ANALYZE other", "DELETE FROM trades WHERE id % 3 = 0", "DELETE FROM other WHERE id % 3 = 0")
    pg.maintain("stats", dry_run=True)  # the history is there, everything is imported
    with counted() as one:
        (first,) = pg.maintain(operation, ["pg.public.trades"], **parameters)
    pg.sql("DELETE FROM trades WHERE id % 3 = 1")
    with counted() as both:
        again, second = pg.maintain(operation, ["pg.public.trades", "pg.public.other"], **parameters)
    assert [result.status for result in (first, again, second)] == ["completed"] * 3
    steps = len(second.steps or ())
    assert both["messages"] - one["messages"] <= fixed + for_a_step * steps
    assert both["commits"] - one["commits"] <= 2 + steps


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """How often a server was waited for by psycopg, and a history store committed to."""
    count = {"messages": 0, "commits": 0}
    original, left = psycopg.Connection.wait, psycopg.Pipeline.__exit__

    def wait(self: psycopg.Connection[Any], steps: Any, *given: Any, **more: Any) -> Any:
        # a pipeline begins without the server, sends everything, and waits once at its end
        alone = self.pgconn.pipeline_status == PipelineStatus.OFF and steps.__name__ != "_enter_gen"
        count["messages"] += alone
        return original(self, steps, *given, **more)

    def leave(self: psycopg.Pipeline, *given: Any) -> None:
        count["messages"] += 1
        return left(self, *given)

    def commit(_connection: Any) -> None:
        count["commits"] += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Connection, "wait", wait)
        patch.setattr(psycopg.Pipeline, "__exit__", leave)
        event.listen(Engine, "commit", commit)
        try:
            yield count
        finally:
            event.remove(Engine, "commit", commit)


def test_who_has_the_lock_is_named_when_a_plan_or_a_step_does_not_get_it(pg: Pg) -> None:
    pg.script(
        "CREATE TABLE days (day date) PARTITION BY RANGE (day);"
        "CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')"
    )
    with opened(pg.backend(lock_timeout=0.05)) as backend:
        lock = "LOCK TABLE days_1, trades IN ACCESS EXCLUSIVE MODE"
        with pg.transaction(lock, isolation="READ COMMITTED") as pid:
            with pytest.raises(LockTimeoutError, match=f"it is locked by pid {pid}, client backend, user postgres"):
                backend.plan(TableId.parse("pg.public.trades"), "vacuum", VacuumParameters())
            target = backend.load(TableId.parse("pg.public.days"))
            with (
                pytest.raises(LockTimeoutError, match=f"it is locked by pid {pid}"),
                target.work("retention", a_run()) as session,
            ):
                session.execute("COMMENT ON TABLE days_1 IS 'ours'")
