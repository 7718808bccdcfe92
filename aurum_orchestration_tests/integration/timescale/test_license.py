"""A server that could do everything, and whose license setting says Apache: what it then refuses is not asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psycopg
import pytest

from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration_tests.integration.postgres.support import opened
from aurum_orchestration_tests.integration.timescale.support import COLUMNSTORE, READINGS, Timescale, aggregate


@pytest.fixture
def switched(tsl: Timescale) -> Iterator[Timescale]:
    """The database with chunks in the columnstore and an aggregate, after the whole server was told otherwise."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("the setting is the whole server's, and other tests run on it just now")
    tsl.sql(COLUMNSTORE, aggregate("daily", "1 day"))
    assert tsl.run("compaction", READINGS, chunks_older_than_days=20).status is MaintenanceStatus.COMPLETED
    try:
        tsl.sql("ALTER SYSTEM SET timescaledb.license = 'apache'", "SELECT pg_reload_conf()")
        tsl.until("SELECT setting = 'apache' FROM pg_settings WHERE name = 'timescaledb.license'")
        yield tsl
    finally:
        tsl.sql("ALTER SYSTEM RESET timescaledb.license", "SELECT pg_reload_conf()")
        tsl.until("SELECT setting = 'timescale' FROM pg_settings WHERE name = 'timescaledb.license'")


@pytest.mark.thorough
def test_what_the_license_forbids_is_skipped_with_that_reason(switched: Timescale) -> None:
    with psycopg.connect(switched.dsn, autocommit=True) as other, pytest.raises(psycopg.Error, match="license"):
        other.execute("CALL refresh_continuous_aggregate('daily', NULL, NULL)")
    for operation, given in (
        ("compaction", {}),
        ("compaction", {"chunks": "merge"}),
        ("compaction", {"chunks": "reorder", "reorder_index": "readings_meter"}),
        ("views", {}),
    ):
        result = switched.run(operation, READINGS, **given)
        assert result.status is MaintenanceStatus.SKIPPED, (operation, result.problem)
        assert "needs the TSL edition" in result.reason
    (health,) = switched.health(READINGS)
    assert health.problem is None
    with opened(switched.backend()) as backend:
        told = {one.check: one.detail for one in backend.checkup([])}
    assert "Apache edition" in told["timescaledb"]
    for operation in ("vacuum", "stats", "bloat"):
        result = switched.run(operation, READINGS)
        assert result.problem is None, (operation, str(result.problem))
