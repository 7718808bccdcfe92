"""Maintenance windows and blackouts: what is inside, when it opens, also when the clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from aurum_orchestration.maintenance.calendar import CalendarPolicy, closed, parse_span

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: ZoneInfo = BERLIN) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone)


@pytest.mark.parametrize(
    ("window", "inside", "outside"),
    [
        ("22:00-06:00", ["2026-11-18T22:00", "2026-11-18T05:59", "2026-11-19T00:00"], ["2026-11-18T06:00"]),
        # the night of Friday belongs to Friday: its early hours are Saturday's
        ("Mon-Fri 22:00-06:00", ["2026-11-21T05:00", "2026-11-16T23:00"], ["2026-11-21T22:30", "2026-11-16T05:00"]),
        ("sat,Sun 00:00-24:00", ["2026-11-21T00:00", "2026-11-22T23:59"], ["2026-11-23T00:00", "2026-11-20T23:59"]),
        ("Sat-Mon 01:00-02:00", ["2026-11-21T01:30", "2026-11-23T01:00"], ["2026-11-24T01:00"]),
        ("2026-12-24/2026-12-27", ["2026-12-24T00:00", "2026-12-26T23:59"], ["2026-12-27T00:00", "2026-12-23T12:00"]),
        ("2026-12-24T18:00/2026-12-24T20:00", ["2026-12-24T19:00"], ["2026-12-24T17:59", "2026-12-24T20:00"]),
    ],
)
def test_a_window_is_open_inside_and_its_blackout_is_closed(window: str, inside: list[str], outside: list[str]) -> None:
    for moment in inside:
        assert closed(CalendarPolicy(windows=(window,)), at(moment)) is None, moment
        shut = closed(CalendarPolicy(blackouts=(window,)), at(moment))
        assert shut is not None, moment
        assert shut.code == "blackout"
    for moment in outside:
        shut = closed(CalendarPolicy(windows=(window,)), at(moment))
        assert shut is not None, moment
        assert shut.code == "window"
        assert closed(CalendarPolicy(blackouts=(window,)), at(moment)) is None, moment


def test_the_next_opening_passes_over_blackouts() -> None:
    calendar = CalendarPolicy(windows=("Sat 22:00-23:00",), blackouts=("2026-11-20/2026-11-29",))
    shut = closed(calendar, at("2026-11-18T12:00"))
    assert shut is not None
    assert shut.opens == at("2026-12-05T22:00")


def test_a_blackout_that_ends_within_a_window_opens_it_then() -> None:
    calendar = CalendarPolicy(windows=("20:00-24:00",), blackouts=("19:00-21:30",))
    shut = closed(calendar, at("2026-11-18T12:00"))
    assert shut is not None
    assert shut.opens == at("2026-11-18T21:30")


def test_what_never_opens_says_so() -> None:
    for calendar in (
        CalendarPolicy(windows=("2020-01-01/2020-01-02",)),
        CalendarPolicy(blackouts=("00:00-24:00",)),
    ):
        shut = closed(calendar, at("2026-11-18T12:00"))
        assert shut is not None
        assert shut.opens is None


def test_a_window_follows_the_wall_clock_when_the_clocks_change() -> None:
    calendar = CalendarPolicy(windows=("22:00-06:00",))
    # 2026-10-25: at 03:00 summer time it is 02:00 again, so 06:00 comes an hour later
    assert closed(calendar, datetime(2026, 10, 25, 4, 30, tzinfo=UTC).astimezone(BERLIN)) is None
    assert closed(calendar, datetime(2026, 10, 25, 5, 0, tzinfo=UTC).astimezone(BERLIN)) is not None
    # the same hours in UTC mean something else
    assert closed(calendar, datetime(2026, 7, 1, 21, 0, tzinfo=UTC)) is not None
    assert closed(calendar, datetime(2026, 7, 1, 21, 0, tzinfo=UTC).astimezone(BERLIN)) is None


@pytest.mark.parametrize(
    "text", ["", "22-06", "25:00-26:00", "Mo 22:00-06:00", "10:00-10:00", "2026-12-27/2026-12-24", "x/y", "2026-12-24"]
)
def test_what_is_no_span_is_refused_with_how_to_write_it(text: str) -> None:
    with pytest.raises(ValidationError, match="windows"):
        CalendarPolicy(windows=(text,))


@given(
    now=st.datetimes(datetime(2025, 1, 1), datetime(2027, 12, 31), timezones=st.just(BERLIN)),  # noqa: DTZ001
    windows=st.lists(st.sampled_from(["22:00-06:00", "Sat,Sun 00:00-24:00", "Tue 12:00-12:30"]), max_size=2),
    blackouts=st.lists(st.sampled_from(["08:00-23:00", "Mon-Wed 20:00-03:00", "2026-03-01/2026-04-02"]), max_size=2),
)
def test_nothing_opens_before_the_next_opening_and_it_is_open_then(
    now: datetime, windows: list[str], blackouts: list[str]
) -> None:
    calendar = CalendarPolicy(windows=tuple(windows), blackouts=tuple(blackouts))
    shut = closed(calendar, now)
    if shut is None or shut.opens is None:
        return
    assert closed(calendar, shut.opens) is None
    wait = shut.opens.timestamp() - now.timestamp()
    for part in range(1, 8):
        between = datetime.fromtimestamp(now.timestamp() + wait * part / 8, BERLIN)
        assert closed(calendar, between - timedelta(seconds=1)) is not None or between.timestamp() <= now.timestamp()


def test_a_span_is_parsed_once() -> None:
    assert parse_span("22:00-06:00") is parse_span("22:00-06:00")
