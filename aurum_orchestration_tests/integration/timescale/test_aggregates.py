"""Continuous aggregates on the TSL edition: refreshed where they lack something, and never emptied."""

from __future__ import annotations

import pytest

from aurum_orchestration.maintenance.interfaces import MaintenanceResult, MaintenanceStatus
from aurum_orchestration_tests.integration.postgres.support import steps_of
from aurum_orchestration_tests.integration.timescale.support import COLUMNSTORE, READINGS, Timescale, aggregate

LOG = "SELECT count(*) FROM _timescaledb_catalog.continuous_aggs_hypertable_invalidation_log"
TRUTH = "SELECT time_bucket('1 day', at) AS bucket, count(*), sum(value) FROM readings GROUP BY 1"
WEEK = {"row_days": 7, "time_column": "at"}


def done(result: MaintenanceResult) -> MaintenanceResult:
    assert result.status is MaintenanceStatus.COMPLETED, (result.reason, result.problem)
    return result


def test_a_refresh_takes_in_what_was_changed(tsl: Timescale) -> None:
    tsl.sql(aggregate("daily", "1 day"))
    assert tsl.sql("SELECT count(*) FROM daily") == [(0,)]
    assert done(tsl.run("views", READINGS)).metrics["views_refreshed"] == 1
    assert sorted(tsl.sql("SELECT * FROM daily")) == sorted(tsl.sql(TRUTH))
    tsl.sql("UPDATE readings SET value = 1000 WHERE at < now() - interval '20 days'")
    assert tsl.sql(LOG)[0][0] > 0
    assert sorted(tsl.sql("SELECT * FROM daily")) != sorted(tsl.sql(TRUTH))
    done(tsl.run("views", READINGS))
    assert tsl.sql(LOG) == [(0,)]
    assert sorted(tsl.sql("SELECT * FROM daily")) == sorted(tsl.sql(TRUTH))


def test_what_an_aggregate_has_of_dropped_chunks_stays(tsl: Timescale) -> None:
    tsl.sql(aggregate("daily", "1 day"), aggregate("monthly", "1 month"))
    done(tsl.run("views", READINGS))
    before = sorted(tsl.sql("SELECT * FROM daily")), sorted(tsl.sql("SELECT * FROM monthly"))
    done(tsl.run("retention", READINGS, **WEEK))
    tsl.sql("UPDATE readings SET value = value")
    result = done(tsl.run("views", READINGS))
    assert (sorted(tsl.sql("SELECT * FROM daily")), sorted(tsl.sql("SELECT * FROM monthly"))) == before
    assert all("older rows may be dropped" in step.summary for step in steps_of(result))


def test_aggregates_of_aggregates_are_refreshed_after_them(tsl: Timescale) -> None:
    tsl.sql(
        aggregate("daily", "1 day"),
        "CREATE MATERIALIZED VIEW another WITH (timescaledb.continuous, timescaledb.materialized_only) AS "
        "SELECT time_bucket('7 days', bucket) AS week, sum(n) AS n FROM daily GROUP BY 1 WITH NO DATA",
    )
    result = done(tsl.run("views", READINGS))
    assert [step.detail["view"] for step in steps_of(result)] == ['"public"."daily"', '"public"."another"']
    assert tsl.sql("SELECT sum(n) FROM another") == tsl.sql("SELECT count(*) FROM readings")


@pytest.mark.parametrize(
    ("kind", "value", "width"),
    [
        ("date", "date '2026-01-01' + g", "interval '7 days'"),
        ("timestamp", "timestamp '2026-01-01' + g * interval '1 day'", "interval '7 days'"),
        ("bigint", "g", "7"),
        ("int", "g", "7"),
    ],
)
def test_every_type_of_time_is_refreshed(tsl: Timescale, kind: str, value: str, width: str) -> None:
    tsl.sql(
        f"CREATE TABLE events (t {kind} NOT NULL, n int)",
        f"SELECT create_hypertable('events', by_range('t', {width}))",
        f"INSERT INTO events SELECT {value}, g FROM generate_series(1, 60) g",
    )
    if kind in {"bigint", "int"}:
        tsl.sql(
            f"CREATE FUNCTION last_event() RETURNS {kind} LANGUAGE sql STABLE AS 'SELECT max(t) FROM events'",
            "SELECT set_integer_now_func('events', 'last_event')",
        )
    tsl.sql(
        "CREATE MATERIALIZED VIEW weekly WITH (timescaledb.continuous, timescaledb.materialized_only) AS "
        f"SELECT time_bucket({width}, t) AS bucket, count(*) AS n FROM events GROUP BY 1 WITH NO DATA"
    )
    done(tsl.run("views", "pg.public.events"))
    assert tsl.sql("SELECT sum(n) FROM weekly")[0][0] >= 50
    had = tsl.sql("SELECT * FROM weekly ORDER BY 1")
    (limit,) = tsl.sql("SELECT t::text FROM events WHERE n = 30")[0]
    tsl.sql(f"SELECT drop_chunks('events', older_than => '{limit}'::{kind})", "UPDATE events SET n = n")
    result = done(tsl.run("views", "pg.public.events"))
    assert steps_of(result)[0].detail["since"] is not None
    assert tsl.sql("SELECT * FROM weekly ORDER BY 1")[:2] == had[:2]


def test_only_the_views_that_are_asked_for(tsl: Timescale) -> None:
    tsl.sql(aggregate("daily", "1 day"), aggregate("monthly", "1 month"))
    assert done(tsl.run("views", READINGS, views=["public.daily"])).metrics["views_refreshed"] == 1
    assert tsl.sql("SELECT count(*) FROM monthly") == [(0,)]


def test_aggregates_that_still_need_the_rows_are_named_before_the_drop(tsl: Timescale) -> None:
    tsl.sql(COLUMNSTORE, aggregate("daily", "1 day"), aggregate("weekly", "7 days"))
    done(tsl.run("views", READINGS))
    done(tsl.run("compaction", READINGS))
    fresh = tsl.run("retention", READINGS, dry_run=True, **WEEK)
    assert not [told for told in fresh.warnings if "still needs" in told]
    tsl.sql(
        "UPDATE readings SET value = 9 WHERE at < now() - interval '20 days'",
        "CALL refresh_continuous_aggregate('weekly', NULL, NULL)",
    )
    planned = tsl.run("retention", READINGS, dry_run=True, **WEEK)
    late = [told for told in planned.warnings if "still needs" in told]
    assert [told.split()[2] for told in late] == ["public.daily"]
    done(tsl.run("views", READINGS))
    before = sorted(tsl.sql("SELECT * FROM daily"))
    result = done(tsl.run("retention", READINGS, **WEEK))
    assert not [told for told in result.warnings if "still needs" in told]
    assert result.metrics["bytes_freed"] > 0
    assert sorted(tsl.sql("SELECT * FROM daily")) == before
    assert tsl.sql("SELECT count(*) FROM readings WHERE at < now() - interval '8 days'") == [(0,)]
