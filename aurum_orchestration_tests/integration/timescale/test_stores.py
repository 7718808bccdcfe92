"""The tables behind chunks in the columnstore are looked after with their chunks, on the TSL edition."""

from __future__ import annotations

import pytest

from aurum_orchestration.maintenance.interfaces import MaintenanceResult, MaintenanceStatus
from aurum_orchestration_tests.integration.postgres.support import steps_of
from aurum_orchestration_tests.integration.timescale.support import COLUMNSTORE, DAYS, MANY, READINGS, Timescale

STORES = """
SELECT s.compress_relid::oid, c.relfilenode, pg_stat_get_vacuum_count(c.oid), pg_stat_get_analyze_count(c.oid)
  FROM _timescaledb_catalog.compression_settings s JOIN pg_class c ON c.oid = s.compress_relid ORDER BY 1
"""
INDEXES = """
SELECT indexrelid::regclass::text, pg_relation_filenode(indexrelid)
  FROM pg_index JOIN _timescaledb_catalog.compression_settings ON indrelid = compress_relid
"""


def done(result: MaintenanceResult) -> MaintenanceResult:
    assert result.status is MaintenanceStatus.COMPLETED, (result.reason, result.problem)
    return result


@pytest.fixture
def stored(tsl: Timescale) -> Timescale:
    """All chunks but those of the last week are in the columnstore, and nobody but us vacuums what is behind them."""
    tsl.sql(COLUMNSTORE, MANY)
    done(tsl.run("compaction", READINGS))
    for (name,) in tsl.sql(
        "SELECT compress_relid::text FROM _timescaledb_catalog.compression_settings WHERE compress_relid IS NOT NULL"
    ):
        tsl.sql(f"ALTER TABLE {name} SET (autovacuum_enabled = false)")
    return tsl


def test_size_and_rows_are_those_of_everything(stored: Timescale) -> None:
    done(stored.run("stats", READINGS))
    (health,) = stored.health(READINGS)
    (size,) = stored.sql("SELECT hypertable_size('readings')")[0]
    measured = health.metrics["table_bytes"] + health.metrics["index_bytes"]
    assert measured == pytest.approx(size, rel=0.3)  # the server counts free space maps, too
    assert health.metrics["rows"] == DAYS * 24 * 120
    assert health.metrics["compressed_chunks"] == len(stored.sql(STORES)) > 20
    assert health.metrics["partitions"] == health.metrics["chunks"] == len(stored.chunks())


def test_rows_are_not_counted_twice_before_the_server_knows(stored: Timescale) -> None:
    (health,) = stored.health(READINGS)
    assert health.metrics["rows"] == pytest.approx(DAYS * 24 * 120, rel=0.01)


def test_stats_analyzes_them(stored: Timescale) -> None:
    assert {row[3] for row in stored.sql(STORES)} == {0}
    assert done(stored.run("stats", READINGS)).metrics["chunks_analyzed"] == len(stored.chunks())
    assert all(row[3] > 0 for row in stored.sql(STORES))
    assert stored.run("stats", READINGS).status is MaintenanceStatus.SKIPPED


def test_vacuum_takes_what_is_dead_in_them(stored: Timescale) -> None:
    stored.sql(
        "VACUUM (ANALYZE) readings", "DELETE FROM readings WHERE at < now() - interval '20 days' AND value < 2000"
    )
    rows = stored.checksum("readings")
    dead = "SELECT sum(pg_stat_get_dead_tuples(compress_relid)) FROM _timescaledb_catalog.compression_settings"
    stored.until(f"SELECT ({dead}) > 0")
    result = done(stored.run("vacuum", READINGS))
    assert stored.sql(dead) == [(0,)]
    assert result.metrics["dead_tuples_removed"] > 0
    assert "11 chunks of 31" in result.reason
    assert stored.checksum("readings") == rows


def test_freeze_goes_into_them(stored: Timescale) -> None:
    stored.sql(*["SELECT pg_current_xact_id()"] * 2000)
    age = f"SELECT max(age(relfrozenxid)) FROM pg_class WHERE oid IN (SELECT oid FROM ({STORES}) s(oid, a, b, c))"
    assert stored.sql(age)[0][0] > 2000
    (health,) = stored.health(READINGS)
    assert health.metrics["xid_age"] > 2000
    done(stored.run("vacuum", READINGS, freeze="always"))
    assert stored.sql(age)[0][0] < 1000


def test_reindex_builds_their_indexes_and_not_those_of_the_hypertable_itself(stored: Timescale) -> None:
    before, rows = dict(stored.sql(INDEXES)), stored.checksum("readings")
    assert before
    result = done(stored.run("reindex", READINGS, scope="table"))
    after = dict(stored.sql(INDEXES))
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
    assert result.metrics["groups_left"] == 0
    assert result.metrics["indexes_rebuilt"] == len(steps_of(result))
    assert stored.checksum("readings") == rows


def test_bloat_is_told_of_everything_and_not_guessed_of_compressed_columns(stored: Timescale) -> None:
    done(stored.run("stats", READINGS))
    result = done(stored.run("bloat", READINGS))
    (health,) = stored.health(READINGS)
    assert health.metrics["table_bloat_bytes"] == 0
    assert result.metrics["bloat_bytes"] + result.metrics["live_bytes"] == pytest.approx(
        health.metrics["table_bytes"] + health.metrics["index_bytes"], rel=0.01
    )
