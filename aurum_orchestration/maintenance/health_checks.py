"""Whether what maintenance needs is there and works: the checks behind ``aurum doctor``."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from aurum_orchestration.errors import AurumError, ConfigurationError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.calendar import CALENDAR, CalendarPolicy, closed
from aurum_orchestration.maintenance.findings import Finding, HealthStatus, clock, failure, ok, warning
from aurum_orchestration.maintenance.planner.words import count
from aurum_orchestration.maintenance.shapes import Shape
from aurum_orchestration.maintenance.survey import Examined, Surveyor
from aurum_orchestration.maintenance.threads import in_thread

if TYPE_CHECKING:
    from aurum_orchestration.fleet import Fleet
    from aurum_orchestration.fleet.notifications import Destination
    from aurum_orchestration.history import History

_REMEMBERED = timedelta(days=30)
_LONG_WAIT = timedelta(minutes=15)

HELD_BACK = {
    "refused": "is needed and refused",
    "back-off": "waits after failures",
    "gains-nothing": "keeps gaining nothing",
}
"""Codes of decisions that are told, each a finding of its name: what is needed and would not be done."""


@dataclass(frozen=True, slots=True)
class HealthCheckResult:
    """What was found at one target: a backend by its name, ``history``, ``fleet`` or ``tonight``."""

    target: str
    findings: Sequence[Finding]
    seconds: float

    @property
    def status(self) -> HealthStatus:
        """The worst of the findings."""
        found = {finding.status for finding in self.findings}
        return next((status for status in reversed(HealthStatus) if status in found), HealthStatus.OK)


class HealthCheckProvider(ABC):
    """Looks at one kind of target. A failure to look is a finding, never an exception."""

    async def check_health(self, target: str) -> HealthCheckResult:
        """What is found at the target now."""
        begun = time.monotonic()
        try:
            findings = await self._findings(target)
        except AurumError as error:
            findings = [failure("reachable", error)]
        return HealthCheckResult(target, findings, time.monotonic() - begun)

    @abstractmethod
    async def _findings(self, target: str) -> list[Finding]:
        """Look. An AurumError becomes the finding ``reachable``."""


class BackendHealthProvider(HealthCheckProvider):
    """A backend of the fleet: reachable within the surveyor's patience, and what its own checkup says."""

    def __init__(self, surveyor: Surveyor) -> None:
        self._surveyor = surveyor

    async def _findings(self, target: str) -> list[Finding]:
        return await self._surveyor.checkup(target)


class HistoryHealthProvider(HealthCheckProvider):
    """The history store. Looking writes nothing."""

    def __init__(self, history: History) -> None:
        self._history = history

    async def _findings(self, target: str) -> list[Finding]:  # noqa: ARG002 - there is one
        seen = await in_thread(self._history.look)
        if seen is None:
            return [ok("reachable", "there is no history yet; the first run makes it")]
        schema = (
            ok("schema", f"the schema is the current one, {seen.revision}")
            if seen.current
            else warning("schema", f"the schema is {seen.revision}, an older one", "The next run brings it up to date.")
        )
        return [ok("reachable", f"the history answers ({seen.store})"), schema, clock(seen.clock, "the history store")]


class NotificationHealthProvider(HealthCheckProvider):
    """Who would be told, and what could not be told. Sends nothing."""

    def __init__(self, history: History, destinations: Sequence[Destination]) -> None:
        self._history, self._destinations = history, destinations

    async def _findings(self, target: str) -> list[Finding]:  # noqa: ARG002 - there is one
        return await in_thread(self._look)

    def _look(self) -> list[Finding]:
        from aurum_orchestration.notifications.sending import understood

        unclear = [one.name for one in self._destinations if not understood(one.url.get_secret_value())]
        findings = [
            failure(
                "urls",
                ConfigurationError(
                    f"apprise does not understand the URL of {', '.join(unclear)}",
                    hint="Rule and position of the URL in fleet.yaml; see docs/notifications.md.",
                ),
            )
            if unclear
            else ok("urls", f"{len(self._destinations):,} destinations, all understood")
        ]
        names = [one.name for one in self._destinations]
        box = self._history.outbox(names, datetime.now(UTC) - _REMEMBERED)
        why = f": {box.error}" if box.error else ""
        if box.given_up:
            findings.append(
                warning(
                    "given up",
                    f"{box.given_up:,} notices of the last {_REMEMBERED.days} days were never sent{why}",
                    "Mend the URL or the receiver; what the notices were about is in aurum history.",
                )
            )
        if box.strangers:
            findings.append(
                warning(
                    "strangers",
                    f"notices wait for {', '.join(box.strangers)}, which this fleet.yaml does not have",
                    "Give the rule its old name back, or let the other fleet that shares the history send them.",
                )
            )
        if box.oldest is not None and datetime.now(UTC) - box.oldest > _LONG_WAIT:
            findings.append(
                warning(
                    "waiting",
                    f"{box.waiting:,} notices wait, the oldest since {box.oldest:%Y-%m-%d %H:%M} UTC{why}",
                    "They are sent after the next run, or by the sensor `notifications` once it is switched on.",
                )
            )
        else:
            findings.append(ok("waiting", f"{box.waiting:,} notices wait to be sent"))
        return findings


class FleetHealthProvider(HealthCheckProvider):
    """What fleet.yaml says, taken together with the tables that are known."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def _findings(self, target: str) -> list[Finding]:  # noqa: ARG002 - there is one
        return await in_thread(self._look)

    def _look(self) -> list[Finding]:
        fleet = self._fleet
        tables = [found.table for found in fleet.tables()]
        where = fleet.path or "no fleet file: one backend from AURUM_DATA_BACKEND_*"
        known = f"{count(len(fleet.backends), 'backend')}, {count(len(tables), 'table')} known"
        findings = [ok("file", f"{where}; {known}")]
        if not tables:
            findings.append(warning("tables", "no table is known yet", "aurum discover"))
        shut = [table for table in tables if _never_opens(fleet, table)]
        if shut:
            findings.append(
                warning(
                    "calendar",
                    f"the calendar of {_some(shut)} never lets work start",
                    f"See where it comes from: aurum explain {shut[0]}",
                )
            )
        return findings


def _never_opens(fleet: Fleet, table: TableId) -> bool:
    calendar = fleet.policy(table, CALENDAR)
    shut = closed(calendar, datetime.now(fleet.zone)) if isinstance(calendar, CalendarPolicy) else None
    return shut is not None and shut.opens is None


class PlannerHealthProvider(HealthCheckProvider):
    """What would fail, or be left undone, if the planner started everything it wants now."""

    def __init__(self, examine: Callable[[], Awaitable[list[Examined]]]) -> None:
        self._examine = examine

    async def _findings(self, target: str) -> list[Finding]:  # noqa: ARG002 - there is one
        return tonight(await self._examine())


def tonight(examined: Sequence[Examined]) -> list[Finding]:
    """The findings about tables that were looked at."""
    unmeasured = [health.table for health, _, _ in examined if health.problem is not None]
    findings = [
        Finding(
            check="measured",
            status=HealthStatus.FAILED,
            detail=f"{_some(unmeasured)} could not be measured",
            hint="aurum status tells why.",
        )
        if unmeasured
        else ok("measured", f"{count(len(examined), 'table')} measured")
    ]
    decisions = [decision for _, _, found in examined for decision in found]
    for code, told in HELD_BACK.items():
        held: dict[str, list[TableId]] = {}
        for decision in decisions:
            if decision.code == code and (code != "refused" or decision.gain.files):
                held.setdefault(decision.operation, []).append(decision.table)
        for operation, tables in held.items():
            findings.append(
                warning(code, f"{operation} of {_some(tables)} {told}", f"See why: aurum explain {tables[0]}")
            )
    wanted = sum(decision.act for decision in decisions)
    findings.append(ok("planned", f"{count(wanted, 'operation')} would start now; see them with: aurum plan"))
    return findings


def _some(tables: Sequence[TableId]) -> str:
    return str(tables[0]) if len(tables) == 1 else f"{len(tables):,} tables (first {tables[0]})"


class TargetReport(BaseModel):
    """One target as ``aurum doctor`` prints it."""

    target: str
    status: HealthStatus
    seconds: float
    findings: list[Finding]

    @classmethod
    def of(cls, result: HealthCheckResult) -> TargetReport:
        """The shape of a result."""
        return cls(
            target=result.target,
            status=result.status,
            seconds=round(result.seconds, 3),
            findings=list(result.findings),
        )


class DoctorReport(Shape):
    """What ``aurum doctor`` prints."""

    healthy: bool = Field(description="True when no check failed; warnings do not count.")
    targets: list[TargetReport]

    @classmethod
    def of(cls, results: Sequence[HealthCheckResult]) -> DoctorReport:
        """The shape of all results."""
        return cls(
            healthy=all(result.status is not HealthStatus.FAILED for result in results),
            targets=[TargetReport.of(result) for result in results],
        )
