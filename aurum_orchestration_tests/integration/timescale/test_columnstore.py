"""Compaction on the TSL edition: old chunks into the columnstore, merged, reordered; every row stays."""

from __future__ import annotations

import pytest

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.interfaces import MaintenanceResult, MaintenanceStatus
from aurum_orchestration.maintenance.operations.compaction import CompactionParameters
from aurum_orchestration_tests.integration.postgres.support import a_run, opened, steps_of
from aurum_orchestration_tests.integration.timescale.support import COLUMNSTORE, MANY, READINGS, Timescale

COMPRESSED = "SELECT chunk_name::text FROM timescaledb_information.chunks WHERE is_compressed ORDER BY range_start"
OLD = """
SELECT chunk_name::text FROM timescaledb_information.chunks
 WHERE range_end <= now() - interval '7 days' ORDER BY range_start
"""


def done(result: MaintenanceResult) -> MaintenanceResult:
    assert result.status is MaintenanceStatus.COMPLETED, (result.reason, result.problem)
    return result


def test_old_chunks_go_into_the_columnstore_with_their_rows(tsl: Timescale) -> None:
    tsl.sql(COLUMNSTORE, MANY)
    rows, old = tsl.checksum("readings"), tsl.sql(OLD)
    result = done(tsl.run("compaction", READINGS))
    assert result.metrics["chunks_rewritten"] == len(old)
    assert result.metrics["bytes_freed"] > 1_000_000
    assert tsl.sql(COMPRESSED) == old
    assert tsl.checksum("readings") == rows
    again = tsl.run("compaction", READINGS)
    assert again.status is MaintenanceStatus.SKIPPED
    assert again.reason.startswith("nothing to do")


def test_rows_that_came_late_go_into_the_columnstore_too(tsl: Timescale) -> None:
    tsl.sql(COLUMNSTORE)
    done(tsl.run("compaction", READINGS))
    tsl.sql(
        "INSERT INTO readings SELECT now() - interval '20 days', 3, 7 FROM generate_series(1, 100)",
        "UPDATE readings SET value = -1 WHERE meter = 5 AND at < now() - interval '25 days'",
        "DELETE FROM readings WHERE meter = 6 AND at BETWEEN now() - interval '15 days' AND now() - interval '14 days'",
    )
    rows = tsl.checksum("readings")
    result = done(tsl.run("compaction", READINGS))
    assert 0 < result.metrics["chunks_rewritten"] < len(tsl.sql(OLD))
    assert tsl.checksum("readings") == rows
    assert tsl.run("compaction", READINGS).status is MaintenanceStatus.SKIPPED


def test_a_frozen_chunk_is_left_alone(tsl: Timescale) -> None:
    rows, old = tsl.checksum("readings"), tsl.sql(OLD)
    frozen = f"_timescaledb_internal.{old[0][0]}"
    tsl.sql(COLUMNSTORE, f"SELECT _timescaledb_functions.freeze_chunk('{frozen}')")
    done(tsl.run("compaction", READINGS))
    assert tsl.sql(COMPRESSED) == old[1:]
    assert tsl.checksum("readings") == rows


@pytest.mark.parametrize("columnstore", [False, True])
def test_small_neighbours_are_merged_with_their_rows(tsl: Timescale, columnstore: bool) -> None:
    if columnstore:
        tsl.sql(COLUMNSTORE)
        done(tsl.run("compaction", READINGS))
    rows, chunks = tsl.checksum("readings"), len(tsl.chunks())
    result = done(tsl.run("compaction", READINGS, chunks="merge"))
    assert len(tsl.chunks()) == chunks - result.metrics["chunks_rewritten"] <= chunks - 10
    assert tsl.checksum("readings") == rows
    done(tsl.run("compaction", READINGS, chunks="merge"))
    assert tsl.checksum("readings") == rows
    small = tsl.run("compaction", READINGS, chunks="merge", target_file_size_mb=1)
    assert small.status in {MaintenanceStatus.COMPLETED, MaintenanceStatus.SKIPPED}
    young = tsl.sql("SELECT count(*) FROM timescaledb_information.chunks WHERE range_end - range_start = '1 day'")
    assert young[0][0] >= 7


def test_no_chunk_becomes_larger_than_was_asked_for(tsl: Timescale) -> None:
    tsl.sql(MANY)
    rows, before = tsl.checksum("readings"), len(tsl.chunks())
    while (
        tsl.run("compaction", READINGS, chunks="merge", target_file_size_mb=1).status is not MaintenanceStatus.SKIPPED
    ):
        assert tsl.checksum("readings") == rows
    assert 10 < len(tsl.chunks()) < before
    (largest,) = tsl.sql("SELECT max(total_bytes) FROM chunks_detailed_size('readings')")[0]
    assert largest <= 1.1 * 1024 * 1024


def test_a_hypertable_with_space_partitions_is_not_merged(tsl: Timescale) -> None:
    tsl.script(
        "CREATE TABLE spread (at timestamptz NOT NULL, meter int NOT NULL);"
        "SELECT create_hypertable('spread', by_range('at', interval '1 day'));"
        "SELECT add_dimension('spread', by_hash('meter', 2));"
        "INSERT INTO spread SELECT at, meter FROM readings"
    )
    rows = tsl.checksum("spread")
    result = tsl.run("compaction", "pg.public.spread", chunks="merge")
    assert result.status is MaintenanceStatus.SKIPPED
    assert "split by more than time" in result.reason
    tsl.sql(COLUMNSTORE.replace("readings", "spread"))
    done(tsl.run("compaction", "pg.public.spread"))
    assert tsl.checksum("spread") == rows


def test_chunks_are_reordered_once_with_their_rows(tsl: Timescale) -> None:
    tsl.sql("INSERT INTO readings SELECT at + interval '1 minute', 6 - meter, value FROM readings ORDER BY random()")
    rows, old = tsl.checksum("readings"), tsl.sql(OLD)
    asked = {"chunks": "reorder", "reorder_index": "readings_meter"}
    result = done(tsl.run("compaction", READINGS, **asked))
    assert result.metrics["chunks_rewritten"] == len(old)
    assert tsl.checksum("readings") == rows
    for (name,) in old:
        read = tsl.sql(f"SELECT meter, at FROM _timescaledb_internal.{name} ORDER BY ctid")
        assert read == sorted(read)
    assert tsl.run("compaction", READINGS, **asked).status is MaintenanceStatus.SKIPPED
    other = tsl.run("compaction", READINGS, chunks="reorder", reorder_index="readings_at_idx")
    assert done(other).metrics["chunks_rewritten"] == len(old)


def test_an_index_that_is_not_there_is_a_wrong_request(tsl: Timescale) -> None:
    result = tsl.run("compaction", READINGS, chunks="reorder", reorder_index="nothing")
    assert result.problem is not None
    assert result.problem.type == "validation-error"


def test_the_way_to_a_columnstore_that_is_told_works(tsl: Timescale) -> None:
    refused = tsl.run("compaction", READINGS)
    assert refused.status is MaintenanceStatus.SKIPPED
    assert "has no columnstore" in refused.reason
    tsl.sql(COLUMNSTORE)
    assert done(tsl.run("compaction", READINGS)).metrics["chunks_rewritten"] > 0


def test_a_dry_run_of_compaction_and_views_writes_nothing(tsl: Timescale) -> None:
    tsl.sql(
        COLUMNSTORE,
        "CREATE MATERIALIZED VIEW daily WITH (timescaledb.continuous) AS "
        "SELECT time_bucket('1 day', at) AS day, sum(value) FROM readings GROUP BY 1 WITH NO DATA",
    )
    for operation, given in (
        ("compaction", {}),
        ("compaction", {"chunks": "merge"}),
        ("compaction", {"chunks": "reorder", "reorder_index": "readings_meter"}),
        ("views", {}),
    ):
        before = tsl.relations(), tsl.checksum("readings"), tsl.checksum("daily")
        result = tsl.run(operation, READINGS, dry_run=True, **given)
        assert result.status is MaintenanceStatus.PLANNED, (operation, result.reason)
        assert all(step.detail["sql"] for step in steps_of(result))
        assert (tsl.relations(), tsl.checksum("readings"), tsl.checksum("daily")) == before


def test_a_chunk_that_goes_between_plan_and_merge_is_told(tsl: Timescale) -> None:
    with opened(tsl.backend()) as backend:
        plan = backend.plan(TableId.parse(READINGS), "compaction", CompactionParameters(chunks="merge"))
        gone = plan.steps[0].detail["chunks"][1]
        tsl.sql(f"DROP TABLE {gone}")
        rows = tsl.checksum("readings")
        outcomes = [unit.commit(a_run()) for unit in backend.open(plan, a_run()).units()]
    assert [bool(outcome.warnings) for outcome in outcomes] == [True] + [False] * (len(plan.steps) - 1)
    assert "dropped meanwhile" in outcomes[0].warnings[0]
    assert tsl.checksum("readings") == rows
