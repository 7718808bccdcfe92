"""Hypertables and their chunks: listed, measured, and looked after chunk by chunk."""

from __future__ import annotations

import psycopg
import pytest

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration.maintenance.operations.vacuum import VacuumParameters
from aurum_orchestration_tests.integration.postgres.support import a_run, opened
from aurum_orchestration_tests.integration.timescale.support import DAYS, POLICY, READINGS, Timescale


def test_hypertables_are_listed_and_their_chunks_are_not(ts: Timescale) -> None:
    ts.sql("CREATE TABLE plain (id int)")
    with opened(ts.backend()) as backend:
        found = {str(one.table): one.kind for one in backend.discover(["**"])}
    assert found == {f"pg.{ts.name}": "database", "pg.public.plain": "table", READINGS: "hypertable"}


def test_a_hypertable_is_measured_as_the_sum_of_its_chunks(ts: Timescale) -> None:
    ts.sql("ANALYZE readings")
    (health,) = ts.health(READINGS)
    (size,) = ts.sql("SELECT hypertable_size('readings')")[0]
    assert health.problem is None
    assert health.metrics["rows"] == DAYS * 24
    assert health.metrics["chunks"] == len(ts.chunks())
    assert health.metrics["chunk_interval_seconds"] == 86_400
    measured = health.metrics["table_bytes"] + health.metrics["index_bytes"]
    assert measured == pytest.approx(size, rel=0.6)  # the server counts free space maps, too
    assert health.metrics["native_jobs"] == 0


def test_doctor_tells_the_edition_and_that_no_job_fails(apache: Timescale) -> None:
    with opened(apache.backend()) as backend:
        told = {one.check: one.detail for one in backend.checkup([])}
    assert "Apache edition" in told["timescaledb"]
    assert told["native jobs"] == "the last run of no job of TimescaleDB's failed"


def test_doctor_tells_a_job_that_failed(ts: Timescale) -> None:
    ts.sql(
        POLICY,
        "INSERT INTO _timescaledb_internal.bgw_job_stat "
        "VALUES (1001, now(), now(), now() + interval '1 day', '-infinity', false, 3, '1 s', '1 s', 0, 3, 0, 3, 0, 0)",
    )
    with opened(ts.backend()) as backend:
        told = {one.check: one.detail for one in backend.checkup([])}
    assert told["native jobs"] == "job 1001 (policy_retention) failed 3 times, at last: no message"
    (health,) = ts.health(READINGS)
    assert health.metrics["native_job_failures"] == 1


def test_vacuum_goes_to_the_chunks_with_dead_rows_only(ts: Timescale) -> None:
    ts.sql("VACUUM (ANALYZE) readings", "UPDATE readings SET value = -1 WHERE at < now() - interval '28 days'")
    rows = ts.checksum("readings")
    result = ts.run("vacuum", READINGS)
    assert result.status is MaintenanceStatus.COMPLETED, result.reason
    touched = [step.detail["chunk"].split()[0] for step in result.steps or []]
    assert set(touched) <= set(ts.chunks()[:4])
    assert touched
    assert result.metrics["dead_tuples_removed"] > 0
    assert ts.checksum("readings") == rows
    again = ts.run("vacuum", READINGS)
    assert again.status is MaintenanceStatus.SKIPPED
    assert "0 of" in again.reason


def test_a_chunk_that_is_dropped_between_plan_and_work_is_told(ts: Timescale) -> None:
    ts.sql("VACUUM (ANALYZE) readings", "UPDATE readings SET value = -1")
    with opened(ts.backend()) as backend:
        plan = backend.plan(TableId.parse(READINGS), "vacuum", VacuumParameters(cost_delay_ms=0))
        ts.sql("SELECT drop_chunks('readings', older_than => interval '28 days')")
        outcomes = [unit.commit(a_run()) for unit in backend.open(plan, a_run()).units()]
    warned = [warning for outcome in outcomes for warning in outcome.warnings]
    assert len(warned) == len(plan.steps) - len(ts.chunks())
    assert all("was dropped meanwhile" in warning for warning in warned)


def test_stats_analyzes_stale_chunks(ts: Timescale) -> None:
    ts.sql("ANALYZE readings")
    fresh = ts.run("stats", READINGS)
    assert fresh.status is MaintenanceStatus.SKIPPED
    ts.sql(
        "INSERT INTO readings "
        "SELECT date_trunc('day', now(), 'UTC') - interval '3 days' + g * interval '1 minute', 1, 1 "
        "FROM generate_series(0, 199) g"
    )
    result = ts.run("stats", READINGS)
    assert result.status is MaintenanceStatus.COMPLETED, result.reason
    assert result.metrics["chunks_analyzed"] == 1
    assert ts.run("stats", READINGS).status is MaintenanceStatus.SKIPPED


def test_reindex_builds_the_indexes_of_chunks(ts: Timescale) -> None:
    before = dict(ts.sql("SELECT relname, relfilenode FROM pg_class WHERE relname LIKE '%chunk_readings_meter'"))
    rows = ts.checksum("readings")
    result = ts.run("reindex", READINGS, scope="table")
    assert result.status is MaintenanceStatus.COMPLETED, result.reason
    after = dict(ts.sql("SELECT relname, relfilenode FROM pg_class WHERE relname LIKE '%chunk_readings_meter'"))
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
    assert ts.checksum("readings") == rows


def test_a_role_without_rights_is_told_and_changes_nothing(ts: Timescale) -> None:
    ts.sql(
        "DROP ROLE IF EXISTS aurum_reader", "CREATE ROLE aurum_reader LOGIN", "GRANT SELECT ON readings TO aurum_reader"
    )
    try:
        reader = Timescale(psycopg.conninfo.make_conninfo(ts.dsn, user="aurum_reader"), ts.name, ts.home)
        before = ts.chunks()
        vacuumed = reader.run("vacuum", READINGS)
        dropped = reader.run("retention", READINGS, row_days=7, time_column="at")
        assert vacuumed.problem is not None
        assert vacuumed.problem.type == "access-denied"
        assert dropped.problem is not None
        assert dropped.problem.type == "access-denied"
        assert ts.chunks() == before
    finally:
        ts.sql("DROP OWNED BY aurum_reader", "DROP ROLE aurum_reader")
