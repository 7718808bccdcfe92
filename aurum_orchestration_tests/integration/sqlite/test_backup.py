"""Backups: whole, under their name only once they are proven, the older ones gone only after that."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime, tzinfo
from pathlib import Path

import pytest

from aurum_orchestration.maintenance.backends.sqlite import backup
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration_tests.integration.sqlite.support import File


def names(folder: Path) -> list[str]:
    """What is in the folder of backups."""
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_backup_holds_every_row(file: File, tmp_path: Path, mode: str) -> None:
    assert file.sql(f"PRAGMA journal_mode = {mode}") == [(mode,)]
    rows = file.everything()
    result = file.run("backup", path=str(tmp_path / "backups"))
    assert result.status is MaintenanceStatus.COMPLETED, result.reason
    assert result.verification is not None
    assert result.verification.ok
    assert result.verification.rows_after == 1400
    copy, note = names(tmp_path / "backups")
    assert copy.startswith("backup_app_")
    assert note == f"{copy}.json"
    assert File(tmp_path / "backups" / copy, file.home).everything() == rows
    assert file.everything() == rows


def test_a_backup_while_somebody_has_a_transaction_open(file: File, tmp_path: Path) -> None:
    file.sql("PRAGMA journal_mode = wal")
    rows = file.everything()
    with closing(sqlite3.connect(file.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM audit")
        result = file.run("backup", path=str(tmp_path / "backups"))
        assert result.status is MaintenanceStatus.COMPLETED, result.reason
    copy = names(tmp_path / "backups")[0]
    assert File(tmp_path / "backups" / copy, file.home).everything() == rows


def test_a_copy_that_is_not_sound_never_gets_the_name(
    file: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = backup._Copy.stage

    def damaged(self: backup._Copy, run: object) -> None:
        staged(self, run)  # type: ignore[arg-type]
        assert self._staging is not None
        content = bytearray(self._staging.data.read_bytes())
        content[4096 * 3 : 4096 * 9] = b"\xff" * 4096 * 6
        self._staging.data.write_bytes(content)

    monkeypatch.setattr(backup._Copy, "stage", damaged)
    result = file.run("backup", path=str(tmp_path / "backups"))
    assert result.status is MaintenanceStatus.FAILED
    assert names(tmp_path / "backups") == []


def test_older_backups_go_once_a_newer_one_is_there(
    file: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "backup_app_somebody_elses.sqlite").write_text("not ours")
    for second in range(4):
        monkeypatch.setattr(backup, "datetime", clock(second))
        result = file.run("backup", path=str(folder), keep_last=2)
        assert result.status is MaintenanceStatus.COMPLETED, result.reason
    ours = [name for name in names(folder) if name.endswith("Z.sqlite")]
    assert ours == ["backup_app_20260101T000002Z.sqlite", "backup_app_20260101T000003Z.sqlite"]
    assert (folder / "backup_app_somebody_elses.sqlite").read_text() == "not ours"


def clock(second: int) -> type[datetime]:
    """A clock that stands at a second of one day: two backups of one second would have one name."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime(2026, 1, 1, 0, 0, second, tzinfo=tz)

    return Clock


def test_without_a_path_there_is_nothing_to_do(file: File) -> None:
    result = file.run("backup")
    assert result.status is MaintenanceStatus.SKIPPED
    assert "no path is set" in result.reason


def test_two_backups_of_one_second_have_names_of_their_own(
    file: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "datetime", clock(0))
    for _ in range(2):
        result = file.run("backup", path=str(tmp_path / "backups"), keep_last=1)
        assert result.status is MaintenanceStatus.COMPLETED, result.reason
    (copy, _) = names(tmp_path / "backups")
    assert copy.startswith("backup_app_20260101T000001Z")
