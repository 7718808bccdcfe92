"""What runs in the victim's process: its writes are counted, and it kills itself before the k-th. See ``killing``."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO
from sqlalchemy import Engine, event

# imported for the server process that victims are forked from
import aurum_orchestration.maintenance.backends.iceberg.compact.execute
import aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.execute
import aurum_orchestration.maintenance.backends.iceberg.retention.execute
import aurum_orchestration.maintenance.backends.iceberg.vacuum.execute  # noqa: F401
from aurum_orchestration.maintenance.executor import MaintenanceExecutor
from aurum_orchestration_tests.integration.upkeep.lakeside import Lakeside

_READING = ("SELECT", "PRAGMA", "BEGIN")


@dataclass(frozen=True)
class Victim:
    """What it is to do: an operation on ``lake.ns.t``, or an undo; before which step it dies (0: none), and by what.

    With SIGSTOP it stands still there and goes on when it is continued. ``ttl``: its lease's life in seconds.
    """

    home: Path
    operation: str
    parameters: Mapping[str, Any]
    undo: str | None
    at: int
    by: int = signal.SIGKILL
    ttl: float | None = None


@dataclass
class Steps:
    """Counts the writes below a folder; kills the process before step ``at``, by the signal ``by``."""

    folder: str
    at: int
    by: int = signal.SIGKILL
    taken: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, what: str, path: str = "") -> None:
        """Count a step; the last one that is counted is not done, or later."""
        if self.reached(what, path):
            self.halt()

    def halt(self) -> None:
        """Be killed as by kill -9, where nothing is cleaned up, or stand still."""
        os.kill(os.getpid(), self.by)
        time.sleep(0.3)  # the signal may reach another thread first

    def reached(self, what: str, path: str = "") -> bool:
        with self._lock:
            self.taken.append(f"{what} {path.removeprefix('file://').removeprefix(self.folder)}".rstrip())
            return len(self.taken) == self.at


class _Torn:
    """A stream whose first write may be torn and whose closing is a step; the rest goes to the real one."""

    def __init__(self, stream: Any, steps: Steps, location: str) -> None:
        self._stream, self._steps, self._location, self._begun = stream, steps, location, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, content: Any) -> Any:
        if not self._begun:
            self._begun = True
            if self._steps.reached("write half of", self._location):
                content = memoryview(content).cast("B")
                half = len(content) // 2
                self._stream.write(content[:half])
                self._stream.flush()
                self._steps.halt()
                return half + self._stream.write(content[half:])
        return self._stream.write(content)

    def close(self) -> None:
        if not self._stream.closed:
            self._steps.take("close", self._location)
        self._stream.close()

    def __enter__(self) -> _Torn:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def arm(steps: Steps) -> None:
    """Wrap what writes, in this process for good."""
    create, delete = PyArrowFile.create, PyArrowFileIO.delete

    def step_create(self: PyArrowFile, overwrite: bool = False) -> Any:
        steps.take("create", self.location)
        return _Torn(create(self, overwrite), steps, self.location)

    def step_delete(self: PyArrowFileIO, location: Any) -> None:
        steps.take("delete", str(getattr(location, "location", location)))
        delete(self, location)

    PyArrowFile.create = step_create  # type: ignore[method-assign]
    PyArrowFileIO.delete = step_delete  # type: ignore[method-assign]
    arm_databases(steps)
    sys.addaudithook(lambda name, arguments: _audit(steps, name, arguments))


def arm_databases(steps: Steps) -> None:
    """Let every commit of a database that wrote something be a step."""
    wrote: dict[int, str] = {}

    def executed(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        words = statement.split()
        if words[0].upper() not in _READING:
            wrote[id(connection.connection.dbapi_connection)] = " ".join(words[:3])

    def commit(connection: Any) -> None:
        if what := wrote.pop(id(connection.connection.dbapi_connection), None):
            steps.take(f"commit {Path(connection.engine.url.database).name}: {what}")

    event.listen(Engine, "before_cursor_execute", executed)
    event.listen(Engine, "commit", commit)


def _audit(steps: Steps, name: str, arguments: tuple[Any, ...]) -> None:
    path = arguments[0] if arguments else None
    if not isinstance(path, str) or not path.startswith(steps.folder):
        return
    if name == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        steps.take("create", path)
        if steps.reached("write half of", path):
            _tear(path)
            steps.halt()
            if arguments[2] & os.O_EXCL:  # it only stood still, and now the file is made: it was not there
                Path(path).unlink()
    elif name == "os.rename":
        steps.take("rename", path)
    elif (name == "os.remove" and os.path.lexists(path)) or (name == "os.rmdir" and Path(path).is_dir()):
        steps.take("remove", path)
    elif name == "os.mkdir" and not Path(path).exists():
        steps.take("make folder", path)


def _tear(path: str) -> None:
    """Leave the beginning of a file. Without Python's own open, which is being watched here."""
    shell = os.posix_spawn("/bin/sh", ["sh", "-c", 'printf "{\\"vers" > "$0"', path], dict(os.environ))
    os.waitpid(shell, 0)


def live_for(ttl: float) -> None:
    """Let the leases of this process live so many seconds instead of a minute."""
    defaults: Any = MaintenanceExecutor.__init__.__kwdefaults__
    defaults["lease_ttl"] = timedelta(seconds=ttl)


def victim(given: Victim, answer: Connection | None) -> None:
    """Do the operation; when it lives, answer with the status, its reason, the steps it took, the problem."""
    steps = Steps(str(given.home), given.at, given.by)
    if given.ttl is not None:
        live_for(given.ttl)
    with Lakeside.at(given.home) as lake:
        arm(steps)
        if given.undo is not None:
            result = lake.undo(given.undo)
        else:
            result = lake.run(given.operation, **given.parameters)
    if answer is not None:
        with closing(answer):
            answer.send(
                (str(result.status), result.reason, steps.taken, result.problem.type if result.problem else None)
            )
