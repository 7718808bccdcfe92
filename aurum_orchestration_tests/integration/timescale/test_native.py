"""What the database does by itself is left to it; what an edition cannot do is said."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.timescale.backend import TimescaleMaintenanceBackend
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration.maintenance.operations.compaction import CompactionParameters
from aurum_orchestration_tests.integration.postgres.support import a_run, opened
from aurum_orchestration_tests.integration.timescale.support import POLICY, READINGS, Timescale


def test_a_native_retention_policy_is_respected(ts: Timescale) -> None:
    ts.sql(POLICY)
    before = ts.chunks()
    result = ts.run("retention", READINGS, row_days=7, time_column="at")
    assert result.status is MaintenanceStatus.SKIPPED
    assert "policy_retention (job 1001, drop_after 30 days)" in result.reason
    assert ts.chunks() == before
    (health,) = ts.health(READINGS)
    assert health.metrics["native_jobs"] == 1
    ts.sql("UPDATE _timescaledb_config.bgw_job SET scheduled = false WHERE id = 1001")
    assert ts.run("retention", READINGS, row_days=7, time_column="at").status is MaintenanceStatus.COMPLETED


def test_pg_partman_is_respected(ts: Timescale) -> None:
    ts.sql(
        "CREATE SCHEMA partman",
        "CREATE EXTENSION pg_partman SCHEMA partman",
        "CREATE TABLE trades (at timestamptz NOT NULL, n int) PARTITION BY RANGE (at)",
        "SELECT partman.create_parent('public.trades', 'at', '1 day')",
    )
    (health,) = ts.health("pg.public.trades")
    assert "pg_partman does it (premake 4" in health.refusals["partition_evolution"]
    ts.sql("UPDATE partman.part_config SET retention = '10 days'")
    (health,) = ts.health("pg.public.trades")
    assert health.refusals["retention"] == "pg_partman does it (retention 10 days in part_config)"
    result = ts.run("retention", "pg.public.trades", row_days=7, time_column="at")
    assert result.status is MaintenanceStatus.SKIPPED
    assert result.reason.startswith("pg_partman does it")


@pytest.mark.parametrize("operation", ["compaction", "views"])
def test_what_the_apache_edition_cannot_do_is_skipped(apache: Timescale, operation: str) -> None:
    result = apache.run(operation, READINGS)
    assert result.status is MaintenanceStatus.SKIPPED
    assert "needs the TSL edition" in result.reason


def of_the_other_edition(ts: Timescale) -> TimescaleMaintenanceBackend:
    """A backend that takes the server for one of the TSL edition."""
    backend = ts.backend()
    facts = dataclasses.replace(backend.server(), timescale_license="timescale")
    backend.server = lambda: facts  # type: ignore[method-assign]
    return backend


def test_the_extension_knows_the_statements_of_the_other_edition(apache: Timescale) -> None:
    parameters = CompactionParameters(chunks="reorder", reorder_index="readings_meter")
    with opened(of_the_other_edition(apache)) as backend:
        plan = backend.plan(TableId.parse(READINGS), "compaction", parameters)
        assert plan.steps[0].detail["sql"].startswith("SELECT reorder_chunk(")
        first = next(iter(backend.open(plan, a_run()).units()))
        with pytest.raises(UnsupportedError, match=r"not supported under the current .apache. license"):
            first.commit(a_run())


def test_neighbours_are_merged_in_pairs(apache: Timescale) -> None:
    """Planned only: on the Apache edition the statement ends the server's process."""
    with opened(of_the_other_edition(apache)) as backend:
        plan = backend.plan(TableId.parse(READINGS), "compaction", CompactionParameters(chunks="merge"))
    assert all(step.detail["sql"].startswith("CALL merge_chunks(") for step in plan.steps)
    merged = [name for step in plan.steps for name in step.detail["chunks"]]
    assert len(merged) == len(set(merged)) >= 20
    assert apache.sql("SELECT to_regprocedure('merge_chunks(regclass, regclass)') IS NOT NULL") == [(True,)]
    named = "proname = 'convert_to_columnstore' AND 'if_not_columnstore' = ANY (proargnames)"
    assert apache.sql(f"SELECT count(*) FROM pg_proc WHERE {named}") == [(1,)]
    with opened(apache.backend()) as real, pytest.raises(UnsupportedError, match="needs the TSL edition"):
        real.open(plan, a_run())


def test_a_columnstore_that_is_not_there_is_told(ts: Timescale) -> None:
    with opened(of_the_other_edition(ts)) as backend, pytest.raises(UnsupportedError, match="has no columnstore"):
        backend.plan(TableId.parse(READINGS), "compaction", CompactionParameters())


def test_a_new_chunk_interval_holds_for_new_chunks_and_is_taken_back(ts: Timescale) -> None:
    before, rows = ts.chunks(), ts.checksum("readings")
    untouched = ts.run("partition_evolution", READINGS)
    assert untouched.status is MaintenanceStatus.SKIPPED
    assert "1 day" in untouched.reason
    result = ts.run("partition_evolution", READINGS, chunk_interval="2 days")
    assert result.status is MaintenanceStatus.COMPLETED, result.reason
    assert (ts.chunks(), ts.checksum("readings")) == (before, rows)
    ts.sql("INSERT INTO readings VALUES (now() + interval '90 days', 1, 1)")
    spans = ts.sql("SELECT (range_end - range_start)::text FROM timescaledb_information.chunks ORDER BY range_start")
    assert spans[-1] == ("2 days",)
    assert spans[0] == ("1 day",)
    taken_back = undo(ts, result.operation_id)
    assert taken_back is MaintenanceStatus.COMPLETED
    assert ts.sql("SELECT time_interval::text FROM timescaledb_information.dimensions") == [("1 day",)]


@pytest.mark.parametrize("interval", ["yesterday's", "-1 day", "1'; DROP TABLE readings; --"])
def test_a_wrong_interval_is_a_wrong_request(ts: Timescale, interval: str) -> None:
    result = ts.run("partition_evolution", READINGS, chunk_interval=interval)
    assert result.problem is not None
    assert result.problem.type == "validation-error"


def undo(ts: Timescale, operation: str) -> MaintenanceStatus:
    """How taking an operation back ended."""
    from aurum_orchestration.maintenance.service import MaintenanceService

    async def go() -> MaintenanceStatus:
        async with MaintenanceService(ts.settings()) as service:
            return (await service.undo(operation)).status

    return asyncio.run(go())
