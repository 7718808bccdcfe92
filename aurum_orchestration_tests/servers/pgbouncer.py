"""PgBouncer, the pooler that most servers have before them, from the system's packages."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from aurum_orchestration.errors import ProvisioningError
from aurum_orchestration.local.engines import postgres
from aurum_orchestration.local.engines.background import free_port
from aurum_orchestration_tests.engines import missing
from aurum_orchestration_tests.servers.process import running

_NAME = "pgbouncer"
_SETTINGS = """\
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 12
server_round_robin = {in_turn}
"""


@contextmanager
def pooled(dsn: str, mode: str, *, in_turn: bool = False) -> Iterator[str]:
    """The same database through a pool in a mode: ``session``, ``transaction`` or ``statement``.

    ``in_turn``: the processes of the server are taken in turn, and not the one that was free last. Skips the test
    where the program is not there.
    """
    program = shutil.which(_NAME, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        missing(_NAME, f"{_NAME} is not installed: apt-get install {_NAME} gives it")
    given = psycopg.conninfo.conninfo_to_dict(dsn)
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix=f"aurum-{_NAME}-"))
    try:
        folder.chmod(0o755)
        settings = folder / "pgbouncer.ini"
        values = {"mode": mode, "own": port, "in_turn": int(in_turn)}
        settings.write_text(_SETTINGS.format(host=given["host"], port=given["port"], user=given["user"], **values))
        with running(
            [program, settings],
            lambda: _listens(port),
            folder=folder,
            identity=postgres.identity(),  # it does not run as root either
        ):
            yield psycopg.conninfo.make_conninfo(dsn, port=port)
    except ProvisioningError as error:
        missing(_NAME, str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
