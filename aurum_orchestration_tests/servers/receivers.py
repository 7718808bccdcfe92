"""Real receivers of notifications on this machine: one over HTTP, one over SMTP."""

from __future__ import annotations

import contextlib
import email
import email.policy
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller


@dataclass
class HttpReceiver:
    """What was posted, and what the answer is to be. ``before`` runs before an answer."""

    port: int = 0
    status: int = 200
    messages: list[dict[str, Any]] = field(default_factory=list)
    before: Callable[[], object] = lambda: None

    def url(self, secret: str = "hunter2") -> str:
        """A URL that has a secret wherever it may have one."""
        return f"json://bot:{secret}pw@127.0.0.1:{self.port}/{secret}path?+X-Key={secret}header"

    @property
    def titles(self) -> list[str]:
        return [str(message["title"]) for message in self.messages]

    @property
    def bodies(self) -> list[str]:
        return [str(message["message"]) for message in self.messages]


@contextlib.contextmanager
def http_receiver() -> Iterator[HttpReceiver]:
    """A web server that keeps what is posted to it."""
    kept = HttpReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = kept.status
            if status < 300:
                kept.messages.append(content)
            kept.before()
            with contextlib.suppress(OSError):  # who was killed meanwhile hears no answer
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class SmtpReceiver:
    """The mails that came."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd calls it
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 OK"


@contextlib.contextmanager
def smtp_receiver() -> Iterator[SmtpReceiver]:
    """A mail server that keeps what is sent to it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        kept = SmtpReceiver(port=free.getsockname()[1])
    controller = Controller(kept, hostname="127.0.0.1", port=kept.port)  # it cannot look for a free one itself
    controller.start()
    try:
        yield kept
    finally:
        controller.stop()
