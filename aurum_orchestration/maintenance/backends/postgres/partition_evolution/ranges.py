"""The next ranges of a table that is partitioned by time: as wide as its newest ones, and named like them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.maintenance.backends.postgres.partitions import Partition

FORMATS = ("%Y_%m_%d", "%Y%m%d", "%Y_%m", "%Y%m", "%Y", "%Y-%m-%d", "%Y-%m")
"""How the newest partition's name may end; the first that fits names the new ones."""

_LONGEST_NAME = 63


@dataclass(frozen=True, slots=True)
class Step:
    """How wide a range is: whole months, or a fixed time."""

    months: int = 0
    width: timedelta = timedelta(0)

    def after(self, start: datetime) -> datetime:
        """The end of a range that begins at a wall-clock time."""
        if not self.months:
            return start + self.width
        month = start.month - 1 + self.months
        return start.replace(year=start.year + month // 12, month=month % 12 + 1)

    def before(self, end: datetime) -> datetime:
        """The start of a range that ends at a wall-clock time."""
        return Step(-self.months, -self.width).after(end)

    def __str__(self) -> str:
        return f"{self.months} months" if self.months else str(self.width)


@dataclass(frozen=True, slots=True)
class Range:
    """A range of wall-clock times in the zone of the partitions, and the name of its partition."""

    name: str
    lower: datetime
    upper: datetime


class Ranges:
    """The ranges of a table, from its partitions. ``base``: type of the key; ``time_zone``: where they begin.

    Raises UnsupportedError when no partition has two bounds.
    """

    def __init__(self, table: str, parts: Sequence[Partition], base: str, time_zone: str) -> None:
        self._table, self._base, self._zone = table, base, ZoneInfo(time_zone)
        bounded = [one for one in parts if one.lower is not None and one.upper is not None]
        if not bounded:
            raise UnsupportedError(
                f"{table} has no partition with two bounds, so nothing says how wide a new one is",
                hint="Make the first one by hand.",
            )
        self._taken = [(self.wall(one.lower), self.wall(one.upper)) for one in bounded]
        self._open = any(one.upper is None and not one.default for one in parts)
        self._names = {one.name for one in parts}
        last = bounded[-1]
        self.first, self.end = self.wall(last.lower), max(upper for _, upper in self._taken)
        self.step = _step(self.first, self.wall(last.upper))
        self._prefix, self._format = _pattern(table, last.name, self.first)

    @property
    def open_ended(self) -> bool:
        """Whether a partition reaches up to MAXVALUE: nothing can be made after it."""
        return self._open

    def wall(self, bound: object) -> datetime:
        """A bound as wall-clock time of the zone."""
        if isinstance(bound, datetime):
            return bound.astimezone(self._zone).replace(tzinfo=None, fold=0) if bound.tzinfo else bound
        if isinstance(bound, date):
            return datetime(bound.year, bound.month, bound.day)  # noqa: DTZ001 - wall-clock time
        raise UnsupportedError(f"{self._table} is not partitioned by time")

    def bound(self, wall: datetime) -> str:
        """A wall-clock time as a bound of the key's type."""
        match self._base:
            case "timestamptz":
                return wall.replace(tzinfo=self._zone).astimezone(UTC).isoformat(" ")
            case "date":
                return wall.date().isoformat()
        return wall.isoformat(" ")

    def parsed(self, bound: str) -> datetime:
        """The wall-clock time of what :meth:`bound` wrote."""
        return self.wall(datetime.fromisoformat(bound))

    def ahead(self, now: datetime, number: int) -> Iterator[Range]:
        """The ranges that are missing so that there are ``number`` after the one with the present in it."""
        wanted = self.step.after(self.wall(now))
        for _ in range(max(0, number - 1)):
            wanted = self.step.after(wanted)
        start = self.end
        while start < wanted if number else False:
            yield self._range(start, self.step.after(start))
            start = self.step.after(start)

    def around(self, moment: datetime) -> Range | None:
        """The free range with a wall-clock time in it; None where a partition is in the way."""
        lower = self.first
        while lower > moment:
            lower = self.step.before(lower)
        while self.step.after(lower) <= moment:
            lower = self.step.after(lower)
        upper = self.step.after(lower)
        free = all(upper <= low or lower >= high for low, high in self._taken)
        return self._range(lower, upper) if free else None

    def _range(self, lower: datetime, upper: datetime) -> Range:
        name = f"{self._prefix}{lower.strftime(self._format)}"
        if len(name.encode()) > _LONGEST_NAME or name in self._names:
            raise UnsupportedError(f"no name for the partition from {lower}: {name!r} is taken or too long")
        return Range(name, lower, upper)


def _step(lower: datetime, upper: datetime) -> Step:
    midnight = lower.time() == upper.time() == datetime.min.time()
    if midnight and lower.day == upper.day == 1:
        return Step(months=(upper.year - lower.year) * 12 + upper.month - lower.month)
    return Step(width=upper - lower)


def _pattern(table: str, name: str, lower: datetime) -> tuple[str, str]:
    for form in FORMATS:
        told = lower.strftime(form)
        if name.endswith(told):
            return name.removesuffix(told), form
    whole_days = lower.time() == datetime.min.time()
    return f"{table}_p", "%Y%m%d" if whole_days else "%Y%m%d_%H%M%S"
