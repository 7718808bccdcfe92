"""A server of one's own on loopback: started, waited for, ended."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from aurum_orchestration.errors import ProvisioningError


@contextmanager
def running(
    command: Sequence[Path | str],
    answers: Callable[[], bool],
    *,
    folder: Path,
    env: Mapping[str, str],
    seconds: float = 60,
    ended_by: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """A server process in ``folder``, its output in ``server.log`` there, once it ``answers``; ended at the end.

    Raises ProvisioningError with the end of the log when it ends before or does not answer in time.
    """
    log = folder / "server.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, cwd=folder, env=dict(env), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        ) as server,
    ):
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
