"""Servers that outlive the command that started them: each has a file that says its process and its port."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from aurum_orchestration.errors import ProvisioningError

# $0 is the log; a shell that ends at once leaves the server to init, so nobody has to wait for it
_DETACHED = '"$@" >>"$0" 2>&1 </dev/null & echo $!'


class Server(BaseModel):
    """A server of a folder. The file stays when it is ended: the next start takes the same port, if it is free."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="The server: its file is called like it.")
    port: int = Field(description="Where it listens on 127.0.0.1.")
    pid: int = Field(description="Its process.")
    started: float = Field(description="When the process began, in seconds since 1970: pids are used again.")

    @property
    def process(self) -> Any:
        """The process (psutil), None when it has ended."""
        import psutil

        with contextlib.suppress(psutil.Error):
            found = psutil.Process(self.pid)
            if abs(found.create_time() - self.started) < 2 and found.status() != psutil.STATUS_ZOMBIE:
                return found
        return None

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = 30) -> None:
        """End it; killed when it has not ended in time. Nothing happens when it has ended already."""
        import psutil

        if (process := self.process) is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(how)
            if not self._ends_within(process, seconds):
                process.kill()
                if not self._ends_within(process, seconds):
                    raise ProvisioningError(
                        f"{self.name} (process {self.pid}) does not end", hint="It was killed; see what holds it."
                    )

    def _ends_within(self, process: Any, seconds: float) -> bool:
        """Whether it ends in time. One that has ended may wait long for its parent to take note of it."""
        import psutil

        until = time.monotonic() + seconds
        while self.process is not None:
            if time.monotonic() > until:
                return False
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(0.1)
        return True


def read(place: Path, name: str) -> Server | None:
    """What is known of a server of a folder, running or not."""
    file = place / f"{name}.json"
    return Server.model_validate_json(file.read_bytes()) if file.exists() else None


def free_port(wanted: int = 0) -> int:
    """A port of 127.0.0.1 that nobody listens on: the one that is wanted, if that is so."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", wanted))
            return int(probe.getsockname()[1])
    return free_port()


def port_for(known: Server | None) -> int:
    """The port a server had the last time, if nobody has taken it, else a free one."""
    return free_port(known.port if known else 0)


def start(
    place: Path,
    name: str,
    command: Sequence[str | Path],
    port: int,
    answers: Callable[[], bool],
    *,
    cwd: Path,
    identity: Mapping[str, Any] | None = None,
    seconds: float = 240,
) -> Server:
    """Start a server that listens on ``port`` and wait until it answers. Its output goes to ``NAME.log``.

    Raises ProvisioningError with the end of the log when it ends before, or does not answer in time: it is ended then.
    """
    import psutil

    log = place / f"{name}.log"
    log.touch()
    if identity:
        os.chown(log, identity["user"], identity["group"])
    shell = ["/bin/sh", "-c", _DETACHED, log, *command]
    begun = subprocess.run(  # noqa: S603 - the command is ours
        shell, cwd=cwd, start_new_session=True, capture_output=True, text=True, check=True, **(identity or {})
    )
    pid = int(begun.stdout)
    try:
        server = Server(name=name, port=port, pid=pid, started=psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        raise _failed(name, log) from None
    (place / f"{name}.json").write_text(server.model_dump_json())
    deadline = time.monotonic() + seconds
    try:
        while not answers():
            if server.process is None or time.monotonic() > deadline:
                raise _failed(name, log)
            time.sleep(0.1)
    except BaseException:
        server.stop(signal.SIGKILL)
        raise
    return server


def _failed(name: str, log: Path) -> ProvisioningError:
    end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])[-1500:]
    return ProvisioningError(f"{name} does not start: {end}", hint=f"The whole log is {log}.")
