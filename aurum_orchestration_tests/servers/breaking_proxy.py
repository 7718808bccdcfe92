"""An HTTP server between a client and a real server that breaks chosen requests on purpose, and keeps a list of all."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Forward = Callable[[], tuple[int, list[tuple[str, str]], bytes]]
"""Passes the request on; status, headers and body of the answer."""

Answer = tuple[int, list[tuple[str, str]], bytes] | None
"""What the client gets; None: the connection is closed without a word."""

How = Callable[[Forward], Answer]


@dataclass
class Fault:
    """Breaks requests that match (``GET /path?query``), after the first ``skip``, ``times`` of them (None: all)."""

    pattern: str
    how: How
    times: int | None = None
    skip: int = 0
    seen: int = 0

    def takes(self, line: str) -> bool:
        """Whether this request is one to break."""
        if not re.search(self.pattern, line):
            return False
        self.seen += 1
        return self.seen > self.skip and (self.times is None or self.seen <= self.skip + self.times)


@dataclass
class Proxy:
    """Where it answers, what went through it, and what breaks. Each request is a line such as ``GET /path?query``."""

    url: str = ""
    requests: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def breaks(self, pattern: str, how: How, *, times: int | None = None, skip: int = 0) -> Fault:
        """Break requests from now on."""
        fault = Fault(pattern, how, times, skip)
        with self.guard:
            self.faults.append(fault)
        return fault

    def heal(self) -> None:
        """Let everything pass."""
        with self.guard:
            self.faults.clear()

    def sent(self, pattern: str) -> list[str]:
        """The requests that match."""
        return [line for line in self.requests if re.search(pattern, line)]

    def received(self, line: str) -> How:
        """What happens to a request."""
        with self.guard:
            self.requests.append(line)
            return next((fault.how for fault in self.faults if fault.takes(line)), lambda forward: forward())


def answers(status: int, body: bytes = b"", kind: str = "application/json") -> How:
    """The request never arrives; the client is told this."""
    return lambda forward: (status, [("Content-Type", kind)], body)


def slow_down(forward: Forward) -> Answer:
    """What S3 says when it is asked too much."""
    body = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
    return 503, [("Content-Type", "application/xml")], body


def hangs_up(forward: Forward) -> Answer:
    """The request never arrives; the connection is closed."""
    return None


def loses_the_answer(status: int | None = None) -> How:
    """The request arrives and takes effect; the client hears an error of this status, or nothing at all."""

    def how(forward: Forward) -> Answer:
        forward()
        return None if status is None else (status, [("Content-Type", "application/json")], b"{}")

    return how


def hangs(seconds: float) -> How:
    """The answer comes late."""

    def how(forward: Forward) -> Answer:
        time.sleep(seconds)
        return forward()

    return how


@contextmanager
def breaking_proxy(upstream: str, added: Mapping[str, str] | None = None) -> Iterator[Proxy]:
    """A proxy on loopback in front of the server at ``upstream``; ``added`` headers go along with every request."""
    proxy = Proxy()
    netloc = urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self._body()

            def forward() -> tuple[int, list[tuple[str, str]], bytes]:
                connection = HTTPConnection(netloc, timeout=60)
                try:
                    connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                    # the signature covers the host that the client knows
                    for name, value in self.headers.items():
                        if name.lower() not in {"connection", "expect", "transfer-encoding", "content-length"}:
                            connection.putheader(name, value)
                    for name, value in (added or {}).items():
                        connection.putheader(name, value)
                    connection.putheader("Content-Length", str(len(body)))
                    connection.endheaders(body)
                    answer = connection.getresponse()
                    return answer.status, answer.getheaders(), answer.read()
                finally:
                    connection.close()

            found = proxy.received(f"{self.command} {self.path}")(forward)
            if found is None:
                self.close_connection = True
                return
            status, headers, content = found
            self.send_response_only(status)
            length = str(len(content))
            for name, value in headers:
                if name.lower() == "content-length" and self.command == "HEAD":
                    length = value
                elif name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815 - the library's names

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def handle(self) -> None:
            """As the library does; a client that gives up is no error."""
            try:
                super().handle()
            except ConnectionError:
                self.close_connection = True

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()
