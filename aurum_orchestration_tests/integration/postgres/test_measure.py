"""What a real server tells of its tables."""

from __future__ import annotations

import time

import pytest

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.measure_sql import FEW
from aurum_orchestration.maintenance.metrics import HEALTH_METRICS
from aurum_orchestration_tests.integration.postgres.support import ROWS, TRADES, Pg, opened


def test_discovery_lists_the_database_and_its_tables_by_kind(pg: Pg) -> None:
    pg.script(
        'CREATE TABLE days (d date) PARTITION BY RANGE (d); CREATE TABLE "odd.Name" PARTITION OF days DEFAULT;'
        "CREATE MATERIALIZED VIEW curves AS SELECT DISTINCT curve FROM trades; CREATE TEMP TABLE t (id int)"
    )
    with opened(pg.backend()) as backend:
        found = {str(one.table): one.kind for one in backend.discover([])}
        only = [str(one.table) for one in backend.discover(["public.tr*"])]
    assert found == {
        f"pg.{pg.name}": "database",
        "pg.public.curves": "matview",
        "pg.public.days": "partitioned",
        'pg.public."odd.Name"': "table",
        TRADES: "table",
    }
    assert only == [f"pg.{pg.name}", TRADES]


@pytest.mark.parametrize("empty", ["SQL_ASCII", "LATIN1"], indirect=True)
def test_a_database_of_another_encoding_is_kept_as_any(pg: Pg) -> None:
    pg.sql("DELETE FROM trades WHERE id % 2 = 0")
    (health,) = pg.health(TRADES)
    assert health.metrics["dead_tuples"] == ROWS / 2
    done = pg.run("vacuum")
    assert (done.status, done.problem) == ("completed", None)
    assert pg.run("reindex", scope="table").status == "completed"


def test_a_fresh_table_owes_nothing_and_a_churned_one_does(pg: Pg) -> None:
    (fresh,) = pg.health(TRADES)
    pg.sql("DELETE FROM trades WHERE id % 2 = 0")
    churned, gone, database = pg.health(TRADES, "pg.public.gone", f"pg.{pg.name}")
    assert fresh.metrics["rows"] == ROWS
    assert fresh.metrics["dead_tuples"] == fresh.metrics["autovacuum_debt"] == 0
    assert fresh.metrics["table_bloat_ratio"] < 0.15
    assert fresh.metrics["index_bloat_ratio"] < 0.15
    assert churned.metrics["dead_tuples"] == ROWS / 2
    assert churned.metrics["autovacuum_debt"] == pytest.approx(ROWS / 2 / (50 + 0.2 * ROWS / 2), abs=0.01)
    assert churned.metrics["table_bloat_ratio"] == pytest.approx(0.5, abs=0.1)
    assert churned.metrics["index_bloat_ratio"] == pytest.approx(0.5, abs=0.1)
    assert churned.state_token != fresh.state_token
    assert gone.problem is not None
    assert gone.problem.type == "table-not-found"
    assert database.metrics["database_bytes"] > churned.metrics["table_bytes"]
    assert {*churned.metrics, *database.metrics} <= set(HEALTH_METRICS)


def test_a_table_that_another_holds_exclusively_does_not_hold_the_others_up(pg: Pg) -> None:
    pg.sql("CREATE TABLE other (id int)")
    with pg.transaction("LOCK TABLE trades IN ACCESS EXCLUSIVE MODE", isolation="READ COMMITTED"):
        trades, other = pg.health(TRADES, "pg.public.other")
    assert trades.metrics["table_bytes"] > 0
    assert other.problem is None


def test_a_role_without_rights_measures_the_same_rows_and_is_refused_the_work(pg: Pg) -> None:
    pg.script("DROP ROLE IF EXISTS aurum_nobody; CREATE ROLE aurum_nobody LOGIN; DELETE FROM trades WHERE id % 3 = 0")
    try:
        dsn = pg.dsn
        pg.dsn = dsn.replace("user=postgres", "user=aurum_nobody")
        (health,) = pg.health(TRADES)
        result = pg.run("vacuum")
    finally:
        pg.dsn = dsn
        pg.sql("DROP ROLE aurum_nobody")
    assert health.metrics["dead_tuples"] == ROWS // 3
    assert "table_bloat_bytes" not in health.metrics
    assert result.problem is not None
    assert result.problem.type == "access-denied"
    assert "GRANT" in (result.problem.hint or "")


def test_a_replica_or_read_only_server_is_refused_before_anything_is_done(pg: Pg) -> None:
    pg.sql(f"ALTER DATABASE {pg.name} SET default_transaction_read_only = on", "SELECT 1")
    with opened(pg.backend()) as backend, pytest.raises(UnsupportedError, match="default_transaction_read_only"):
        backend.server().refuse_writes("vacuum")


def test_sizes_are_those_of_the_files_whatever_was_counted_when(pg: Pg) -> None:
    def files() -> tuple[float, float]:
        [(table, indexes)] = pg.sql(
            "SELECT pg_relation_size(c.oid) + pg_relation_size(c.reltoastrelid), pg_indexes_size(c.oid)"
            " FROM pg_class c WHERE c.relname = 'trades'"
        )
        return float(table), float(indexes)

    def told() -> tuple[float, float]:
        few, *_ = pg.health(TRADES)
        many, *_ = pg.health(TRADES, *(f"pg.public.gone{number}" for number in range(FEW)))
        assert many.metrics.keys() == few.metrics.keys()
        assert many.metrics["worst_index_bloat_bytes"] == few.metrics["worst_index_bloat_bytes"]
        return few.metrics["table_bytes"], many.metrics["index_bytes"]

    assert told() == files()
    pg.sql(f"INSERT INTO trades SELECT id + {ROWS}, curve, price, at, repeat(md5(id::text), 200) FROM trades")
    assert told() == files()
    pg.sql("ANALYZE trades")  # which looks at no toast
    assert told() == files()
    pg.sql(f"INSERT INTO trades SELECT id + {2 * ROWS}, curve, price, at FROM trades")
    pg.sql("VACUUM (ANALYZE) trades")  # which looks at no index when rows were only added
    assert told() == files()


def test_what_has_hardly_changed_is_not_opened(pg: Pg) -> None:
    pg.sql("UPDATE pg_class SET relpages = 7 WHERE relname = 'trades'")
    (health,) = pg.health(TRADES)
    assert health.metrics["table_bytes"] == 7 * 8192


def test_disconnecting_closes_what_use_without_connect_has_opened(pg: Pg) -> None:
    ours = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with opened(pg.backend()) as backend:
        assert backend.measure([TableId.parse(TRADES)], lambda *_: None)[0].problem is None  # type: ignore[arg-type]
        assert pg.sql(ours) != []
    deadline = time.monotonic() + 30
    while pg.sql(ours) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert pg.sql(ours) == []
