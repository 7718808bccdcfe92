"""The file as a whole: listed, measured, vacuumed, reindexed, analyzed; what cannot be done says why."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from aurum_orchestration.errors import BackendUnavailableError, CorruptTableError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.findings import HealthStatus
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration_tests.integration.sqlite.support import DB, RULES, File


def test_the_database_and_its_tables_are_listed(file: File) -> None:
    file.sql('CREATE TABLE "odd "" name" (x)')
    found = {one.table.parts: one.kind for one in file.backend().discover(["**"])}
    assert found.pop(("main",)) == "database"
    assert found == {
        ("main", name): "table" for name in ("audit", "failed", "failed_archive", 'odd " name', "sessions")
    }


def test_pages_and_rows_are_measured(file: File) -> None:
    file.sql("DELETE FROM audit WHERE id > 100")
    ids = [TableId.parse(text) for text in (DB, "db.main.audit", "db.main.sessions", "db.main.nobody")]
    database, audit, sessions, nobody = file.backend().measure(ids, lambda *_: None)  # type: ignore[arg-type]
    assert database.metrics["database_bytes"] == file.path.stat().st_size
    assert database.metrics["free_pages"] == file.sql("PRAGMA freelist_count")[0][0] > 0
    assert audit.metrics["rows"] == 100
    assert audit.metrics["indexes"] == 1
    assert "rows" not in sessions.metrics  # it has no rowid, and nobody has counted
    assert nobody.problem is not None


def test_vacuum_gives_free_pages_back(file: File) -> None:
    file.sql("DELETE FROM audit WHERE id > 10")
    rows, size = file.everything(), file.path.stat().st_size
    result = file.run("vacuum")
    assert result.status is MaintenanceStatus.COMPLETED, result.reason
    assert size - file.path.stat().st_size == result.metrics["bytes_freed"] > 0
    assert file.everything() == rows
    assert file.run("vacuum").status is MaintenanceStatus.SKIPPED


async def test_the_report_expects_no_time_for_what_sqlite_has_not(file: File) -> None:
    async with MaintenanceService(file.settings()) as service:
        (database,) = (await service.report()).databases
    told = {one.operation for one in database.estimates}
    assert told == {"vacuum", "reindex", "cleanup", "logs", "sessions", "stats", "backup"}


def test_stats_reports_and_analyzes_what_is_stale(file: File) -> None:
    first = file.run("stats")
    assert first.status is MaintenanceStatus.COMPLETED, first.reason
    assert "nothing wrong" in first.reason
    assert first.metrics["integrity_errors"] == 0
    assert first.metrics["tables_analyzed"] == 3  # the archive is empty
    assert dict(file.sql("SELECT tbl, max(CAST(stat AS INTEGER)) FROM sqlite_stat1 GROUP BY 1"))["audit"] == 1000
    second = file.run("stats")
    assert "tables_analyzed" not in second.metrics


def test_reindex_repairs_an_index_that_lost_rows(file: File) -> None:
    """The index is told to be one of an empty table, and back: rows that came meanwhile are not in it."""
    assert file.run("reindex").status is MaintenanceStatus.SKIPPED
    (sql,) = file.sql("SELECT sql FROM sqlite_schema WHERE name = 'audit_at'")[0]
    file.script(f"""
        PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET sql = '{sql} WHERE at IS NULL' WHERE name = 'audit_at';
    """)
    file.sql("INSERT INTO audit VALUES (2000, datetime('now'), 'not in the index')")
    file.script(f"""
        PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET sql = '{sql}' WHERE name = 'audit_at';
    """)
    assert file.sql("PRAGMA integrity_check")[0][0] != "ok"
    told = file.run("stats", analyze="none")
    assert told.metrics["integrity_errors"] > 0
    assert any("audit_at" in warning for warning in told.warnings)
    integrity = next(one for one in file.backend().checkup([]) if one.check == "integrity")
    assert integrity.status in {HealthStatus.OK, HealthStatus.WARNING}  # the quick check does not read indexes
    assert file.run("reindex", "db.main.failed").status is MaintenanceStatus.SKIPPED  # another table
    result = file.run("reindex", "db.main.audit")
    assert result.status is MaintenanceStatus.COMPLETED, result.reason
    assert result.metrics["indexes_rebuilt"] == 1
    assert "audit_at" in result.reason
    assert file.sql("PRAGMA integrity_check") == [("ok",)]


def test_all_indexes_are_built_anew_when_asked_for(file: File) -> None:
    rows = file.everything()
    result = file.run("reindex", "db.main.audit", scope="table")
    assert result.status is MaintenanceStatus.COMPLETED, result.reason
    assert result.metrics["indexes_rebuilt"] == 1
    assert file.everything() == rows
    wrong = file.run("reindex", "db.main.audit", indexes=["audit_att"])
    assert wrong.problem is not None
    assert "audit_at" in (wrong.problem.hint or "")


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        ("compaction", "no files to compact"),
        ("retention", "rule groups"),
        ("partition_evolution", "no partitions"),
        ("views", "no materialized views"),
        ("bloat", "no dead rows"),
        ("manifests", "no manifests"),
    ],
)
def test_what_it_has_not_is_skipped_with_the_reason(file: File, operation: str, said: str) -> None:
    before = file.digests()
    result = file.run(operation)
    assert result.status is MaintenanceStatus.SKIPPED
    assert said in result.reason
    assert file.digests() == before


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_dry_run_writes_nothing(file: File, tmp_path: Path, mode: str) -> None:
    file.sql(f"PRAGMA journal_mode = {mode}")
    file.sql("DELETE FROM audit WHERE id > 700")
    before = file.digests()
    for operation in ("vacuum", "reindex", "stats", "logs", "sessions", "cleanup", "backup"):
        given = {"path": f"{tmp_path}/backups"} if operation == "backup" else {}
        given |= {"scope": "database"} if operation == "reindex" else {}
        result = file.run(operation, dry_run=True, **given)
        assert result.status is MaintenanceStatus.PLANNED, (operation, result.reason)
        assert file.digests() == before, operation


def test_what_is_no_database_is_told(file: File) -> None:
    file.path.write_bytes(b"no database " * 1000)
    with pytest.raises(CorruptTableError):
        file.backend().discover([])
    file.path.unlink()
    with pytest.raises(BackendUnavailableError, match="there is no file"):
        file.backend().discover([])
    assert not file.path.exists()


def test_somebody_who_writes_is_waited_for_shortly(file: File) -> None:

    rows = file.everything()
    with closing(sqlite3.connect(file.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        result = file.run("logs", extra="    lock_timeout: 0.05\n" + RULES)
        assert result.problem is not None
        assert result.problem.type == "lock-timeout"
    assert file.everything() == rows


def test_doctor_tells_version_rights_and_room(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    def findings() -> dict[str, str]:
        return {one.check: one.status.value for one in file.backend().checkup([])}

    well = findings()
    assert well.pop("space") in {"ok", "warning"}  # as it is here
    assert well == dict.fromkeys(("reachable", "version", "rights", "integrity"), "ok")
    monkeypatch.setattr(os, "access", lambda *_: False)  # whoever runs the tests may write anywhere
    assert findings()["rights"] == "failed"
