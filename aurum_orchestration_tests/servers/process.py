"""A server of one's own on loopback: started, waited for, ended; ended too when the tests are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aurum_orchestration.errors import ProvisioningError

# $0 is the process to wait for
_ONCE_GONE = '(while kill -0 "$0"; do sleep 1; done; exec "$@") </dev/null >/dev/null 2>&1 & echo $!'


def once_gone(process: int, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> int:
    """Let a shell of its own run a command once a process has ended, however that ends; the shell's process."""
    shell = ["/bin/sh", "-c", _ONCE_GONE, str(process), *command]
    begun = subprocess.run(shell, start_new_session=True, capture_output=True, text=True, check=True, env=env)
    return int(begun.stdout)


@contextmanager
def running(
    command: Sequence[Path | str],
    answers: Callable[[], bool],
    *,
    folder: Path,
    env: Mapping[str, str] | None = None,
    identity: Mapping[str, Any] | None = None,
    seconds: float = 60,
    ended_by: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """A server process in ``folder``, its output in ``server.log`` there, once it ``answers``; ended at the end.

    ``identity`` is as whom it runs, as arguments of ``subprocess``. Raises ProvisioningError with the end of the log
    when it ends before or does not answer in time.
    """
    log = folder / "server.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            **(identity or {}),
        ) as server,
    ):
        guard = once_gone(os.getpid(), ["kill", "-KILL", str(server.pid)])
        try:
            deadline = time.monotonic() + seconds
            while not answers():
                if server.poll() is not None or time.monotonic() > deadline:
                    raise ProvisioningError(f"{command[0]} does not start: {log.read_text(errors='replace')[-800:]}")
                time.sleep(0.05)
            yield server
        finally:
            server.send_signal(ended_by)
            try:
                server.wait(2)  # what it holds is thrown away
            except subprocess.TimeoutExpired:
                server.kill()
            os.kill(guard, signal.SIGKILL)
