"""pg_repack's own program: found in the extension's version, run for a table, ended with its run and its patience."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from aurum_orchestration.errors import EngineError, LockTimeoutError, UnsupportedError
from aurum_orchestration.maintenance.backends.postgres.server import ServerFacts
from aurum_orchestration.maintenance.backends.postgres.table import PgTable
from aurum_orchestration.maintenance.interfaces import RunContext

NAME = "pg_repack"

_DEBIAN = Path("/usr/lib/postgresql")
_LOOK_EVERY = 0.5
_GOES_WITHIN = 20.0
"""Seconds that it has, once asked to end, to remove what it made."""


def find_client(server: ServerFacts) -> Path:
    """The program whose version is the extension's. Raises UnsupportedError that says what is missing."""
    version = server.extensions.get(NAME)
    if version is None:
        raise UnsupportedError("the extension pg_repack is not installed in the database")
    on_path = shutil.which(NAME)
    there = [*([Path(on_path)] if on_path else []), *sorted(_DEBIAN.glob(f"*/bin/{NAME}"))]
    found = {path: _version(path) for path in there}
    for path, told in found.items():
        if told == version:
            return path
    others = ", ".join(f"{path} is {told or 'broken'}" for path, told in found.items())
    raise UnsupportedError(
        f"the program pg_repack {version}, as the extension is, is not on this machine"
        + (f": {others}" if others else "")
    )


def _version(path: Path) -> str | None:
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False)  # noqa: S603 - pg_repack
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"(\d+(?:\.\d+)+)", answer.stdout)
    return found[1] if found else None


def arguments(table: PgTable, wait_timeout: int) -> list[str]:
    """What pg_repack is told, besides the connection. It is to cancel or end nobody when its patience is over."""
    told = [f"--table={table.identifier.as_string(None)}", "--no-order", f"--wait-timeout={wait_timeout}"]
    told += ["--no-kill-backend", "--no-password"]
    return told if table.server.superuser else [*told, "--no-superuser-check"]


def repack(client: Path, table: PgTable, wait_timeout: int, run: RunContext, waiting: Callable[[], str | None]) -> str:
    """Run it to its end; what it told. ``waiting`` says for whom it has waited too long, None while it may go on.

    Raises LockTimeoutError then, OperationCancelledError, EngineError.
    """
    keys: dict[str, Any] = dict(conninfo_to_dict(table.config.conninfo()))
    public = make_conninfo(**{key: value for key, value in keys.items() if key not in {"password", "sslpassword"}})
    environment = {**os.environ, "LC_MESSAGES": "C"}
    if keys.get("password"):
        environment["PGPASSWORD"] = str(keys["password"])  # not among the arguments, which everybody sees
    command = [str(client), f"--dbname={public}", *arguments(table, wait_timeout)]
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        with subprocess.Popen(  # noqa: S603 - pg_repack
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        ) as process:
            try:
                _wait(process, table, run, waiting)
            except BaseException:
                _end(process)
                raise
        output.seek(0)
        told = output.read()
    if process.returncode:
        raise EngineError(f"pg_repack ended with {process.returncode}: {last_lines(told)}", table=str(table.id))
    return told


def last_lines(told: str) -> str:
    """The end of what a program told, on one line."""
    return "; ".join(line.strip() for line in told.splitlines()[-4:] if line.strip())


def _wait(process: subprocess.Popen[bytes], table: PgTable, run: RunContext, waiting: Callable[[], str | None]) -> None:
    deadline = time.monotonic() + table.config.work_timeout
    while True:
        try:
            process.wait(_LOOK_EVERY)
        except subprocess.TimeoutExpired:
            run.check()
            whom = waiting()
            if whom is not None:
                raise LockTimeoutError(f"pg_repack waited too long for {whom}", table=str(table.id)) from None
            if time.monotonic() > deadline:
                raise EngineError(f"pg_repack took longer than {table.config.work_timeout:,.0f} s") from None
        else:
            return


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, upon which it removes what it made; kill it when it does not."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_GOES_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
