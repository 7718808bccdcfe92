"""Cleanup, logs and sessions by rule groups, on a real server."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest

from aurum_orchestration.errors import StorageWriteError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.rules.archive import PENDING, ParquetArchive
from aurum_orchestration.maintenance.interfaces import MaintenanceResult
from aurum_orchestration.maintenance.summary import OperationSummary
from aurum_orchestration_tests.forking import SERVER
from aurum_orchestration_tests.integration.postgres.support import Pg, steps_of

LOGS = """
CREATE TABLE audit_log (id bigint PRIMARY KEY, created_at timestamptz, message text);
CREATE TABLE task_log (id bigint PRIMARY KEY, at timestamp, state text);
CREATE INDEX audit_log_at ON audit_log (created_at);
INSERT INTO audit_log SELECT g, now() - g * interval '1 hour', 'm' || g FROM generate_series(1, 4000) g;
INSERT INTO audit_log SELECT -g, NULL, 'no time' FROM generate_series(1, 10) g;
INSERT INTO audit_log VALUES (-100, '-infinity', 'for ever'), (-101, 'infinity', 'never');
INSERT INTO task_log
SELECT g, (now() AT TIME ZONE 'Asia/Tokyo') - g * interval '1 hour', 'done' FROM generate_series(1, 2000) g;
"""
GROUPS = """
    logs:
      - {title: Audit Logs, table: public.audit_log, time_column: created_at, batch_size: 500}
      - {title: Task Logs, table: public.task_log, time_column: at, age_days: 30, time_zone: Asia/Tokyo,
         batch_size: 500}
"""


@pytest.fixture
def logs(empty: Pg) -> Pg:
    """A database with two logs: one indexed by time, and one by local time in Tokyo without an index."""
    empty.script(LOGS)
    return empty


def database(pg: Pg) -> str:
    return f"pg.{pg.name}"


def done(result: MaintenanceResult) -> MaintenanceResult:
    assert str(result.status) == "completed", (result.reason, result.warnings)
    return result


def test_logs_past_their_age_go_and_no_others(logs: Pg) -> None:
    result = done(logs.run("logs", database(logs), extra=GROUPS))
    # 90 days are 2,160 hours: the row of that hour was just past it when the plan was made
    assert logs.sql(
        "SELECT count(*), min(created_at) > now() - interval '90 days 1 minute' FROM audit_log WHERE id > 0"
    ) == [(2159, True)]
    assert logs.sql("SELECT count(*) FROM audit_log WHERE id < 0") == [(12,)]
    assert logs.sql("SELECT count(*), max(id) FROM task_log") == [(719, 719)]
    assert result.metrics["rows_deleted"] == result.metrics["rows_processed"] == 1841 + 1281
    assert result.metrics["rows_left"] == 0
    assert result.metrics["wal_bytes"] > 0
    assert result.metrics["batches"] > 6

    details = OperationSummary.of("logs", [result]).model_dump()["details"]
    assert {title: (one["deleted"], one["days"]) for title, one in details.items()} == {
        "Audit Logs": (1841, 90),
        "Task Logs": (1281, 30),
    }
    again = logs.run("logs", database(logs), extra=GROUPS)
    assert str(again.status) == "skipped"


def test_a_dry_run_counts_and_changes_nothing(logs: Pg) -> None:
    before = logs.checksum("audit_log"), logs.checksum("task_log")
    planned = logs.run("logs", database(logs), extra=GROUPS, dry_run=True)
    assert str(planned.status) == "planned"
    assert [step.detail["rows"] for step in steps_of(planned)] == [1841, 1281]
    assert "SKIP LOCKED" in steps_of(planned)[0].detail["sql"]
    assert (logs.checksum("audit_log"), logs.checksum("task_log")) == before


@pytest.mark.parametrize("name", ["public.task_log", "task_log"])
def test_on_a_table_only_its_groups_run(logs: Pg, name: str) -> None:
    done(logs.run("logs", "pg.public.task_log", extra=GROUPS.replace("public.task_log", name)))
    assert logs.sql("SELECT count(*) FROM audit_log") == [(4012,)]
    assert logs.sql("SELECT count(*) FROM task_log") == [(719,)]
    other = logs.run("sessions", "pg.public.task_log", extra=GROUPS)
    assert str(other.status) == "skipped"
    assert "no rule group of sessions" in other.reason


@pytest.mark.parametrize("tables", [["pg.**"], []])
def test_a_round_that_has_the_database_runs_each_group_once(logs: Pg, tables: list[str]) -> None:
    done_by: list[MaintenanceResult] = []
    left: list[MaintenanceResult] = []
    for result in logs.maintain("logs", tables, extra=GROUPS):
        (done_by if str(result.status) == "completed" else left).append(result)
    assert [(one.config.target_table, one.metrics["rows_deleted"]) for one in done_by] == [
        (database(logs), 1841 + 1281)
    ]
    assert {one.config.target_table: one.reason for one in left} == dict.fromkeys(
        ["pg.public.audit_log", "pg.public.task_log"], "it is left to the whole database, which is in the same round"
    )


def test_a_round_over_tables_alone_runs_the_groups_of_each(logs: Pg) -> None:
    results = logs.maintain("logs", ["pg.public.*"], extra=GROUPS)
    assert {one.config.target_table: one.metrics["rows_deleted"] for one in map(done, results)} == {
        "pg.public.audit_log": 1841,
        "pg.public.task_log": 1281,
    }


def test_the_hour_that_is_there_twice_and_dates(empty: Pg) -> None:
    """A wall-clock time of the repeated hour may be an hour younger than it looks; a date lasts until it ends."""
    from aurum_orchestration.maintenance.backends.rules.clock import date_cutoff, local_cutoff

    first = datetime(2025, 10, 26, 0, 30, tzinfo=UTC)  # 02:30 in Berlin, for the first time
    assert local_cutoff(first, "Europe/Berlin").isoformat() == "2025-10-26T01:30:00"
    assert local_cutoff(first + timedelta(hours=1), "Europe/Berlin").isoformat() == "2025-10-26T02:30:00"
    assert local_cutoff(first - timedelta(hours=1), "Europe/Berlin").isoformat() == "2025-10-26T01:30:00"
    assert date_cutoff(datetime(2025, 5, 4, 23, 0, tzinfo=UTC), "Europe/Berlin").isoformat() == "2025-05-05"

    empty.script(
        "CREATE TABLE s (id int, expires date); INSERT INTO s SELECT g, current_date - g FROM generate_series(-3, 3) g"
    )
    extra = "    sessions:\n      - {title: S, table: s, expiry_column: expires}\n"
    result = done(empty.run("sessions", "pg.public.s", extra=extra))
    today = datetime.now(UTC).date()
    kept = empty.sql("SELECT min(expires) FROM s")[0][0]
    assert kept >= today
    assert result.metrics["rows_deleted"] == 7 - empty.sql("SELECT count(*) FROM s")[0][0] > 0


def test_failed_tasks_are_archived_after_a_year_and_deleted_after_two(empty: Pg) -> None:
    empty.script(
        """
        CREATE TABLE failed_task (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL, gone boolean,
                                  twice bigint GENERATED ALWAYS AS (1 + 1) STORED);
        CREATE TABLE failed_archive (LIKE failed_task INCLUDING GENERATED);
        INSERT INTO failed_task (at, gone) SELECT now() - g * interval '1 day', g % 2 = 0
          FROM generate_series(1, 1000) g
        """
    )
    extra = """
    cleanup:
      - {title: Failed, table: public.failed_task, time_column: at, soft_delete_column: gone,
         archive_table: public.failed_archive}
"""
    before = empty.sql("SELECT count(*) FROM failed_task WHERE at < now() - interval '365 days' AND gone")[0][0]
    result = done(empty.run("cleanup", database(empty), extra=extra))
    assert empty.sql("SELECT count(*) FROM failed_task") == [(1000 - before,)]
    kept = empty.sql("SELECT count(*), max(now() - at) < interval '731 days', bool_and(gone) FROM failed_archive")
    assert kept == [(before - result.metrics["rows_deleted"] + before, True, True)]
    assert result.metrics["rows_archived"] == before
    assert result.verification is not None
    # rows that were moved, and those that left the archive after that
    assert result.metrics["rows_deleted"] > before
    assert result.verification.rows_before == result.verification.rows_after == result.metrics["rows_deleted"]
    details = OperationSummary.of("cleanup", [result]).model_dump()["details"]
    assert details["Failed"]["days"] == 730
    assert details["Failed"]["deleted"] == result.metrics["rows_deleted"]
    assert f"{before} rows of public.failed_task older than 365 days" in details["Failed"]["message"]
    assert "rows of public.failed_archive older than 730 days" in details["Failed"]["message"]


def test_what_a_row_holds_is_in_no_error(empty: Pg) -> None:
    """The server's detail quotes the row that broke a constraint: a session's key, somebody's address."""
    empty.script(
        "CREATE TABLE log (id int, at date, key text); CREATE TABLE kept (LIKE log, since date NOT NULL);"
        "INSERT INTO log VALUES (1, '2000-01-01', 'a-key-of-somebody')"
    )
    group = "{title: L, table: public.log, time_column: at, archive_table: public.kept}"
    result = empty.run("logs", "pg.public.log", extra=f"    logs:\n      - {group}\n")
    assert 'null value in column "since" of relation "kept" violates not-null constraint' in result.reason
    assert "a-key-of-somebody" not in result.model_dump_json()
    assert empty.sql("SELECT count(*) FROM log") == [(1,)]


PARQUET = """
    logs:
      - {{title: Audit Logs, table: public.audit_log, time_column: created_at, batch_size: 300, archive_path: "{0}"}}
"""


def archived(folder: Path) -> list[int]:
    """Ids in the archive's files, those that wait left out."""
    files = sorted((folder / "public.audit_log").glob("*.parquet"))
    return sorted(one for file in files for one in pq.read_table(file, columns=["id"])["id"].to_pylist())


def test_rows_are_in_parquet_before_they_are_gone(logs: Pg, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    expected = logs.sql("SELECT id, created_at, message FROM audit_log WHERE id >= 2160 ORDER BY id")
    result = done(logs.run("logs", database(logs), extra=PARQUET.format(folder)))
    assert archived(folder) == [row[0] for row in expected]
    files = sorted((folder / "public.audit_log").glob("*.parquet"))
    rows = [tuple(row.values()) for file in files for row in pq.read_table(file).to_pylist()]
    assert sorted(rows) == expected
    assert pq.ParquetFile(files[0]).metadata.row_group(0).column(0).compression == "ZSTD"
    assert not list((folder / "public.audit_log" / PENDING).iterdir())
    assert result.metrics["rows_archived"] == result.metrics["rows_deleted"] == len(expected)


def test_what_only_postgresql_has_is_text_in_the_file(empty: Pg, tmp_path: Path) -> None:
    """Infinity and its like: in its column of that file all values are text, elsewhere they keep their type."""
    columns = "at date, v timestamptz, d date, n numeric(5, 2), t time, i interval, a date[]"
    empty.script(f"CREATE TABLE odd ({columns}); ALTER DATABASE {empty.name} SET datestyle = 'SQL, DMY'")
    plain = "('2020-01-02', '2020-01-02 03:00+00', '2020-01-02', 1.5, '04:05', '1 day', '{2020-01-02}')"
    odd = "('2020-01-02', 'infinity', '0044-03-15 BC', 'NaN', '24:00', '-1 day', '{-infinity}')"
    found = []
    for folder, values in ((tmp_path / "plain", plain), (tmp_path / "odd", f"{odd}, {plain}")):
        empty.sql("SET datestyle = 'ISO, YMD'", f"INSERT INTO odd VALUES {values}")
        group = f"{{title: O, table: public.odd, time_column: at, archive_path: {folder}}}"
        done(empty.run("logs", "pg.public.odd", extra=f"    logs:\n      - {group}\n"))
        (file,) = (folder / "public.odd").glob("*.parquet")
        found.append(pq.read_table(file))
    first, second = found
    moment = datetime(2020, 1, 2, 3, tzinfo=UTC)
    assert list(first.to_pylist()[0].values())[1:] == [
        moment, moment.date(), Decimal("1.50"), time_of_day(4, 5), "1 day", "{2020-01-02}"
    ]  # fmt: skip
    assert [list(row.values())[1:] for row in second.to_pylist()] == [
        ["infinity", "0044-03-15 BC", "NaN", "24:00:00", "-1 days", "{-infinity}"],
        ["2020-01-02 03:00:00+00", "2020-01-02", "1.50", "04:05:00", "1 day", "{2020-01-02}"],
    ]
    assert second["at"].type == first["at"].type


def test_fsspec_takes_what_pyarrow_has_no_file_system_for(logs: Pg) -> None:
    import fsspec  # type: ignore[import-untyped]

    done(logs.run("logs", database(logs), extra=PARQUET.format("memory://archive-of-logs")))
    found = fsspec.filesystem("memory").glob("/archive-of-logs/public.audit_log/*.parquet")
    rows = sum(pq.read_table(fsspec.filesystem("memory").open(one)).num_rows for one in found)
    assert rows == 1841


def test_a_storage_that_cannot_be_written_loses_no_row(logs: Pg, tmp_path: Path) -> None:
    (tmp_path / "archive").write_text("a file where the folder should be")
    before = logs.checksum("audit_log")
    result = logs.run("logs", database(logs), extra=PARQUET.format(tmp_path / "archive"))
    assert str(result.status) == "failed"
    assert result.problem is not None
    assert result.problem.type in {StorageWriteError.type, "backend-unavailable"}
    assert logs.checksum("audit_log") == before


def _victim(pg: Pg, extra: str, at: str) -> None:
    """Run logs, and be killed in the archive's step of that name, the second time it comes to it."""
    original = getattr(ParquetArchive, at.split("-", maxsplit=1)[0])
    seen: list[Any] = []

    def deadly(self: Any, *args: Any) -> Any:
        seen.append(1)
        if at.endswith("-before") and len(seen) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(self, *args)
        if at.endswith("-after") and len(seen) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(ParquetArchive, at.split("-", maxsplit=1)[0], deadly)
    pg.run("logs", "pg.public.audit_log", extra=extra)


@pytest.mark.parametrize(
    "at",
    [
        "confirm-before",
        *(pytest.param(at, marks=pytest.mark.thorough) for at in ("write-before", "write-after", "confirm-after")),
    ],
)
def test_kill_9_between_archive_and_deletion(logs: Pg, tmp_path: Path, at: str) -> None:
    folder = tmp_path / "archive"
    extra = PARQUET.format(folder)
    expected = [row[0] for row in logs.sql("SELECT id FROM audit_log WHERE id >= 2160 ORDER BY id")]
    process = SERVER.Process(target=_victim, args=(logs, extra, at))
    process.start()
    process.join(240)
    assert process.exitcode == -signal.SIGKILL
    _until(lambda: not logs.sql("SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'aurum:logs%'"))

    # no row is lost: each is in the table, in the archive or in a file that waits
    waiting = sorted((folder / "public.audit_log" / PENDING).glob("*.parquet"))
    pending = [one for file in waiting for one in pq.read_table(file, columns=["id"])["id"].to_pylist()]
    left = [row[0] for row in logs.sql("SELECT id FROM audit_log WHERE id >= 2160")]
    assert set(archived(folder)) | set(pending) | set(left) == set(expected)

    _expire_leases(logs)
    done(logs.run("logs", "pg.public.audit_log", extra=extra))
    assert archived(folder) == expected
    assert not list((folder / "public.audit_log" / PENDING).iterdir())
    assert logs.sql("SELECT count(*) FROM audit_log WHERE id >= 2160") == [(0,)]


def test_a_file_that_waits_is_settled_when_nothing_is_old_any_more(logs: Pg, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    extra = PARQUET.format(folder)
    done(logs.run("logs", database(logs), extra=extra))
    rows = archived(folder)
    file = next((folder / "public.audit_log").glob("*.parquet"))
    file.rename(file.parent / PENDING / file.name)
    done(logs.run("logs", database(logs), extra=extra))
    assert archived(folder) == rows


def test_a_session_ended_by_an_administrator_keeps_what_is_committed(logs: Pg) -> None:
    """Its batch is rolled back, what was committed before counts, and the next run carries on."""
    logs.sql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.0005); RETURN OLD; END'"
    )
    logs.sql("CREATE TRIGGER slow BEFORE DELETE ON audit_log FOR EACH ROW EXECUTE FUNCTION slow()")
    ended = threading.Thread(target=_end_once_some_are_gone, args=(logs,))
    ended.start()
    result = logs.run("logs", "pg.public.audit_log", extra=GROUPS)
    ended.join()
    gone = 1841 - logs.sql("SELECT count(*) FROM audit_log WHERE id >= 2160")[0][0]
    assert result.metrics["rows_deleted"] == gone > 0
    assert any("trigger slow fires" in text for text in result.warnings)
    if str(result.status) != "completed":
        done(logs.run("logs", "pg.public.audit_log", extra=GROUPS))
    assert logs.sql("SELECT count(*) FROM audit_log WHERE id >= 2160") == [(0,)]
    assert logs.sql("SELECT count(*) FROM audit_log") == [(2159 + 12,)]


def _end_once_some_are_gone(pg: Pg) -> None:
    _until(lambda: pg.sql("SELECT count(*) FROM audit_log")[0][0] < 4012)
    pg.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'aurum:logs%'")


def test_rows_that_others_have_locked_are_left_for_the_next_run(logs: Pg) -> None:
    with logs.transaction("SELECT 1 FROM audit_log WHERE id IN (3000, 3001, 4000) FOR UPDATE"):
        result = done(logs.run("logs", "pg.public.audit_log", extra=GROUPS))
        assert result.metrics["rows_deleted"] == 1838
        assert result.metrics["rows_left"] == 3
        assert any("3 old rows are left" in text for text in result.warnings)
    assert done(logs.run("logs", "pg.public.audit_log", extra=GROUPS)).metrics["rows_deleted"] == 3


def test_a_row_that_gets_younger_meanwhile_stays(logs: Pg) -> None:
    """Somebody moves a row's time while our batch is at it: the condition is looked at again."""
    logs.sql("UPDATE audit_log SET created_at = now() WHERE id = 4000")
    done(logs.run("logs", "pg.public.audit_log", extra=GROUPS))
    assert logs.sql("SELECT count(*) FROM audit_log WHERE id = 4000") == [(1,)]


def test_two_runs_at_once_delete_each_row_once(logs: Pg, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    extra = PARQUET.format(folder)
    expected = [row[0] for row in logs.sql("SELECT id FROM audit_log WHERE id >= 2160 ORDER BY id")]
    other = Pg(logs.dsn, logs.name, tmp_path / "other")
    results: list[MaintenanceResult] = []
    runs = [
        threading.Thread(target=lambda one=one: results.append(one.run("logs", database(one), extra=extra)))
        for one in (logs, other)
    ]
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    assert sum(result.metrics.get("rows_deleted", 0) for result in results) == len(expected)
    held = [result for result in results if result.problem is not None]
    assert all("aurum:logs" in result.reason for result in held)
    assert archived(folder) == expected


def test_what_refers_to_old_rows_is_named_and_counted(empty: Pg) -> None:
    empty.script(
        """
        CREATE TABLE job (id int PRIMARY KEY, at timestamptz); CREATE TABLE part (id int, job int);
        ALTER TABLE part ADD CONSTRAINT part_job FOREIGN KEY (job) REFERENCES job ON DELETE CASCADE;
        INSERT INTO job SELECT g, now() - g * interval '1 day' FROM generate_series(1, 200) g;
        INSERT INTO part SELECT g, g FROM generate_series(1, 200) g
        """
    )
    extra = "    logs:\n      - {title: Jobs, table: public.job, time_column: at, age_days: 100%s}\n"
    refused = empty.run("logs", database(empty), extra=extra % "")
    assert str(refused.status) == "skipped"
    assert "101 rows of public.part would be deleted with them, by foreign key part_job" in refused.reason
    assert empty.sql("SELECT count(*) FROM part") == [(200,)]
    allowed = done(empty.run("logs", database(empty), extra=extra % ", cascade: true"))
    assert any("has no index" in text and "CREATE INDEX ON" in text for text in allowed.warnings)
    assert any("101 rows of public.part are deleted with them" in text for text in allowed.warnings)
    assert empty.sql("SELECT (SELECT count(*) FROM job), (SELECT count(*) FROM part)") == [(99, 99)]

    empty.script(
        """
        ALTER TABLE part DROP CONSTRAINT part_job;
        ALTER TABLE part ADD CONSTRAINT part_job FOREIGN KEY (job) REFERENCES job;
        UPDATE job SET at = at - interval '50 days'
        """
    )
    kept = empty.run("logs", database(empty), extra=extra % ", cascade: true")
    assert str(kept.status) == "skipped"
    assert "still refer to old rows" in kept.reason
    assert empty.sql("SELECT count(*) FROM job") == [(99,)]


def test_what_refers_to_a_partition_through_its_table_is_named_too(empty: Pg) -> None:
    empty.script(
        """
        CREATE TABLE job (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE job_old PARTITION OF job FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
        CREATE TABLE part (job int, at date, FOREIGN KEY (job, at) REFERENCES job ON DELETE CASCADE);
        CREATE INDEX ON part (job, at);
        INSERT INTO job VALUES (1, '2020-01-01'), (2, '2020-02-01'); INSERT INTO part VALUES (2, '2020-02-01')
        """
    )
    extra = "    logs:\n      - {title: Jobs, table: public.job_old, time_column: at%s}\n"
    refused = empty.run("logs", "pg.public.job_old", extra=extra % "")
    assert "1 rows of public.part would be deleted with them, by foreign key part_job_at_fkey" in refused.reason
    assert empty.sql("SELECT (SELECT count(*) FROM job), (SELECT count(*) FROM part)") == [(2, 1)]
    done(empty.run("logs", "pg.public.job_old", extra=extra % ", cascade: true"))
    assert empty.sql("SELECT (SELECT count(*) FROM job), (SELECT count(*) FROM part)") == [(0, 0)]


def test_names_may_hold_quotes_spaces_and_what_looks_like_a_parameter(empty: Pg, tmp_path: Path) -> None:
    name = '"An ""odd"" 100%s.x"."T %(rows)s"'
    empty.sql('CREATE SCHEMA "An ""odd"" 100%s.x"', f'CREATE TABLE {name} ("id%" int, "At %d" date)')
    for archive in (f"archive_table: '{name[:-1]} archive\"'", f"archive_path: {tmp_path}", ""):
        empty.sql(
            f'DROP TABLE IF EXISTS {name[:-1]} archive"',
            f'CREATE TABLE {name[:-1]} archive" (LIKE {name})',
            f"INSERT INTO {name} VALUES (1, now()), (2, now() - interval '900 days'), (3, NULL)",
        )
        extra = f"""    logs:\n      - {{title: Odd, table: '{name}', time_column: "At %d", {archive}}}\n"""
        assert done(empty.run("logs", database(empty), extra=extra)).metrics["rows_deleted"] == 1
        assert empty.sql(f'DELETE FROM {name} RETURNING "id%"') == [(1,), (3,)]


def test_a_large_table_behind_an_unindexed_key_is_refused(empty: Pg) -> None:
    empty.script(
        """
        CREATE TABLE job (id int PRIMARY KEY, at timestamptz); INSERT INTO job VALUES (1, '2000-01-01');
        CREATE TABLE part (job int REFERENCES job ON DELETE CASCADE, pad text);
        ALTER TABLE part ALTER pad SET STORAGE PLAIN;
        INSERT INTO part SELECT NULL, repeat('x', 7000) FROM generate_series(1, 1100)
        """
    )
    refused = empty.run(
        "logs", database(empty), extra="    logs:\n      - {title: J, table: public.job, time_column: at}\n"
    )
    assert str(refused.status) == "skipped"
    assert "has no index" in refused.reason
    assert 'CREATE INDEX CONCURRENTLY ON "public"."part" ("job")' in refused.reason


def test_children_by_inheritance_stay_and_partitions_do_not(empty: Pg) -> None:
    empty.script(
        """
        CREATE TABLE parent (at timestamptz); CREATE TABLE child () INHERITS (parent);
        INSERT INTO parent VALUES ('2000-01-01'); INSERT INTO child VALUES ('2000-01-01');
        CREATE TABLE split (at timestamptz) PARTITION BY RANGE (at);
        CREATE TABLE split_old PARTITION OF split FOR VALUES FROM ('2000-01-01') TO ('2001-01-01');
        CREATE TABLE split_rest PARTITION OF split DEFAULT;
        INSERT INTO split VALUES ('2000-02-02'), ('2002-02-02'), (now())
        """
    )
    extra = """
    logs:
      - {title: P, table: public.parent, time_column: at}
      - {title: S, table: public.split, time_column: at}
"""
    assert done(empty.run("logs", database(empty), extra=extra)).metrics["rows_deleted"] == 3
    assert empty.sql("SELECT (SELECT count(*) FROM child), (SELECT count(*) FROM split)") == [(1, 1)]


def test_a_role_without_rights_is_told_the_grant(logs: Pg) -> None:
    role = f"{logs.name}_reader"
    logs.script(f"CREATE ROLE {role} LOGIN; GRANT SELECT, DELETE ON audit_log TO {role}")
    reader = Pg(psycopg.conninfo.make_conninfo(logs.dsn, user=role), logs.name, logs.home)
    try:
        refused = reader.run("logs", "pg.public.audit_log", extra=GROUPS)
        assert str(refused.status) == "failed"
        assert refused.problem is not None
        assert "GRANT SELECT, UPDATE, DELETE" in (refused.problem.hint or "")
        logs.sql(f"GRANT UPDATE (id) ON audit_log TO {role}")
        done(reader.run("logs", "pg.public.audit_log", extra=GROUPS))
        assert logs.sql("SELECT count(*) FROM audit_log WHERE id >= 2160") == [(0,)]
    finally:
        logs.script(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_group_that_cannot_be_done_leaves_the_others_alone(logs: Pg) -> None:
    extra = GROUPS + "      - {title: Gone, table: public.gone, time_column: at}\n"
    result = done(logs.run("logs", database(logs), extra=extra))
    assert any("Gone is left out" in text for text in result.warnings)
    assert result.metrics["rows_deleted"] == 1841 + 1281


def test_a_trigger_that_keeps_rows_ends_the_work(logs: Pg) -> None:
    logs.sql("CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    logs.sql("CREATE TRIGGER keep BEFORE DELETE ON audit_log FOR EACH ROW EXECUTE FUNCTION keep()")
    before = logs.checksum("audit_log")
    result = logs.run("logs", "pg.public.audit_log", extra=GROUPS)
    assert str(result.status) == "failed"
    assert "deleting them deletes none" in result.reason
    assert logs.checksum("audit_log") == before


def test_max_rows_and_only_some_groups(logs: Pg) -> None:
    result = done(logs.run("logs", database(logs), extra=GROUPS, groups=["Task Logs"], max_rows=700))
    assert result.metrics["rows_deleted"] == 700
    assert logs.sql("SELECT count(*) FROM task_log") == [(1300,)]
    assert logs.sql("SELECT count(*) FROM audit_log") == [(4012,)]


def test_the_history_store_is_a_rule_group_like_any_other(empty: Pg) -> None:
    """Old operations leave the project's own history when it is in a database of the fleet; running ones stay."""
    from aurum_orchestration.history import History

    with History(empty.dsn_url) as history:
        lease = history.acquire(TableId.parse("pg.public.t"), holder="me", operation_id="o", ttl=timedelta(seconds=9))
        history.release(lease)
    empty.script(
        """
        INSERT INTO aurum_operations (operation_id, table_id, backend, operation, status, reason, who, dry_run,
                                      parameters, metrics, warnings, started_at, finished_at, seconds)
        SELECT g::text, 't', 'pg', 'vacuum', 'completed', '', '', false, '{}', '{}', '[]', now() - g * interval '1 day',
               CASE WHEN g < 300 THEN now() - g * interval '1 day' END, 1
          FROM generate_series(1, 300) g
        """
    )
    extra = """
    logs:
      - {title: History, table: public.aurum_operations, time_column: finished_at, age_days: 200}
"""
    done(empty.run("logs", database(empty), extra=extra))
    left = {int(row[0]) for row in empty.sql("SELECT operation_id FROM aurum_operations")}
    assert left == {*range(1, 200), 300}


def _expire_leases(pg: Pg) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(pg.home / "history.db")) as history, history:
        history.execute("update aurum_leases set expires_at = '2000-01-01 00:00:00.000000'")


def _until(true: Any) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
