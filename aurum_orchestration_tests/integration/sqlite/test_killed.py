"""kill -9 in the middle of a batch and of a backup: nothing is lost, and the next run clears up."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration_tests.integration.sqlite.support import File

_VICTIM = """
import os, signal, sys
from pathlib import Path
from aurum_orchestration.maintenance.backends.sqlite import backup, rules
from aurum_orchestration_tests.integration.sqlite.support import File

def die_after(times, one):
    def dying(*given, **named):
        dying.left -= 1
        if dying.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return one(*given, **named)
    dying.left = times
    return dying

path, home, operation, folder = sys.argv[1:]
rules._Taker._touched = die_after(50, rules._Taker._touched)
backup.integrity = die_after(0, backup.integrity)
File(Path(path), Path(home)).run(operation, **({"path": folder} if operation == "backup" else {"pause_ms": 0}))
"""


def killed(file: File, operation: str, folder: Path) -> None:
    """Run the operation in a process that kills itself in the middle of it."""
    command = [sys.executable, "-c", _VICTIM, str(file.path), str(file.home), operation, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]


def test_a_batch_that_was_cut_off_never_was(file: File, tmp_path: Path) -> None:
    before = file.everything()
    killed(file, "cleanup", tmp_path)
    assert file.everything() == before
    assert file.sql("PRAGMA integrity_check") == [("ok",)]
    survivor = replace(file, home=tmp_path / "another")  # the dead one's lease ends by itself
    assert survivor.run("cleanup", pause_ms=0).status is MaintenanceStatus.COMPLETED


def test_a_backup_that_was_cut_off_leaves_nothing_after_the_next(file: File, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    killed(file, "backup", folder)
    assert not [path for path in folder.iterdir() if path.name.startswith("backup_")]
    assert list(folder.iterdir())  # what was not finished, under another name
    result = replace(file, home=tmp_path / "another").run("backup", path=str(folder))
    assert result.status is MaintenanceStatus.COMPLETED, result.reason
    assert result.metrics["leftovers_dropped"] == 1
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".sqlite"]
