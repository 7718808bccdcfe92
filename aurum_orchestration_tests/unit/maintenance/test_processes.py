"""What only real processes show: two on one table, kill -9, Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.history import History
from aurum_orchestration.maintenance.interfaces import MaintenanceResult, MaintenanceStatus
from aurum_orchestration_tests.unit.maintenance.conftest import MakeTable
from aurum_orchestration_tests.unit.maintenance.files import FileTable

TABLE = TableId("disk", ("ns", "events"))
PATIENCE = 60.0


@contextmanager
def worker(folder: Path, ttl: float, *, hold: bool = False) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "aurum_orchestration_tests.unit.maintenance.worker", str(folder), str(ttl)]
    process = subprocess.Popen([*command, "hold"] if hold else command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def result_of(process: subprocess.Popen[str]) -> MaintenanceResult:
    out, _ = process.communicate(timeout=PATIENCE)
    return MaintenanceResult.model_validate_json(out)


def wait_for(path: Path) -> None:
    give_up = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < give_up, f"{path.name} never came"
        time.sleep(0.02)


@pytest.fixture
def table(make_table: MakeTable) -> FileTable:
    return make_table(12)


def test_of_two_processes_one_works_and_the_other_is_told_who(tmp_path: Path, table: FileTable) -> None:
    rows = table.rows()
    with worker(tmp_path, 30, hold=True) as first:
        wait_for(tmp_path / "reached")
        with worker(tmp_path, 30) as second:
            refused = result_of(second)
        (tmp_path / "go").touch()
        done = result_of(first)
    assert refused.problem is not None
    assert refused.problem.type == "lease-held"
    assert f":{first.pid} " in (refused.problem.detail or "")
    assert done.status is MaintenanceStatus.COMPLETED, done.problem
    assert done.metrics["files_rewritten"] == 12
    assert table.rows() == rows


def test_a_killed_run_loses_nothing_and_the_next_one_carries_on(
    tmp_path: Path, table: FileTable, history: History
) -> None:
    rows = table.rows()
    with worker(tmp_path, 2, hold=True) as first:
        wait_for(tmp_path / "reached")
        first.send_signal(signal.SIGKILL)
        first.wait(PATIENCE)
    assert table.rows() == rows
    assert [one.status for one in history.operations()] == [MaintenanceStatus.RUNNING]

    (tmp_path / "go").touch()
    give_up = time.monotonic() + PATIENCE
    while history.holder(TABLE) is not None:
        assert time.monotonic() < give_up, "the dead process kept its lease"
        time.sleep(0.05)
    with worker(tmp_path, 30) as second:
        done = result_of(second)

    assert done.status is MaintenanceStatus.COMPLETED, done.problem
    assert done.metrics["files_rewritten"] == 8  # the first group was committed by the killed run
    assert table.rows() == rows
    newest, killed = history.operations()
    assert newest.operation_id == done.operation_id
    assert killed.problem is not None
    assert (killed.status, killed.problem.type) == (MaintenanceStatus.FAILED, "lease-lost")
    assert f":{first.pid} ended without" in (killed.problem.detail or "")
    assert killed.finished_at is not None


def test_ctrl_c_ends_cleanly(tmp_path: Path, table: FileTable, history: History) -> None:
    rows = table.rows()
    with worker(tmp_path, 30, hold=True) as process:
        wait_for(tmp_path / "reached")
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
        assert process.returncode == -signal.SIGINT
    (result,) = history.operations()
    assert result.status is MaintenanceStatus.CANCELLED
    assert result.metrics["files_rewritten"] == 4
    assert history.holder(TABLE) is None
    assert table.leftovers() == set()
    assert table.rows() == rows
