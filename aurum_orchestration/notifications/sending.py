"""One message to one URL through apprise, without a word of the URL in any log.

apprise and urllib3 log hosts and paths, and a path may be the secret. While a message of ours is sent
their records are taken out of the log; what they say of a failure is kept, without the parts of the URL.
"""

from __future__ import annotations

import contextvars
import logging
import re
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from aurum_orchestration.errors import MissingExtraError, redact
from aurum_orchestration.notifications.message import Message

EXTRA = "pip install 'aurum-orchestration[notify]'"

_CHATTY = ("apprise", "urllib3.connectionpool", "requests_oauthlib")
_SHORTEST = 3
_said: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("aurum_said", default=None)


class _Hush(logging.Filter):
    """Takes the records of a message of ours out of the log and keeps the warnings' text."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop what is logged while a message of ours is sent."""
        said = _said.get()
        if said is None:
            return True
        if record.levelno >= logging.WARNING:
            said.append(record.getMessage())
        return False


_HUSH = _Hush()


def send(url: str, message: Message) -> str | None:
    """Why the message was not sent, None when it was. Raises MissingExtraError without apprise."""
    apprise = _apprise()
    said: list[str] = []
    token = _said.set(said)
    try:
        sender = apprise.Apprise(asset=_asset(apprise))
        if not sender.add(url):
            return "apprise does not understand the URL"
        sent = sender.notify(
            body=message.body,
            title=message.title,
            notify_type=apprise.NotifyType(message.kind),
            body_format=apprise.NotifyFormat.TEXT,
        )
    except Exception as error:
        return without_secrets(url, f"{type(error).__name__}: {error}")
    finally:
        _said.reset(token)
    return None if sent else without_secrets(url, " ".join(said)) or "it was refused"


def understood(url: str) -> bool:
    """Whether apprise knows what to do with a URL. Sends nothing. Raises MissingExtraError without apprise."""
    apprise = _apprise()
    token = _said.set([])
    try:
        return bool(apprise.Apprise(asset=_asset(apprise)).add(url))
    finally:
        _said.reset(token)


def without_secrets(url: str, text: str) -> str:
    """The text without any part of the URL that could be a secret: names, passwords, hosts, paths, values."""
    try:
        parsed = urlsplit(url)
        inside = [parsed.netloc, parsed.username, parsed.password, parsed.hostname, *parsed.path.split("/")]
        inside += [value for _, value in parse_qsl(parsed.query)]
    except ValueError:
        inside = re.split(r"[/:@?&=]+", url)[1:]
    parts = {form for part in inside if part for form in (part, unquote(part)) if len(form) >= _SHORTEST}
    for part in sorted({url, *parts}, key=len, reverse=True):
        text = re.sub(re.escape(part), "***", text, flags=re.IGNORECASE)
    return redact(" ".join(text.split()))


def _asset(apprise: ModuleType) -> Any:
    # in this thread, so that what is logged is known to be of this message; nothing is kept on disk
    return apprise.AppriseAsset(async_mode=False, app_id="aurum", app_desc="aurum_orchestration")


def _apprise() -> ModuleType:
    try:
        import apprise
    except ImportError as error:
        raise MissingExtraError("notifications are sent by apprise, which is not installed", hint=EXTRA) from error
    for name in _CHATTY:
        logging.getLogger(name).addFilter(_HUSH)  # a filter that is there already is not added again
    return apprise
