"""PostgreSQL 17 with TimescaleDB (Apache edition), pg_repack, pg_partman and pgstattuple, from Debian's own packages.

They are put into a folder of their own by ``debootstrap``, and the server runs in a chroot of it: nothing is installed
on the machine, and its own Debian or Ubuntu may be older. AURUM_TEST_TIMESCALE_DSN names another server instead.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aurum_orchestration.errors import ProvisioningError
from aurum_orchestration.local.engines import postgres
from aurum_orchestration.local.engines.background import free_port
from aurum_orchestration.local.engines.cache import Engine, Tell, run
from aurum_orchestration_tests.engines import SETTINGS, missing
from aurum_orchestration_tests.servers import absence
from aurum_orchestration_tests.servers.process import running

SUITE = "trixie"
_PACKAGES = ("postgresql-17", "postgresql-17-timescaledb", "postgresql-17-repack", "postgresql-17-partman")
_BINARIES = "/usr/lib/postgresql/17/bin"
_PREFIX = "aurum-timescale-"
_SECONDS_TO_START = 600
_NEEDS = "apt-get install debootstrap gives it, on Debian and Ubuntu."
_THROWN_AWAY = ("var/cache/apt", "var/lib/apt/lists", "var/lib/postgresql/17/main", "usr/share/doc", "usr/share/locale")
MORE_SETTINGS = (
    "shared_preload_libraries=timescaledb",
    "timescaledb.telemetry_level=off",
    "max_worker_processes=24",
    "max_prepared_transactions=4",
    "wal_level=logical",
)


def _make(folder: Path, tell: Tell) -> None:
    _require_root()
    if shutil.which("debootstrap") is None and shutil.which("apt-get"):
        tell("apt-get installs debootstrap")
        run(["apt-get", "update", "-qq"], needs=_NEEDS)
        run(["apt-get", "install", "-y", "-qq", "debootstrap"], needs=_NEEDS)
    tell(f"debootstrap installs Debian {SUITE} with PostgreSQL 17 into a folder of its own")
    root = folder / "root"
    include = f"--include={','.join(_PACKAGES)}"
    run(["debootstrap", "--variant=minbase", include, SUITE, root, _mirror()], needs=_NEEDS)
    for part in _THROWN_AWAY:
        shutil.rmtree(root / part, ignore_errors=True)


ENGINE = Engine(
    "timescale",
    "PostgreSQL 17 with TimescaleDB",
    f"17-{SUITE}",
    "150 MB, 1 to 10 minutes as root on Debian or Ubuntu",
    _make,
)


def _require_root() -> None:
    if os.geteuid() != 0:
        raise ProvisioningError(
            "a folder with another Debian is made and entered by root only",
            hint="Run as root, or set AURUM_TEST_TIMESCALE_DSN to a server that has TimescaleDB.",
        )
    if platform.system() != "Linux":
        raise ProvisioningError(
            "Debian's packages run on Linux only", hint="Set AURUM_TEST_TIMESCALE_DSN to a server that has TimescaleDB."
        )


def _mirror() -> str:
    """Where this machine gets Debian's packages from. Raises ProvisioningError."""
    told = run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Created-By: Packages"],
        needs="The engine comes from Debian's packages: use a Debian, or AURUM_TEST_TIMESCALE_DSN.",
    )
    found = re.search(r"^Debian (\S+/debian/?)$", told, re.MULTILINE)
    if found is None:
        raise ProvisioningError(
            "the machine's apt sources name no mirror of Debian",
            hint="Set AURUM_TEST_TIMESCALE_DSN to a server that has TimescaleDB.",
        )
    return found[1]


@contextmanager
def timescale_server() -> Iterator[str]:
    """URL of a server's superuser: AURUM_TEST_TIMESCALE_DSN, else one of one's own on loopback, without durability."""
    given = os.environ.get("AURUM_TEST_TIMESCALE_DSN")
    if given:
        yield given
        return
    found = ENGINE.find()
    if found is None:
        missing(ENGINE.name, absence(ENGINE))
    try:
        _require_root()
        with _own_server(found / "root") as url:
            yield url
    except ProvisioningError as error:
        missing(ENGINE.name, str(error))


@contextmanager
def _own_server(root: Path) -> Iterator[str]:
    _remove_leftovers(root)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    # it has the same name inside: who looks for the servers of a run by its folder finds this one
    inside = root / folder.relative_to("/")
    try:
        inside.mkdir(parents=True)
        run(["chroot", root, "chown", "postgres:", folder], needs=_NEEDS)
        data = f"{folder}/data"
        made = as_postgres(root, "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "utf8", "-N")
        run([*made, "--locale=C"], needs=_NEEDS)
        port = free_port()
        settings = [part for setting in (*SETTINGS, *MORE_SETTINGS) for part in ("-c", setting)]
        served = as_postgres(root, "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", "", *settings)
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        with running(served, lambda: postgres.answers(port), folder=folder, env=environment, ended_by=signal.SIGINT):
            yield postgres.url(port)
    finally:
        shutil.rmtree(inside, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def as_postgres(root: Path, program: str, *arguments: str) -> list[str | Path]:
    """What runs a program of PostgreSQL in the chroot, as the user that the server runs as."""
    return ["chroot", "--userspec=postgres:postgres", root, f"{_BINARIES}/{program}", *arguments]


def repack_program(folder: Path) -> Path | None:
    """A program of that name in ``folder/bin`` that runs the chroot's pg_repack; None where there is no chroot."""
    found = ENGINE.find()
    if found is None:
        return None
    program = folder / "bin" / "pg_repack"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec chroot "{found}/root" {_BINARIES}/pg_repack "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def _remove_leftovers(root: Path) -> None:
    """Remove the data of servers that have ended though nobody removed it: their test run was killed."""
    for pattern in (f"tmp/{_PREFIX}*", f"tmp/*/{_PREFIX}*"):
        for inside in root.glob(pattern):
            outside, held = Path("/") / inside.relative_to(root), inside / "data" / "postmaster.pid"
            alive = held.exists() and Path(f"/proc/{held.read_text().split()[0]}").exists()
            new = outside.exists() and time.time() - outside.stat().st_mtime < _SECONDS_TO_START
            if not alive and not new:
                shutil.rmtree(inside, ignore_errors=True)
                shutil.rmtree(outside, ignore_errors=True)
