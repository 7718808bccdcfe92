"""A TCP line between a client and a real server that breaks where it hurts: around a command such as COMMIT."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum


class Cut(Enum):
    """Where the line is cut when the client sends the command."""

    BEFORE = "the command never arrives"
    AT = "the command arrives, its answer does not"
    AFTER = "the answer arrives, and nothing after it"
    LATE = "the client is cut off first, the command arrives a while later"
    NEVER = "the command arrives, its answer does not, and the line stays open"


@dataclass
class Line:
    """Where it answers, and what happens to connections. ``cut`` counts for the next command only."""

    port: int = 0
    command: bytes = b"COMMIT\0"
    cut: Cut | None = None
    down: bool = False
    delay: float = 0.0
    late: float = 1.0
    cuts: int = 0
    guard: threading.Lock = field(default_factory=threading.Lock)

    def taken(self, data: bytes) -> Cut | None:
        """What is to happen to this data."""
        with self.guard:
            if self.cut is None or self.command not in data:
                return None
            cut, self.cut = self.cut, None
            self.cuts += 1
            return cut


class _Connection:
    def __init__(self, line: Line, client: socket.socket, upstream: tuple[str, int]) -> None:
        self._line, self._client, self._server = line, client, socket.create_connection(upstream, 10)
        self._silent = threading.Event()
        self._last = threading.Event()
        for pump in (self._forth, self._back):
            threading.Thread(target=pump, daemon=True).start()

    def _forth(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._client.recv(65_536):
                time.sleep(self._line.delay)
                cut = Cut.BEFORE if self._line.down else self._line.taken(data)
                if cut is Cut.BEFORE:
                    break
                if cut is Cut.LATE:
                    self._silent.set()
                    _close(self._client)
                    time.sleep(self._line.late)
                unanswered = cut in {Cut.AT, Cut.NEVER}
                (self._silent if unanswered else self._last if cut is Cut.AFTER else threading.Event()).set()
                self._server.sendall(data)
                if cut not in {None, Cut.NEVER}:
                    time.sleep(0.3)  # until it is answered
                    break
        self._end()

    def _back(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._server.recv(65_536):
                if not self._silent.is_set():
                    self._client.sendall(data)
                if self._last.is_set():
                    break
        self._end()

    def _end(self) -> None:
        _close(self._client)
        _close(self._server)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def breaking_line(host: str, port: int) -> Iterator[Line]:
    """A line on loopback to the server at ``host`` and ``port``."""
    line = Line()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        line.port = listener.getsockname()[1]

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    if line.down:
                        _close(client)
                    else:
                        _Connection(line, client, (host, port))

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield line
        finally:
            line.down = True
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
