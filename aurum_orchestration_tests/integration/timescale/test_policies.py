"""TimescaleDB's own policies on the TSL edition: what they do is left to them, and how they fare is told."""

from __future__ import annotations

import asyncio

import pytest

from aurum_orchestration.maintenance.interfaces import MaintenanceResult, MaintenanceStatus
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration_tests.integration.postgres.support import opened, steps_of
from aurum_orchestration_tests.integration.timescale.support import COLUMNSTORE, READINGS, Timescale, aggregate

STATE = "SELECT count(*), count(*) FILTER (WHERE is_compressed) FROM timescaledb_information.chunks"
WEEK = {"row_days": 7, "time_column": "at"}


def refused(result: MaintenanceResult, told: str) -> None:
    assert result.status is MaintenanceStatus.SKIPPED, result.problem
    assert told in result.reason


@pytest.mark.parametrize(
    ("policy", "operation", "given", "told"),
    [
        ("add_retention_policy('readings', interval '40 days')", "retention", WEEK, "drop_after 40 days"),
        ("add_compression_policy('readings', interval '40 days')", "compaction", {}, "compress_after 40 days"),
        ("add_reorder_policy('readings', 'readings_meter')", "compaction", {}, "index_name readings_meter"),
    ],
)
def test_a_policy_is_respected_until_it_is_taken_away(
    tsl: Timescale, policy: str, operation: str, given: dict[str, object], told: str
) -> None:
    tsl.sql(COLUMNSTORE)
    ((job,),) = tsl.sql(f"SELECT {policy}")
    before = tsl.sql(STATE), tsl.checksum("readings")
    result = tsl.run(operation, READINGS, **given)
    refused(result, f"(job {job}, {told}) does it")
    assert (tsl.sql(STATE), tsl.checksum("readings")) == before
    (health,) = tsl.health(READINGS)
    assert health.metrics["native_jobs"] == 1
    assert told in health.refusals[operation]
    tsl.sql(f"SELECT delete_job({job})")
    assert tsl.run(operation, READINGS, **given).status is MaintenanceStatus.COMPLETED


def test_a_policy_that_is_paused_does_nothing_and_we_do(tsl: Timescale) -> None:
    tsl.sql(COLUMNSTORE, "SELECT alter_job(add_compression_policy('readings', interval '20 days'), scheduled => false)")
    assert tsl.run("compaction", READINGS).status is MaintenanceStatus.COMPLETED


def test_the_planner_converts_by_itself_where_a_policy_says_from_when_on(tsl: Timescale) -> None:
    rules = "policy:\n  compaction: {{trigger_chunks: {0}, chunks_older_than_days: 20, cooldown_minutes: 0}}\n"
    tsl.sql(COLUMNSTORE)

    async def a_round(least: int) -> list[MaintenanceResult]:
        async with MaintenanceService(tsl.settings(rules.format(least))) as service:
            found = await service.maintain([READINGS])
        return [one for one in found if one.config.operation_type == "compaction" and one.metrics]

    old = "SELECT count(*) FROM timescaledb_information.chunks WHERE range_end <= now() - interval '20 days'"
    waiting = int(tsl.sql(old)[0][0])
    assert waiting >= 10
    assert asyncio.run(a_round(waiting + 1)) == []
    (result,) = asyncio.run(a_round(waiting))
    assert result.status is MaintenanceStatus.COMPLETED, (result.reason, result.problem)
    assert tsl.sql(STATE)[0][1] == result.metrics["chunks_rewritten"] == waiting
    assert asyncio.run(a_round(1)) == []


def test_an_aggregate_with_a_policy_is_left_out(tsl: Timescale) -> None:
    tsl.sql(aggregate("daily", "1 day"), aggregate("weekly", "7 days"))
    add = "add_continuous_aggregate_policy('daily', interval '20 days', interval '1 day', interval '1 day')"
    ((job,),) = tsl.sql(f"SELECT {add}")
    result = tsl.run("views", READINGS)
    assert result.status is MaintenanceStatus.COMPLETED, result.reason
    assert [step.detail["view"] for step in steps_of(result)] == ['"public"."weekly"']
    (told,) = [told for told in result.warnings if "is left out" in told]
    assert told.startswith("public.daily is left out: TimescaleDB's policy_refresh_continuous_aggregate")
    assert f"job {job}, start_offset" in told


def test_what_native_jobs_did_and_how_they_failed_is_told(tsl: Timescale) -> None:
    tsl.sql(COLUMNSTORE)
    ((job,),) = tsl.sql("SELECT add_compression_policy('readings', interval '20 days')")
    tsl.sql(f"SELECT alter_job({job}, next_start => 'infinity')", f"CALL run_job({job})")
    (health,) = tsl.health(READINGS)
    assert health.metrics["compressed_chunks"] == tsl.sql(STATE)[0][1] > 0
    assert health.metrics["native_job_failures"] == 0
    tsl.sql(
        "CREATE PROCEDURE broken(job_id int, config jsonb) LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the disk of the archive is full'; END $$"
    )
    ((failing,),) = tsl.sql("SELECT add_job('broken', '1 hour')")
    tsl.until("SELECT count(*) > 0 FROM timescaledb_information.job_errors")
    with opened(tsl.backend()) as backend:
        told = {one.check: one.detail for one in backend.checkup([])}
    assert "TSL edition" in told["timescaledb"]
    assert told["native jobs"].startswith(f"job {failing} (broken) failed ")
    assert told["native jobs"].endswith("the disk of the archive is full")
