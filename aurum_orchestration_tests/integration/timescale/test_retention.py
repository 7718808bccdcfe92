"""Retention of hypertables: whole chunks that are too old, and nothing else."""

from __future__ import annotations

import pytest

from aurum_orchestration.errors import LockTimeoutError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres import connection
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration.maintenance.operations.retention import RetentionParameters
from aurum_orchestration_tests.integration.postgres.support import a_run, opened
from aurum_orchestration_tests.integration.timescale.support import READINGS, Timescale

WEEK = {"row_days": 7, "time_column": "at"}


def younger(ts: Timescale, table: str = "readings") -> tuple[object, ...]:
    """Count and content of the rows within the limit."""
    return ts.sql(
        f"SELECT count(*), sum(hashtextextended(t::text, 0)) FROM {table} t WHERE at >= now() - interval '7 days'"
    )[0]


def test_chunks_that_are_old_as_a_whole_are_dropped(ts: Timescale) -> None:
    before, rows = ts.chunks(), younger(ts)
    result = ts.run("retention", READINGS, **WEEK)
    assert result.status is MaintenanceStatus.COMPLETED, result.reason
    assert younger(ts) == rows
    left = ts.sql("SELECT count(*) FROM readings WHERE at < date_trunc('day', now() - interval '7 days', 'UTC')")
    assert left == [(0,)]
    assert result.metrics["chunks_dropped"] == len(before) - len(ts.chunks()) >= 22
    assert result.metrics["bytes_freed"] > 0
    assert ts.run("retention", READINGS, **WEEK).status is MaintenanceStatus.SKIPPED


def test_a_chunk_that_straddles_the_limit_stays_whole(ts: Timescale) -> None:
    ts.run("retention", READINGS, **WEEK)
    oldest = ts.sql("SELECT min(at) = date_trunc('day', now() - interval '7 days', 'UTC') FROM readings")
    assert oldest == [(True,)]


def test_a_dry_run_writes_nothing(ts: Timescale) -> None:
    ts.sql("UPDATE readings SET value = 0 WHERE meter = 1")
    for operation, given in (
        ("retention", WEEK),
        ("vacuum", {}),
        ("stats", {"analyze": "all"}),
        ("reindex", {"scope": "table"}),
        ("partition_evolution", {"chunk_interval": "2 days"}),
    ):
        before = ts.relations(), ts.checksum("readings")
        result = ts.run(operation, READINGS, dry_run=True, **given)
        assert result.status is MaintenanceStatus.PLANNED, (operation, result.reason)
        assert all(step.detail["sql"] for step in result.steps or [])
        assert (ts.relations(), ts.checksum("readings")) == before
    assert ts.sql("SELECT time_interval::text FROM timescaledb_information.dimensions") == [("1 day",)]


def test_a_column_without_zone_is_read_in_its_own(ts: Timescale) -> None:
    ts.script("""
        CREATE TABLE local (at timestamp NOT NULL, n int);
        SELECT create_hypertable('local', by_range('at', interval '1 hour'));
        INSERT INTO local
        SELECT (now() AT TIME ZONE 'Pacific/Kiritimati')::timestamp - interval '1 day' - g * interval '1 hour', g
          FROM generate_series(-3, 3) g
    """)
    result = ts.run("retention", "pg.public.local", row_days=1, time_column="at", time_zone="Pacific/Kiritimati")
    assert result.status is MaintenanceStatus.COMPLETED, result.reason
    assert ts.sql("SELECT count(*) FILTER (WHERE n <= 0), count(*) FILTER (WHERE n > 1) FROM local") == [(4, 0)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"row_days": 7}, "no time_column"),
        ({"time_column": "at", "retention_days": 7}, "row_days is not set"),
        ({"row_days": 7, "time_column": "value"}, "its chunks are by at, not value"),
    ],
)
def test_rows_that_cannot_go_by_chunk_stay(ts: Timescale, given: dict[str, object], said: str) -> None:
    before = ts.chunks()
    result = ts.run("retention", READINGS, **given)
    assert result.status is MaintenanceStatus.SKIPPED
    assert said in result.reason
    assert ts.chunks() == before


def test_an_integer_column_says_no_age(ts: Timescale) -> None:
    ts.sql(
        "CREATE TABLE ticks (n bigint NOT NULL)",
        "SELECT create_hypertable('ticks', by_range('n', 100))",
        "INSERT INTO ticks SELECT generate_series(1, 500)",
    )
    result = ts.run("retention", "pg.public.ticks", row_days=7, time_column="n")
    assert result.status is MaintenanceStatus.SKIPPED
    assert "bigint, which says no age" in result.reason


def test_a_foreign_key_that_refers_to_the_hypertable_is_named(ts: Timescale) -> None:
    ts.sql(
        "CREATE UNIQUE INDEX readings_key ON readings (at, meter)",
        "CREATE TABLE notes (at timestamptz, meter int, CONSTRAINT noted FOREIGN KEY (at, meter) "
        "REFERENCES readings (at, meter) ON DELETE CASCADE)",
        "INSERT INTO notes SELECT at, meter FROM readings ORDER BY at LIMIT 1",
    )
    result = ts.run("retention", READINGS, **WEEK)
    assert result.status is MaintenanceStatus.SKIPPED
    assert "notes (noted)" in result.reason
    assert ts.sql("SELECT count(*) FROM notes") == [(1,)]


def test_a_reader_in_the_way_is_waited_for_shortly(ts: Timescale, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LONGEST_PAUSE", 0.05)
    before = ts.chunks()
    with opened(ts.backend(lock_timeout=0.05)) as backend:
        plan = backend.plan(TableId.parse(READINGS), "retention", RetentionParameters(**WEEK))
        first = next(iter(backend.open(plan, a_run()).units()))
        with ts.transaction("SELECT count(*) FROM readings"), pytest.raises(LockTimeoutError):
            first.commit(a_run())
        assert ts.chunks() == before
        first.commit(a_run())
    assert ts.chunks() == before[1:]
