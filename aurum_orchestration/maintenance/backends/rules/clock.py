"""Before which value of a time column a row is old for sure, whatever the column's type."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from aurum_orchestration.errors import RequestError


def cutoff(now: datetime, days: float) -> datetime:
    """The moment before which rows are old; ``now`` is aware. Raises RequestError when there is no such moment."""
    try:
        return now.astimezone(UTC) - timedelta(days=days)
    except OverflowError as error:
        raise RequestError(f"{days:g} days ago is no date") from error


def local_cutoff(moment: datetime, time_zone: str) -> datetime:
    """The wall-clock time before which every row is old: in the hour that is there twice, the earlier one."""
    local = moment.astimezone(ZoneInfo(time_zone))
    first, second = local.replace(fold=0).utcoffset(), local.replace(fold=1).utcoffset()
    wall = local.replace(tzinfo=None, fold=0)
    if local.fold == 0 and first is not None and second is not None and first > second:
        # times just before this one come a second time later on, and would be younger then
        return wall - (first - second)
    return wall


def date_cutoff(moment: datetime, time_zone: str) -> date:
    """The date before which every row is old: a date lasts until it ends in the zone."""
    return local_cutoff(moment, time_zone).date()
