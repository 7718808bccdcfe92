"""A PostgreSQL server of one's own that is restarted by ``pg_ctl``, with or without time to end its sessions."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aurum_orchestration.errors import ProvisioningError
from aurum_orchestration.local.engines import postgres
from aurum_orchestration.local.engines.background import free_port
from aurum_orchestration_tests.engines import missing
from aurum_orchestration_tests.servers import absence
from aurum_orchestration_tests.servers.timescale import ENGINE, MORE_SETTINGS, as_postgres

SETTINGS = ("fsync=off", "shared_buffers=32MB", "autovacuum=off", "max_prepared_transactions=4")
"""What is committed is in the log, which the operating system keeps: only the machine's own end would lose it."""


@dataclass(frozen=True)
class Restartable:
    """A server at ``port``; ``control`` is pg_ctl, told whom to run as and where the data is."""

    port: int
    control: Sequence[str | Path]
    started: str
    folder: Path

    @property
    def url(self) -> str:
        """Of its superuser."""
        return postgres.url(self.port)

    def start(self) -> None:
        """Start it. Raises ProvisioningError with the end of its log."""
        self._call("start", "-o", self.started)

    def restart(self, mode: str) -> None:
        """``fast`` ends every session; ``immediate`` lets all of them die, and recovers from the log."""
        self._call("restart", "-m", mode, "-o", self.started)

    def stop(self) -> None:
        """At the end; what it holds is thrown away."""
        self._call("stop", "-m", "immediate", check=False)

    def _call(self, *what: str, check: bool = True) -> None:
        identity = {} if str(self.control[0]) == "chroot" else postgres.identity()
        command = [*self.control, *what, "-w", "-s", "-l", str(self.folder / "log")]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, timeout=120, **identity)
        if check and done.returncode:
            raise ProvisioningError(f"pg_ctl {what[0]} failed: {done.stdout[-300:]} {done.stderr[-300:]}")


@contextmanager
def restartable() -> Iterator[Restartable]:
    """The embedded PostgreSQL."""
    folder = Path(tempfile.mkdtemp(prefix="aurum-restarted-"))
    try:
        binaries = postgres.make(folder)
        yield from _served([binaries / "pg_ctl", "-D", folder / "data"], SETTINGS, folder)
    except ProvisioningError as error:
        missing("postgres", str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def restartable_with_pg_repack() -> Iterator[Restartable]:
    """The PostgreSQL 17 that has pg_repack, in its chroot."""
    found = ENGINE.find()
    if found is None:
        missing(ENGINE.name, absence(ENGINE))
    root = found / "root"
    folder = Path(tempfile.mkdtemp(prefix="aurum-restarted-"))
    inside = root / folder.relative_to("/")
    try:
        inside.mkdir(parents=True)
        own: list[str | Path] = ["chroot", root, "chown", "postgres:", folder]
        made = as_postgres(root, "initdb", "-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "-E", "utf8", "-N")
        made.append("--locale=C")
        for command in (own, made):
            subprocess.run(command, cwd="/", capture_output=True, check=True)
        yield from _served([*as_postgres(root, "pg_ctl"), "-D", f"{folder}/data"], (*SETTINGS, *MORE_SETTINGS), folder)
    finally:
        shutil.rmtree(inside, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def _served(control: Sequence[str | Path], settings: Sequence[str], folder: Path) -> Iterator[Restartable]:
    port = free_port()
    told = " ".join(f"-c {one}" for one in settings)
    server = Restartable(port, control, f"-h 127.0.0.1 -p {port} -k '' {told}", folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
