"""Cleanup, logs and sessions: rows within their rule stay, whatever a time is written as."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from aurum_orchestration.errors import UnsupportedError, VerificationError
from aurum_orchestration.fleet.sqlite import SqliteBackendConfig
from aurum_orchestration.maintenance.backends.rules.chores import Chore
from aurum_orchestration.maintenance.backends.rules.clock import cutoff
from aurum_orchestration.maintenance.backends.rules.work import Take
from aurum_orchestration.maintenance.backends.sqlite.connection import Database
from aurum_orchestration.maintenance.backends.sqlite.rules import SqliteRules
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus, RunContext
from aurum_orchestration_tests.integration.sqlite.support import File


def test_old_log_entries_go_in_batches_and_young_ones_stay(file: File) -> None:
    young = file.sql("SELECT * FROM audit WHERE at >= datetime('now', '-90 days') ORDER BY id")
    others = {name: rows for name, rows in file.everything().items() if name != "audit"}
    result = file.run("logs", pause_ms=0)
    assert result.status is MaintenanceStatus.COMPLETED, result.reason
    assert result.metrics["rows_deleted"] == 1000 - len(young) == 460
    assert result.metrics["batches"] >= 5
    assert file.sql("SELECT * FROM audit ORDER BY id") == young
    assert {name: rows for name, rows in file.everything().items() if name != "audit"} == others
    assert file.run("logs").status is MaintenanceStatus.SKIPPED


def test_a_named_table_has_its_groups_run_and_a_round_over_everything_runs_each_once(file: File) -> None:
    named = file.run("logs", "db.main.audit", max_rows=1)
    assert (named.status, named.metrics["rows_deleted"]) == (MaintenanceStatus.COMPLETED, 1)
    results = file.maintain("logs", ["db.**"], pause_ms=0)
    ran = [one.config.target_table for one in results if one.status is not MaintenanceStatus.SKIPPED]
    assert ran == ["db.main"]
    (left,) = [one.reason for one in results if one.config.target_table == "db.main.audit"]
    assert left == "it is left to the whole database, which is in the same round"


def test_expired_sessions_go(file: File) -> None:
    alive = file.sql("SELECT count(*) FROM sessions WHERE expires > unixepoch('now')")[0][0]
    result = file.run("sessions", pause_ms=0)
    assert result.status is MaintenanceStatus.COMPLETED, result.reason
    assert file.sql("SELECT count(*), min(expires) > unixepoch('now') - 120 FROM sessions") == [(alive, 1)]


def test_old_records_are_archived_and_later_deleted(file: File) -> None:
    before = file.sql("SELECT * FROM failed WHERE at >= datetime('now', '-730 days') ORDER BY id")
    result = file.run("cleanup", pause_ms=0)
    assert result.status is MaintenanceStatus.COMPLETED, result.reason
    assert result.verification is not None
    assert result.verification.ok
    kept = file.sql("SELECT * FROM failed UNION ALL SELECT * FROM failed_archive ORDER BY id")
    assert kept == before
    assert file.sql("SELECT max(julianday('now') - julianday(at)) < 366 FROM failed") == [(1,)]
    assert file.sql("SELECT min(julianday('now') - julianday(at)) > 364 FROM failed_archive") == [(1,)]


@pytest.mark.parametrize(
    ("young", "old"),
    [
        ("datetime('now', '-89 days')", "datetime('now', '-91 days')"),
        ("strftime('%Y-%m-%dT%H:%M:%SZ', 'now', '-89 days')", "strftime('%Y-%m-%dT%H:%M:%SZ', 'now', '-91 days')"),
        ("date('now', '-89 days')", "date('now', '-91 days')"),
        # the same moment as that of 90 days and 2 hours ago, written an offset away
        ("strftime('%Y-%m-%dT%H:%M:%S-05:00', 'now', '-90 days', '-4 hours')",
         "strftime('%Y-%m-%dT%H:%M:%S+05:00', 'now', '-90 days', '+4 hours')"),
        ("unixepoch('now', '-89 days')", "unixepoch('now', '-91 days')"),
        ("unixepoch('now', '-89 days') * 1000", "unixepoch('now', '-91 days') * 1000"),
        ("unixepoch('now', '-89 days') + 0.5", "unixepoch('now', '-91 days') + 0.5"),
        ("julianday('now', '-89 days')", "julianday('now', '-91 days')"),
    ],
)  # fmt: skip
def test_a_time_counts_as_it_is_written(file: File, young: str, old: str) -> None:
    file.script(f"DROP TABLE audit; CREATE TABLE audit (at, n); INSERT INTO audit VALUES ({young}, 1), ({old}, 2);")
    assert file.run("logs", pause_ms=0).status is MaintenanceStatus.COMPLETED
    assert file.sql("SELECT n FROM audit") == [(1,)]


@pytest.mark.parametrize(
    "what", ["NULL", "''", "'yesterday'", "'12345'", "20200101", "1", "-1", "0.5", "x'00'", "'2020-13-45'"]
)
def test_what_says_no_time_is_never_old(file: File, what: str) -> None:
    file.script(f"DROP TABLE audit; CREATE TABLE audit (at, n); INSERT INTO audit VALUES ({what}, 1);")
    assert file.run("logs").status is MaintenanceStatus.SKIPPED
    assert file.sql("SELECT n FROM audit") == [(1,)]


def test_a_time_without_zone_is_read_in_the_groups(file: File) -> None:
    rules = """\
    logs:
      - {title: Local, table: main.audit, time_column: at, age_days: 1, time_zone: Pacific/Kiritimati}
"""
    file.script("""
        DROP TABLE audit; CREATE TABLE audit (at TEXT, n INT);
        INSERT INTO audit VALUES (datetime('now', '-1 day', '+14 hours', '+1 hour'), 1),
                                 (datetime('now', '-1 day', '+14 hours', '-1 hour'), 2);
    """)
    assert file.run("logs", extra=rules).status is MaintenanceStatus.COMPLETED
    assert file.sql("SELECT n FROM audit") == [(1,)]


def test_rows_that_others_refer_to_stay_and_are_named(file: File) -> None:
    file.script("""
        CREATE TABLE details (id INTEGER PRIMARY KEY, audit_id INTEGER REFERENCES audit (id) ON DELETE CASCADE);
        INSERT INTO details SELECT id, id FROM audit WHERE id > 900;
    """)
    before = file.everything()
    result = file.run("logs")
    assert result.status is MaintenanceStatus.SKIPPED
    assert "details (audit_id), ON DELETE CASCADE, 100 rows" in result.reason
    assert file.everything() == before
    cascading = RULES_WITH_CASCADE
    done = file.run("logs", extra=cascading, pause_ms=0)
    assert done.status is MaintenanceStatus.COMPLETED, done.reason
    assert file.sql("SELECT count(*) FROM details") == [(0,)]


@pytest.mark.parametrize("trigger", [False, True])
def test_rows_that_come_to_refer_to_old_ones_between_two_batches_do_not_go_along(file: File, trigger: bool) -> None:
    """SQLite's own count of what a transaction changes tells; where triggers count, too, it is looked for again."""
    file.script("""
        CREATE TABLE details (id INTEGER PRIMARY KEY, audit_id INTEGER REFERENCES audit (id) ON DELETE CASCADE);
        CREATE TABLE told (id INTEGER);
    """)
    if trigger:
        file.sql("CREATE TRIGGER tells AFTER DELETE ON audit BEGIN INSERT INTO told VALUES (OLD.id); END")
    chore = Chore("Audit Logs", ("main", "audit"), "at", 90, 100)
    config = SqliteBackendConfig(type="sqlite", path=str(file.path))
    run, rules = RunContext("test", threading.Event()), SqliteRules(Database(config))
    with ExitStack() as held:
        take = held.enter_context(rules.batches(chore, cutoff(rules.now(), 90), run, {}, []))
        assert take(100).counted == (None if trigger else 100)
        file.sql("INSERT INTO details VALUES (1, 700)")
        with pytest.raises(UnsupportedError if trigger else VerificationError):
            _all(take)
    assert file.sql("SELECT count(*) FROM details") == [(1,)]
    assert file.sql("SELECT count(*) FROM audit WHERE id = 700") == [(1,)]


def _all(take: Take) -> None:
    while take(100).more:
        pass


RULES_WITH_CASCADE = """\
    logs:
      - {title: Audit Logs, table: main.audit, time_column: at, age_days: 90, cascade: true}
"""


def test_odd_names_are_quoted(file: File) -> None:
    file.script("""
        CREATE TABLE "a""b; DROP TABLE audit; --" ("t'im""e" TEXT, "rowid" INTEGER);
        INSERT INTO "a""b; DROP TABLE audit; --" VALUES (datetime('now', '-91 days'), 1), (datetime('now'), 2);
    """)
    rules = """\
    logs:
      - {title: Odd, table: 'main."a""b; DROP TABLE audit; --"', time_column: "t'im\\"e", age_days: 90}
"""
    result = file.run("logs", extra=rules)
    assert result.status is MaintenanceStatus.COMPLETED, result.reason
    assert file.sql('SELECT "rowid" FROM "a""b; DROP TABLE audit; --"') == [(2,)]
    assert file.sql("SELECT count(*) FROM audit") == [(1000,)]


def test_max_rows_stops_and_the_next_run_carries_on(file: File) -> None:
    first = file.run("logs", pause_ms=0, max_rows=250)
    assert first.metrics["rows_deleted"] == 250
    assert any("210 old rows are left" in warning for warning in first.warnings)
    assert file.run("logs", pause_ms=0).metrics["rows_deleted"] == 210


def test_a_parquet_archive_is_refused(file: File, tmp_path: object) -> None:
    rules = f"""\
    logs:
      - {{title: Away, table: main.audit, time_column: at, archive_path: "{tmp_path}/archive"}}
"""
    result = file.run("logs", extra=rules)
    assert result.status is MaintenanceStatus.SKIPPED
    assert "archive_table" in (result.reason + str(result.problem))
    assert file.sql("SELECT count(*) FROM audit") == [(1000,)]
