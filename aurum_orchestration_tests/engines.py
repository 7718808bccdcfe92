"""Real engines for tests: started from what pip installs, stopped at the end, never mocked.

A test asks for an engine by its fixture. An engine that cannot be had skips the test with the reason,
unless AURUM_REQUIRE_ENGINES (names, separated by commas) lists it: then the test fails.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from aurum_orchestration.errors import ProvisioningError
from aurum_orchestration.local.engines import postgres
from aurum_orchestration.local.engines.background import free_port
from aurum_orchestration_tests.servers.process import running

SETTINGS = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "shared_buffers=32MB",
    "timezone=Asia/Tokyo",
)


def missing(engine: str, reason: str) -> NoReturn:
    """Skip the test, or fail it where the engine is required."""
    required = {name.strip() for name in os.environ.get("AURUM_REQUIRE_ENGINES", "").split(",")}
    if engine in required:
        pytest.fail(f"AURUM_REQUIRE_ENGINES lists {engine}, but {reason}", pytrace=False)
    pytest.skip(reason)


@contextmanager
def embedded_postgres(programs: Path | None = None) -> Iterator[str]:
    """A PostgreSQL server of one's own on loopback TCP, without durability; gives its URL (user postgres, trust).

    ``programs``: the folder of the binaries, where they are not those that pip brings.
    """
    with _own_postgres(lambda folder: postgres.make(folder, programs)) as url:
        yield url


@contextmanager
def standby_of(primary: str) -> Iterator[str]:
    """A physical standby of such a server of pip's, which tells it what its queries still see; gives its URL."""

    def copied(folder: Path) -> Path:
        binaries = postgres.hand_over(folder)
        command: list[str | Path] = [binaries / "pg_basebackup", "-d", primary.replace("+psycopg", "")]
        command += ["-D", folder / "data", "--write-recovery-conf", "--checkpoint=fast"]
        command += ["--create-slot", "--slot", "standby"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, **postgres.identity())
        return binaries

    with _own_postgres(copied, "hot_standby_feedback=on", "wal_receiver_status_interval=1s") as url:
        yield url


@contextmanager
def _own_postgres(fill: Callable[[Path], Path], *settings: str) -> Iterator[str]:
    try:
        folder = Path(tempfile.mkdtemp(prefix="aurum-postgres-"))
        try:
            port = free_port()
            command = postgres.command(fill(folder), folder, port, *SETTINGS, *settings)
            with running(
                command,
                lambda: postgres.answers(port),
                folder=folder,
                identity=postgres.identity(),
                ended_by=signal.SIGINT,  # disconnects everybody
            ):
                yield postgres.url(port)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except ProvisioningError as error:
        missing("postgres", str(error))
