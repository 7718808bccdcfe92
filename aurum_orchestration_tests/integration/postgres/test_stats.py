"""The report on tables and indexes, and ANALYZE where statistics are stale."""

from __future__ import annotations

from typing import Any

import pytest

from aurum_orchestration_tests.integration.postgres.support import ROWS, TRADES, Pg

INDEXES = """
CREATE INDEX curve_again ON trades (curve); CREATE INDEX curve_some ON trades (curve) WHERE id > 5;
CREATE INDEX curve_down ON trades (curve DESC); CREATE UNIQUE INDEX id_again ON trades (id)
"""


def report(result: Any) -> dict[str, Any]:
    step = (result.steps or [])[0]
    assert step.action == "report"
    return dict(step.detail)


def analyzed(pg: Pg, table: str = "trades") -> Any:
    pg.settle()
    return pg.sql(f"SELECT pg_stat_get_last_analyze_time('{table}'::regclass)")[0][0]


def test_the_database_report_names_large_tables_unused_indexes_and_twins(pg: Pg) -> None:
    pg.script(INDEXES + "; CREATE TABLE small (id int PRIMARY KEY); INSERT INTO small SELECT generate_series(1, 100)")
    pg.sql("SET enable_seqscan = off", "SELECT count(*) FROM trades WHERE at < '2026-01-02'")
    done = pg.run("stats", f"pg.{pg.name}", analyze="none")
    assert (done.status, done.problem) == ("completed", None)
    told = report(done)
    assert [one["table"] for one in told["tables"]] == [TRADES, "pg.public.small"]
    assert told["tables"][0]["rows"] == ROWS
    assert told["tables"][0]["index_scans"] == 1
    used = {one["index"]: one["scans"] for one in told["indexes"]}
    assert used['"public"."trades_at"'] == 1
    unused = {one["index"] for one in told["unused_indexes"]}
    assert unused == {f'"public"."{name}"' for name in ("trades_curve", "curve_again", "curve_some", "curve_down")}
    twins = {(one["index"], one["same_as"]) for one in told["duplicate_indexes"]}
    assert twins == {
        ('"public"."trades_curve"', '"public"."curve_again"'),
        ('"public"."id_again"', '"public"."trades_pkey"'),
    }
    assert done.metrics["unused_index_bytes"] > 0
    assert done.metrics["duplicate_index_bytes"] == sum(one["bytes"] for one in told["duplicate_indexes"])
    assert 0 <= done.metrics["cache_hit_ratio"] <= 1
    assert "tables_analyzed" not in done.metrics
    assert len(report(pg.run("stats", f"pg.{pg.name}", dry_run=True, top=1))["tables"]) == 1


def test_stale_tables_are_analyzed_and_fresh_ones_are_not(pg: Pg) -> None:
    before = analyzed(pg)
    fresh = pg.run("stats", f"pg.{pg.name}")
    assert "tables_analyzed" not in fresh.metrics
    pg.script("CREATE TABLE never WITH (autovacuum_enabled = false) AS SELECT generate_series(1, 100) AS id")
    pg.sql("UPDATE trades SET price = 0 WHERE id <= 3000")
    rows = pg.checksum()
    dry = pg.run("stats", f"pg.{pg.name}", dry_run=True)
    assert [step.detail["sql"] for step in dry.steps or [] if step.action == "sql"] == [
        f'ANALYZE (SKIP_LOCKED) {pg.only}"public"."trades"',
        f'ANALYZE (SKIP_LOCKED) {pg.only}"public"."never"',
    ]
    assert analyzed(pg) == before
    done = pg.run("stats", f"pg.{pg.name}")
    assert done.metrics["tables_analyzed"] == 2
    assert analyzed(pg) > before
    assert pg.checksum() == rows
    assert pg.run("stats", analyze="all").metrics["tables_analyzed"] == 1


def test_a_partitioned_table_is_analyzed_as_a_whole(pg: Pg) -> None:
    pg.script(
        "CREATE TABLE days (d date, n int) PARTITION BY RANGE (d);"
        "CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');"
        "CREATE TABLE days_2 PARTITION OF days FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');"
        "INSERT INTO days SELECT '2026-01-01'::date + g % 50, g FROM generate_series(1, 1000) g"
    )
    done = pg.run("stats", f"pg.{pg.name}")
    assert [step.detail["table"] for step in done.steps or [] if step.action == "sql"] == ["pg.public.days"]
    assert analyzed(pg, "days_2") is not None
    assert "tables_analyzed" not in pg.run("stats", f"pg.{pg.name}").metrics


def test_a_table_that_is_locked_is_told_and_the_others_are_analyzed(pg: Pg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aurum_orchestration.maintenance.backends.postgres.connection.LONGEST_PAUSE", 0.01)
    pg.script("CREATE TABLE other (id int); INSERT INTO other SELECT generate_series(1, 100)")
    pg.sql("UPDATE trades SET price = 0")
    with pg.transaction("LOCK TABLE trades IN ACCESS EXCLUSIVE MODE", isolation="READ COMMITTED"):
        done = pg.run("stats", f"pg.{pg.name}")
    assert done.metrics["tables_analyzed"] == 1
    assert any(f"{TRADES} was not analyzed" in told for told in done.warnings)


@pytest.mark.thorough
def test_a_report_is_told_once_whatever_the_number_of_attempts(pg: Pg) -> None:
    pg.sql("UPDATE trades SET price = 0")
    with pg.transaction("LOCK TABLE trades IN ACCESS EXCLUSIVE MODE", isolation="READ COMMITTED"):
        failed = pg.run("stats")
    assert failed.status == "failed"
    assert any("attempt 2" in told for told in failed.warnings)
    assert failed.metrics["reports"] == 1
    assert failed.metrics["cache_hit_ratio"] <= 1


def test_a_role_without_rights_gets_the_report_only(pg: Pg) -> None:
    pg.sql("UPDATE trades SET price = 0")
    pg.script("DROP ROLE IF EXISTS aurum_looker; CREATE ROLE aurum_looker LOGIN")
    dsn, pg.dsn = pg.dsn, pg.dsn.replace("user=postgres", "user=aurum_looker")
    try:
        whole, one = pg.run("stats", f"pg.{pg.name}"), pg.run("stats")
    finally:
        pg.dsn = dsn
        pg.sql("DROP ROLE aurum_looker")
    assert whole.metrics["reports"] == 1
    assert any("role aurum_looker may not analyze 1 table" in told or "stale table" in told for told in whole.warnings)
    assert one.problem is not None
    assert one.problem.type == "access-denied"
