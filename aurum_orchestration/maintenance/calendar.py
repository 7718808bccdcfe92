"""When the planner may start work on a table: maintenance windows and blackout times, in the fleet's time zone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

CALENDAR = "calendar"
"""Name of the policy section that holds windows and blackouts; it stands beside the operations' sections."""

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
HORIZON = timedelta(days=400)
"""How far ahead an opening is looked for: longer blackouts never end, as far as a reason tells."""

_DAY = "|".join(DAYS)
_WEEKLY = re.compile(
    rf"(?:(?P<days>(?:{_DAY})(?:-(?:{_DAY}))?(?:,(?:{_DAY})(?:-(?:{_DAY}))?)*) +)?"
    r"(?P<start>\d\d:\d\d)-(?P<end>\d\d:\d\d)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Weekly:
    """A span of wall-clock time that begins on some days of the week; it may go on past midnight."""

    days: frozenset[int]
    start: time
    length: timedelta

    def spans(self, around: date, zone: tzinfo) -> Iterator[tuple[datetime, datetime]]:
        """The spans that begin on the day before ``around``, on it and in the week after."""
        for offset in range(-1, 8):
            day = around + timedelta(days=offset)
            if day.weekday() in self.days:
                # wall-clock arithmetic: 22:00-06:00 ends at 06:00, also in the night that the clocks change
                begins = datetime.combine(day, self.start)
                yield begins.replace(tzinfo=zone), (begins + self.length).replace(tzinfo=zone)


@dataclass(frozen=True, slots=True)
class Once:
    """A span between two wall-clock times of certain days."""

    start: datetime
    end: datetime

    def spans(self, around: date, zone: tzinfo) -> Iterator[tuple[datetime, datetime]]:  # noqa: ARG002 - the same every day
        """The one span."""
        yield self.start.replace(tzinfo=zone), self.end.replace(tzinfo=zone)


@lru_cache(maxsize=1024)
def parse_span(text: str) -> Weekly | Once:
    """A span as written: ``22:00-06:00``, ``Mon-Fri 22:00-06:00``, ``Sat,Sun 00:00-24:00``, ``2026-12-24/2026-12-27``.

    A span by dates lasts from the first moment of the first to the first moment of the second day; times
    (``2026-12-24T18:00``) may be given. Raises ValueError that says how to write it.
    """
    weekly = _WEEKLY.fullmatch(text.strip())
    if weekly:
        return _weekly(text, weekly)
    first, separator, last = text.partition("/")
    try:
        start, end = datetime.fromisoformat(first.strip()), datetime.fromisoformat(last.strip())
    except ValueError:
        separator = ""
    if not separator or start.tzinfo or end.tzinfo:
        raise ValueError(
            f"{text!r} is no span of time; write 22:00-06:00, 'Mon-Fri 22:00-06:00' or 2026-12-24/2026-12-27, "
            "in the fleet's time_zone"
        )
    if end <= start:
        raise ValueError(f"{text!r} ends before it begins")
    return Once(start, end)


def _weekly(text: str, found: re.Match[str]) -> Weekly:
    try:
        start = time.fromisoformat(found["start"])
        end = timedelta(days=1) if found["end"] == "24:00" else _since_midnight(time.fromisoformat(found["end"]))
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from error
    length = end - _since_midnight(start)
    if not length:
        raise ValueError(f"{text!r} has no length; the whole day is 00:00-24:00")
    return Weekly(_days(found["days"]), start, length if length > timedelta() else length + timedelta(days=1))


def _since_midnight(at: time) -> timedelta:
    return timedelta(hours=at.hour, minutes=at.minute)


def _days(text: str | None) -> frozenset[int]:
    if text is None:
        return frozenset(range(7))
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        begin = DAYS.index(first.capitalize())
        end = DAYS.index(last.capitalize()) if last else begin
        found.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return frozenset(found)


def _checked(text: str) -> str:
    parse_span(text)
    return text


Span = Annotated[str, AfterValidator(_checked)]


class CalendarPolicy(BaseModel):
    """The ``calendar`` section of a policy: when the planner may start work by itself. A person may any time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    windows: tuple[Span, ...] = Field(
        default=(), description="Work starts only within these: `Mon-Fri 22:00-06:00`. None: at any time."
    )
    blackouts: tuple[Span, ...] = Field(
        default=(), description="No work starts within these: `08:00-10:00`, `2026-12-24/2026-12-27`."
    )
    priority: int = Field(
        default=0, ge=-100, le=100, description="Tables of a higher one come first, whatever the others would gain."
    )


ALWAYS = CalendarPolicy()
"""The calendar of a table that nothing is said about."""


@dataclass(frozen=True, slots=True)
class Closed:
    """``code``: ``blackout`` or ``window``. ``opens``: when the planner may start again, if that is foreseeable."""

    code: str
    opens: datetime | None

    def __str__(self) -> str:
        what = "in a blackout" if self.code == "blackout" else "outside its maintenance windows"
        if self.opens is None:
            return f"{what}, with no end in sight"
        return f"{what} until {self.opens:%a %Y-%m-%d %H:%M %Z}"


def closed(calendar: CalendarPolicy, now: datetime) -> Closed | None:
    """Why no work may start now, None when it may. ``now`` is in the zone that the calendar is meant in."""
    if not calendar.windows and not calendar.blackouts:
        return None
    if _within(calendar.blackouts, now):
        return Closed("blackout", _next_opening(calendar, now))
    if calendar.windows and not _within(calendar.windows, now):
        return Closed("window", _next_opening(calendar, now))
    return None


def night_began(now: datetime) -> datetime:
    """The noon before ``now``, in its zone: from then on a night's budget counts."""
    noon = now.replace(hour=12, minute=0, second=0, microsecond=0)
    return noon if now.timestamp() >= noon.timestamp() else noon - timedelta(days=1)


def _within(spans: Sequence[str], now: datetime) -> datetime | None:
    """The end of the spans that hold the moment, the latest one."""
    ends = [
        end
        for text in spans
        for start, end in parse_span(text).spans(now.date(), _zone(now))
        if start.timestamp() <= now.timestamp() < end.timestamp()
    ]
    return max(ends, default=None, key=datetime.timestamp)


def _next_opening(calendar: CalendarPolicy, now: datetime) -> datetime | None:
    at, last = now, now + HORIZON
    while at < last:
        blackout = _within(calendar.blackouts, at)
        if blackout is not None:
            at = blackout
        elif not calendar.windows or _within(calendar.windows, at):
            return at
        else:
            starts = [
                start
                for text in calendar.windows
                for start, _ in parse_span(text).spans(at.date(), _zone(at))
                if start.timestamp() > at.timestamp()
            ]
            if not starts:
                return None
            at = min(starts, key=datetime.timestamp)
    return None


def _zone(now: datetime) -> tzinfo:
    if now.tzinfo is None:
        raise ValueError("the calendar needs a time with its zone")
    return now.tzinfo
