"""Sends what the outbox holds: each message once, again later when it cannot be sent, given up in the end.

Between sending a message and noting so a process may die: then the message is sent again when its claim
is over. That is the only way to a message twice, and nothing but one small transaction lies between.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from aurum_orchestration.errors import HistoryUnavailableError
from aurum_orchestration.fleet.notifications import Destination
from aurum_orchestration.notifications.message import Message, compose
from aurum_orchestration.notifications.sending import send

if TYPE_CHECKING:
    from aurum_orchestration.history import History
    from aurum_orchestration.history.records import Parcel

CLAIM = timedelta(minutes=5)
"""How long nobody else sends a message that somebody began to send; far longer than any channel's own time-out."""

FIRST_PAUSE = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(hours=1)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Flushed:
    """What a flush came to, in messages."""

    sent: int = 0
    failed: int = 0
    given_up: int = 0

    def __str__(self) -> str:
        told = [f"{count:,} {word}" for count, word in ((self.sent, "sent"), (self.given_up, "given up")) if count]
        if self.failed:
            told.append(f"{self.failed:,} not sent, tried again later")
        return ", ".join(told) or "nothing to send"


class Notifier:
    """Sends the notices of a history store to the destinations of a fleet. Safe beside others that do the same."""

    def __init__(
        self,
        history: History,
        destinations: Sequence[Destination],
        *,
        claim: timedelta = CLAIM,
        first_pause: timedelta = FIRST_PAUSE,
        sender: Callable[[str, Message], str | None] = send,
    ) -> None:
        self._history = history
        self._destinations = {one.name: one for one in destinations}
        self._claim = claim
        self._first_pause = first_pause
        self._send = sender

    def flush(self, seconds: float = 30.0) -> Flushed:
        """Send what is due, beginning no message after so many seconds.

        Raises HistoryUnavailableError, and MissingExtraError without apprise: then all waits as it is.
        """
        until = time.monotonic() + seconds
        sent = failed = given_up = 0
        while time.monotonic() < until:
            parcel = self._history.claim_notices(list(self._destinations), self._claim)
            if parcel is None:
                break
            if not parcel.notices:  # somebody else was quicker
                continue
            outcome = self._deliver(parcel)
            sent, failed, given_up = sent + (outcome == 0), failed + (outcome == 1), given_up + (outcome == 2)
        return Flushed(sent, failed, given_up)

    def _deliver(self, parcel: Parcel) -> int:
        """0 sent, 1 to be sent later, 2 given up."""
        destination = self._destinations[parcel.destination]
        message = compose(parcel.notices)
        try:
            error = self._send(destination.url.get_secret_value(), message)
        except BaseException:
            self._history.notices_failed(parcel, "the sender was stopped", timedelta(0))
            raise
        if error is None:
            self._note_sent(parcel)
            return 0
        keep = timedelta(days=destination.rule.give_up_days)
        pause = (
            None if parcel.waited >= keep else min(self._first_pause * 2 ** min(parcel.attempts - 1, 10), LONGEST_PAUSE)
        )
        _log.warning(
            "%r was not sent to %s (%s): %s; %s",
            message.title,
            destination.name,
            destination.kind,
            error,
            "given up" if pause is None else f"again in {pause.total_seconds():,.0f} s",
        )
        self._history.notices_failed(parcel, error, pause)
        return 1 if pause is not None else 2

    def _note_sent(self, parcel: Parcel) -> None:
        """Note it at all costs: what is not noted is sent twice."""
        for attempt in Retrying(
            retry=retry_if_exception_type(HistoryUnavailableError),
            stop=stop_after_attempt(5),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            reraise=True,
        ):
            with attempt:
                self._history.notices_sent(parcel)
