"""Retention by a time column, on a real server."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from aurum_orchestration.errors import VerificationError
from aurum_orchestration.maintenance.backends.postgres.rows.condition import not_old_rows
from aurum_orchestration.maintenance.backends.postgres.rows.relation import row_table
from aurum_orchestration.maintenance.interfaces import MaintenanceResult
from aurum_orchestration_tests.integration.postgres.support import Pg, opened, steps_of

EVENTS = "pg.public.events"
PLAIN = """
CREATE TABLE events (id bigint PRIMARY KEY, at timestamp, note text);
INSERT INTO events
SELECT g, (now() - g * interval '1 hour') AT TIME ZONE 'America/New_York', 'n' FROM generate_series(1, 3000) g;
INSERT INTO events VALUES (0, NULL, 'no time');
CREATE TABLE kept () INHERITS (events);
INSERT INTO kept VALUES (-1, '2000-01-01', 'of another table')
"""
SPLIT = """
CREATE TABLE events (id bigint, at timestamptz NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE events_2024 PARTITION OF events FOR VALUES FROM ('2024-01-01 00:00+00') TO ('2025-01-01 00:00+00');
CREATE TABLE events_2025 PARTITION OF events FOR VALUES FROM ('2025-01-01 00:00+00') TO ('2026-01-01 00:00+00');
CREATE TABLE events_later PARTITION OF events FOR VALUES FROM ('2026-01-01 00:00+00') TO (MAXVALUE);
COMMENT ON TABLE events_2024 IS 'the first year';
INSERT INTO events SELECT g, timestamptz '2024-06-01 12:00+00' + g * interval '1 day' FROM generate_series(0, 599) g;
INSERT INTO events VALUES (1000, now())
"""


def done(result: MaintenanceResult) -> MaintenanceResult:
    assert str(result.status) == "completed", (result.reason, result.warnings)
    return result


def since_2025(pg: Pg) -> float:
    """Days since the middle of 2025."""
    return float(pg.sql("SELECT extract(epoch FROM now() - '2025-07-01 00:00+00') / 86400")[0][0])


def test_old_rows_go_by_local_time_in_batches(empty: Pg) -> None:
    empty.script(PLAIN)
    given = {"time_column": "at", "row_days": 30, "time_zone": "America/New_York", "batch_size": 500}
    planned = empty.run("retention", EVENTS, dry_run=True, **given)
    assert str(planned.status) == "planned"
    assert steps_of(planned)[0].detail["rows"] == 2281
    assert empty.sql("SELECT count(*) FROM ONLY events") == [(3001,)]
    result = done(empty.run("retention", EVENTS, **given))
    assert result.metrics["rows_deleted"] == 2281
    assert result.metrics["batches"] >= 5
    assert result.metrics["wal_bytes"] > 0
    assert empty.sql("SELECT count(*), min(id), max(id) FROM ONLY events") == [(720, 0, 719)]
    assert empty.sql("SELECT count(*) FROM kept") == [(1,)]


def test_old_partitions_are_detached_and_dropped_later(empty: Pg) -> None:
    empty.script(SPLIT)
    given = {"time_column": "at", "row_days": since_2025(empty)}
    first = done(empty.run("retention", EVENTS, **given))
    assert first.metrics["partitions_detached"] == 1
    assert empty.sql("SELECT min(at) >= '2025-01-01 00:00+00' FROM events") == [(True,)]
    assert empty.sql("SELECT count(*) FROM events_2024") == [(214,)]
    ((comment,),) = empty.sql("SELECT obj_description('events_2024'::regclass)")
    assert comment.startswith("the first year\naurum:detached ")

    waits = empty.run("retention", EVENTS, **given)
    assert str(waits.status) == "skipped"
    assert any("events_2024 was detached" in text for text in waits.warnings)

    # what its undo says takes it back, and then it is no longer ours to drop
    empty.script(str(first.undo).removesuffix(", before it is dropped"))
    assert empty.sql("SELECT count(*) FROM events") == [(601,)]

    done(empty.run("retention", EVENTS, **given))
    dropped = done(empty.run("retention", EVENTS, **given, drop_after_hours=0))
    assert dropped.metrics["partitions_dropped"] == 1
    assert empty.sql("SELECT to_regclass('events_2024')") == [(None,)]


def test_beside_a_default_partition_and_within_one_that_is_partly_old(empty: Pg) -> None:
    empty.script(SPLIT)
    empty.script("CREATE TABLE events_rest PARTITION OF events DEFAULT; INSERT INTO events VALUES (-1, '2001-01-01')")
    given = {"time_column": "at", "row_days": since_2025(empty)}
    result = done(empty.run("retention", EVENTS, **given))
    assert any("default partition" in text for text in result.warnings)
    assert result.metrics["partitions_detached"] == 1
    assert result.metrics["rows_deleted"] == 1
    assert empty.sql("SELECT min(at)::date::text FROM events") == [("2025-01-01",)]
    partly = done(empty.run("retention", EVENTS, **given, rewrite_files=True))
    assert partly.metrics["rows_deleted"] == 181
    assert empty.sql("SELECT min(at) >= '2025-07-01 00:00+00', count(*) FROM events") == [(True, 600 - 214 - 181 + 1)]


def test_a_detachment_that_was_cut_short_is_finished(empty: Pg) -> None:
    """Somebody reads the table, so that the second half of DETACH CONCURRENTLY has to wait, and gives up."""
    empty.script(SPLIT)
    given = {"time_column": "at", "row_days": since_2025(empty)}
    with empty.transaction("SELECT count(*) FROM events", isolation="READ COMMITTED"):
        with empty.connect() as one:
            one.execute("SET lock_timeout = '200ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                one.execute("ALTER TABLE events DETACH PARTITION events_2024 CONCURRENTLY")
        assert empty.sql("SELECT count(*) FROM pg_inherits WHERE inhdetachpending") == [(1,)]
    result = done(empty.run("retention", EVENTS, **given))
    assert "FINALIZE" in steps_of(result)[0].detail["sql"]
    assert empty.sql("SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass") == [(2,)]


def test_somebodys_detachment_of_a_young_partition_is_left_to_them(empty: Pg) -> None:
    empty.script(SPLIT)
    with empty.transaction("SELECT count(*) FROM events", isolation="READ COMMITTED"), empty.connect() as one:
        one.execute("SET lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            one.execute("ALTER TABLE events DETACH PARTITION events_2025 CONCURRENTLY")
    result = empty.run("retention", EVENTS, time_column="at", row_days=since_2025(empty))
    assert str(result.status) == "skipped"
    assert any("DETACH PARTITION" in told and "FINALIZE" in told for told in result.warnings)
    assert empty.sql("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhdetachpending") == [("events_2025",)]


def test_how_long_rows_are_kept_has_to_be_said(empty: Pg) -> None:
    """The default of retention_days is about snapshots: a week would be a short life for rows."""
    empty.script(PLAIN)
    kept: list[dict[str, float]] = [{}, {"retention_days": 30}]
    for given in kept:
        result = empty.run("retention", EVENTS, time_column="at", **given)
        assert str(result.status) == "skipped"
        assert "row_days is not set" in result.reason
    assert empty.sql("SELECT count(*) FROM ONLY events") == [(3001,)]


def test_without_a_time_column_nothing_is_old(empty: Pg) -> None:
    empty.script(PLAIN)
    result = empty.run("retention", EVENTS)
    assert str(result.status) == "skipped"
    assert "time_column" in result.reason


def test_a_former_partition_that_got_a_young_row_is_not_dropped(empty: Pg) -> None:
    """Beside a default partition it is detached the plain way, which leaves no constraint behind that keeps it out."""
    empty.script(SPLIT + "; CREATE TABLE events_rest PARTITION OF events DEFAULT")
    given = {"time_column": "at", "row_days": since_2025(empty)}
    done(empty.run("retention", EVENTS, **given))
    empty.sql("INSERT INTO events_2024 VALUES (2000, '2025-07-02 00:00+00')")
    refused = empty.run("retention", EVENTS, **given, drop_after_hours=0)
    assert str(refused.status) == "failed"
    assert refused.problem is not None
    assert refused.problem.type == VerificationError.type
    assert "public.events_2024 holds rows that are not older" in refused.reason
    assert empty.sql("SELECT count(*) FROM events_2024") == [(215,)]
    empty.sql("DELETE FROM events_2024 WHERE id = 2000")
    assert done(empty.run("retention", EVENTS, **given, drop_after_hours=0)).metrics["partitions_dropped"] == 1


def test_a_former_partition_that_something_depends_on_keeps_no_other_from_going(empty: Pg) -> None:
    empty.script(SPLIT + "; CREATE VIEW first_year AS SELECT * FROM events_2024")
    given = {"time_column": "at", "row_days": 1.0, "drop_after_hours": 0.0}
    assert done(empty.run("retention", EVENTS, **given)).metrics["partitions_detached"] == 2
    result = empty.run("retention", EVENTS, **given)
    assert str(result.status) == "failed"
    assert "view first_year depends on table events_2024" in result.reason
    assert result.metrics["partitions_dropped"] == 1
    assert empty.sql("SELECT to_regclass('events_2024') IS NULL, to_regclass('events_2025') IS NULL") == [(False, True)]


def test_whether_a_former_partition_is_old_its_constraint_says_without_a_look_at_its_rows(empty: Pg) -> None:
    empty.script(SPLIT)
    days = since_2025(empty)
    done(empty.run("retention", EVENTS, time_column="at", row_days=days))
    with opened(empty.backend()) as backend, backend.sessions.look() as session:
        before = session.value("SELECT now() - make_interval(secs => %s)", (days * 86_400,))
        younger = not_old_rows(row_table(session, ("public", "events_2024")), "at", before, "UTC")
        session.set(constraint_exclusion="on")
        explain = sql.SQL("EXPLAIN SELECT FROM events_2024 WHERE ") + younger
        assert "One-Time Filter: false" in "\n".join(row[0] for row in session.tuples(explain))
