"""A backup of a database with hypertables: restored, with the rows of every chunk."""

from __future__ import annotations

from pathlib import Path

from aurum_orchestration_tests.integration.timescale.support import DAYS, Timescale


def test_hypertables_are_restored_and_counted(ts: Timescale, tmp_path: Path) -> None:
    done = ts.run("backup", f"pg.{ts.name}", path=str(tmp_path / "backups"), verify="restore")
    assert done.problem is None, str(done.problem)
    assert done.status == "completed"
    assert done.verification is not None
    assert done.verification.ok
    assert done.verification.rows_after == DAYS * 24
    assert ts.sql("SELECT count(*) FROM pg_database WHERE datname LIKE 'aurum_scratch_%'") == [(0,)]
