"""Materialized views, refreshed on a real server."""

from __future__ import annotations

import threading
import time

import pytest

from aurum_orchestration.errors import AurumError, OperationCancelledError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.operations.views import ViewsParameters
from aurum_orchestration_tests.integration.postgres.support import Pg, a_run, carry_out, opened

CHAIN = """
CREATE MATERIALIZED VIEW b_base AS SELECT curve, count(*) AS n FROM trades GROUP BY curve;
CREATE VIEW through AS SELECT curve, n FROM b_base;
CREATE MATERIALIZED VIEW a_made_of_it AS SELECT sum(n) AS n FROM through;
CREATE UNIQUE INDEX b_key ON b_base (curve); CREATE UNIQUE INDEX a_key ON a_made_of_it (n)
"""


@pytest.fixture
def chained(pg: Pg) -> Pg:
    """``a_made_of_it`` <- ``through`` <- ``b_base`` <- ``trades``, two of them materialized, both a row behind."""
    pg.script(CHAIN)
    pg.sql("INSERT INTO trades VALUES (0, 'new', 1, now(), '')")
    return pg


def test_what_others_are_made_of_comes_first_and_readers_keep_their_view(chained: Pg) -> None:
    database = f"pg.{chained.name}"
    dry = chained.run("views", database, dry_run=True)
    assert [step.detail["sql"] for step in dry.steps or []] == [
        'REFRESH MATERIALIZED VIEW CONCURRENTLY "public"."b_base"',
        'REFRESH MATERIALIZED VIEW CONCURRENTLY "public"."a_made_of_it"',
    ]
    assert chained.sql("SELECT n FROM a_made_of_it") == [(20_000,)]
    with chained.transaction("SELECT * FROM a_made_of_it, b_base"):
        done = chained.run("views", database)
    assert (done.status, done.problem) == ("completed", None)
    assert done.metrics["views_refreshed"] == 2
    assert chained.sql("SELECT n FROM a_made_of_it") == [(20_001,)]


def test_one_view_alone_says_what_it_is_made_of(chained: Pg) -> None:
    done = chained.run("views", "pg.public.a_made_of_it")
    assert done.metrics["views_refreshed"] == 1
    assert done.warnings == ["public.a_made_of_it is made of public.b_base, which is not refreshed with it"]
    assert chained.sql("SELECT n FROM a_made_of_it") == [(20_000,)]
    assert chained.run("views", "pg.public.trades").status == "skipped"


def test_a_view_without_a_suitable_unique_index_is_left_unless_plain_is_allowed(chained: Pg) -> None:
    chained.script(
        "CREATE MATERIALIZED VIEW bare AS SELECT 1 AS n; CREATE MATERIALIZED VIEW part AS SELECT 1 AS n;"
        "CREATE UNIQUE INDEX part_key ON part (n) WHERE n > 0; CREATE MATERIALIZED VIEW expr AS SELECT 1 AS n;"
        "CREATE UNIQUE INDEX expr_key ON expr ((n + 1)); CREATE MATERIALIZED VIEW void AS SELECT 1 AS n WITH NO DATA"
    )
    left = chained.run("views", f"pg.{chained.name}")
    assert left.metrics["views_refreshed"] == 2
    told = "\n".join(left.warnings)
    for view, why in {
        "bare": "it has no unique index",
        "part": "of its unique indexes part_key is partial",
        "expr": "of its unique indexes expr_key is over an expression",
        "void": "it has never been populated",
    }.items():
        assert f"public.{view} is left: {why}" in told
    plain = chained.run("views", f"pg.{chained.name}", allow_plain=True)
    assert plain.metrics["views_refreshed"] == 6
    assert chained.sql("SELECT * FROM void") == [(1,)]


def test_a_view_that_fails_keeps_back_those_made_of_it_and_no_other(chained: Pg) -> None:
    chained.script("CREATE MATERIALIZED VIEW c_other AS SELECT 1 AS n; CREATE UNIQUE INDEX c_key ON c_other (n)")
    chained.sql("INSERT INTO trades VALUES (-1, 'new', 1, now(), '')", "DROP INDEX b_key")
    chained.sql("CREATE UNIQUE INDEX b_key ON b_base (n, curve)")
    chained.script(
        "DROP VIEW through CASCADE; DROP MATERIALIZED VIEW b_base;"
        "CREATE MATERIALIZED VIEW b_base AS SELECT 1 / (20002 - count(*)) AS n FROM trades WITH NO DATA;"
        "CREATE MATERIALIZED VIEW a_made_of_it AS SELECT n FROM b_base WITH NO DATA"
    )
    result = chained.run("views", f"pg.{chained.name}", allow_plain=True)
    assert result.status == "failed"
    assert result.metrics["views_refreshed"] == 1, "c_other"
    assert "2 of 3 views were not refreshed: public.b_base: division by zero" in result.reason
    assert "a_made_of_it is left: what it is made of was not refreshed" in result.reason


def test_a_lock_of_another_session_is_named(chained: Pg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aurum_orchestration.maintenance.backends.postgres.connection.LONGEST_PAUSE", 0.01)
    view = TableId.parse("pg.public.b_base")
    with opened(chained.backend(lock_timeout=0.1)) as backend:
        plan = backend.plan(view, "views", ViewsParameters())
        with (
            chained.transaction("REFRESH MATERIALIZED VIEW b_base", isolation="READ COMMITTED") as pid,
            pytest.raises(AurumError, match=f"locked by pid {pid}") as found,
        ):
            carry_out(backend.open(plan, a_run()), a_run())
    assert found.value.problem().type == "lock-timeout"


def test_cancelled_or_terminated_in_the_middle_the_old_rows_stay(chained: Pg) -> None:
    chained.script(
        "CREATE FUNCTION slow() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1 FROM pg_sleep(30)';"
        "CREATE MATERIALIZED VIEW slowly AS SELECT 1 AS n UNION ALL SELECT slow() WHERE EXISTS "
        "(SELECT FROM trades WHERE id = 0 AND curve = 'slow')"
    )
    chained.sql("UPDATE trades SET curve = 'slow' WHERE id = 0")
    running = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'REFRESH%slowly%' AND state = 'active'"
    with opened(chained.backend()) as backend:
        plan = backend.plan(TableId.parse("pg.public.slowly"), "views", ViewsParameters(allow_plain=True))
        cancelled = a_run()
        threading.Timer(0.5, cancelled.cancelled.set).start()
        with pytest.raises(OperationCancelledError):
            carry_out(backend.open(plan, cancelled), cancelled)

        def end() -> None:
            deadline = time.monotonic() + 60
            while (
                not chained.sql(f"SELECT pg_terminate_backend(pid) FROM ({running}) r") and time.monotonic() < deadline
            ):
                time.sleep(0.05)

        threading.Thread(target=end).start()
        with pytest.raises(AurumError) as found:
            carry_out(backend.open(plan, a_run()), a_run())
    assert found.value.problem().type == "backend-unavailable"
    assert chained.sql("SELECT n FROM slowly") == [(1,)]


def test_a_view_dropped_meanwhile_and_a_role_without_rights_are_told(chained: Pg) -> None:
    with opened(chained.backend()) as backend:
        plan = backend.plan(TableId.parse(f"pg.{chained.name}"), "views", ViewsParameters())
        chained.sql("DROP VIEW through CASCADE")
        outcomes = [unit.commit(a_run()) for unit in backend.open(plan, a_run()).units()]
    assert [one.warnings for one in outcomes] == [[], ["public.a_made_of_it was dropped meanwhile"]]
    chained.script("DROP ROLE IF EXISTS aurum_viewer; CREATE ROLE aurum_viewer LOGIN")
    dsn, chained.dsn = chained.dsn, chained.dsn.replace("user=postgres", "user=aurum_viewer")
    try:
        whole = chained.run("views", f"pg.{chained.name}")
        one = chained.run("views", "pg.public.b_base")
    finally:
        chained.dsn = dsn
        chained.sql("DROP ROLE aurum_viewer")
    assert whole.status == "skipped"
    assert "role aurum_viewer may not refresh it" in whole.reason
    assert one.problem is not None
    assert one.problem.type == "access-denied"


def test_days_and_text_in_a_view_are_those_of_the_database(empty: Pg) -> None:
    """As if somebody of the database had refreshed it: our sessions have a time zone and a style of their own."""
    empty.script(
        f"ALTER DATABASE {empty.name} SET timezone = 'Pacific/Auckland'; "
        f"ALTER DATABASE {empty.name} SET datestyle = 'German, DMY'"
    )
    empty.script(
        "CREATE TABLE event (at timestamptz); INSERT INTO event VALUES ('2026-01-01 20:00+00');"
        "CREATE MATERIALIZED VIEW days AS SELECT at::date AS day, at::text AS told FROM event;"
        "CREATE UNIQUE INDEX ON days (day)"
    )
    before = empty.sql("SELECT day::text, told FROM days")
    assert before == [("02.01.2026", "02.01.2026 09:00:00 NZDT")]
    assert empty.run("views", "pg.public.days").metrics["views_refreshed"] == 1
    assert empty.sql("SELECT day::text, told FROM days") == before
