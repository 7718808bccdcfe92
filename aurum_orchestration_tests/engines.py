"""Real engines for tests: started from what pip installs, stopped at the end, never mocked.

A test asks for an engine by its fixture. An engine that cannot be had skips the test with the reason,
unless AURUM_REQUIRE_ENGINES (names, separated by commas) lists it: then the test fails.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from aurum_orchestration.errors import ProvisioningError
from aurum_orchestration.local.engines import postgres

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
            log = folder / "log"
            with log.open("wb") as output, _running(command, cwd=folder, stdout=output, stderr=output) as server:
                _wait_until_it_answers(port, server, log)
                yield postgres.url(port)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except ProvisioningError as error:
        missing("postgres", str(error))


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _running(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, **postgres.identity(), **options) as server:
        try:
            yield server
        finally:
            # for PostgreSQL: disconnect everybody and stop
            server.send_signal(signal.SIGINT)
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait_until_it_answers(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not postgres.answers(port):
        if server.poll() is not None or time.monotonic() > deadline:
            raise ProvisioningError(f"the embedded PostgreSQL does not start: {log.read_text()[-500:]}")
        time.sleep(0.05)
