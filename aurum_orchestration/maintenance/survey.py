"""Measures all backends at once: what is there, how it is, what the planner makes of it.

A backend that does not answer gives an entry with a problem for each of its tables that the discovery
cache knows (for ``backend."*"`` when it knows none), and never stops the others. Nothing is written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from aurum_orchestration.errors import AurumError, BackendUnavailableError, InternalError, as_aurum_error
from aurum_orchestration.fleet.table_id import TableId, literal_prefix, matches
from aurum_orchestration.maintenance.backends.base import BaseMaintenanceBackend
from aurum_orchestration.maintenance.connections import Backends
from aurum_orchestration.maintenance.findings import Finding
from aurum_orchestration.maintenance.interfaces import Decision, DiscoveredTable, PolicyLookup, TableHealth
from aurum_orchestration.maintenance.threads import in_thread

if TYPE_CHECKING:
    from aurum_orchestration.fleet import Fleet

T = TypeVar("T")
_log = logging.getLogger(__name__)

Examined = tuple[TableHealth, float, list[Decision]]
"""A table's health, its debt score and the decisions about it, the most important first."""


@dataclass
class Listing:
    """What the backends list. ``failed``: those that do not answer, by name; their ``tables`` are remembered ones."""

    tables: dict[str, list[DiscoveredTable]] = field(default_factory=dict)
    failed: dict[str, AurumError] = field(default_factory=dict)

    @property
    def unknown(self) -> frozenset[TableId]:
        """Stand-ins for all tables of a backend of which nothing is known."""
        return frozenset(_all_of(name) for name in self.failed)

    def ids(self) -> list[TableId]:
        """Ids of all tables, grouped by backend."""
        return [table.table for found in self.tables.values() for table in found]


class Surveyor:
    """Asks backends, each in a thread of its own and for at most ``patience`` per question."""

    def __init__(self, fleet: Fleet, backends: Backends, patience: timedelta) -> None:
        self._fleet, self._backends, self._patience = fleet, backends, patience

    async def listing(self, globs: Sequence[str] = (), *, described: bool = False) -> Listing:
        """The tables of every backend that one of the globs (none: all) may mean.

        ``described``: with columns, comment and location, for the discovery cache.
        """
        names = [name for name in self._backends.names if not globs or any(_may_mean(glob, name) for glob in globs)]
        answers = await self._ask_all(
            {
                name: partial(_discover if described else _names, patterns=self._fleet.backends[name].discover)
                for name in names
            }
        )
        listing = Listing()
        for name, answer in answers.items():
            if isinstance(answer, AurumError):
                listing.failed[name] = answer
                known = [table for table in self._fleet.tables() if table.table.backend == name]
                listing.tables[name] = known or [DiscoveredTable(_all_of(name), "unknown")]
            else:
                listing.tables[name] = answer
        return listing

    def select(self, globs: Sequence[str], listing: Listing) -> list[TableId]:
        """The listed tables that the globs (none: all) mean, in the listing's order.

        Raises UnknownNameError for a glob that matches nothing, unless a backend that it may mean is down.
        """
        ids = listing.ids()
        if not globs:
            return ids
        sure = [glob for glob in globs if not any(_may_mean(glob, name) for name in listing.failed)]
        chosen = set(self._fleet.select(sure, ids)) if sure else set()
        unsure = [glob for glob in globs if glob not in sure]
        return [
            table
            for table in ids
            if table in chosen or table in listing.unknown or any(matches(glob, table) for glob in unsure)
        ]

    async def measure(self, tables: Sequence[TableId], listing: Listing, policy: PolicyLookup) -> list[TableHealth]:
        """Health of the tables, in the order given."""
        by_backend: dict[str, list[TableId]] = {}
        for table in tables:
            by_backend.setdefault(table.backend, []).append(table)
        failed: dict[str, AurumError] = dict(listing.failed)
        answers = await self._ask_all(
            {
                name: partial(_measure, tables=wanted, policy=policy)
                for name, wanted in by_backend.items()
                if name not in failed
            }
        )
        measured: dict[TableId, TableHealth] = {}
        for name, answer in answers.items():
            if isinstance(answer, AurumError):
                failed[name] = answer
            else:
                measured.update((health.table, health) for health in answer)
        return [measured.get(table) or _unmeasured(table, failed.get(table.backend)) for table in tables]

    async def checkup(self, name: str) -> list[Finding]:
        """What a backend says of itself. Raises what went wrong when it does not answer."""

        def look(backend: BaseMaintenanceBackend) -> list[Finding]:
            return backend.checkup(_discover(backend, self._fleet.backends[name].discover))

        answer = await self._ask(name, look)
        if isinstance(answer, AurumError):
            raise answer
        return answer

    async def _ask_all(
        self, questions: Mapping[str, Callable[[BaseMaintenanceBackend], T]]
    ) -> dict[str, T | AurumError]:
        answers = await asyncio.gather(*(self._ask(name, question) for name, question in questions.items()))
        return dict(zip(questions, answers, strict=True))

    async def _ask(self, name: str, question: Callable[[BaseMaintenanceBackend], T]) -> T | AurumError:
        try:
            async with asyncio.timeout(self._patience.total_seconds()):
                backend = self._backends.get(name)
                await backend.connect()
                return await in_thread(question, backend)
        except TimeoutError:
            seconds = self._patience.total_seconds()
            return BackendUnavailableError(f"backend {name!r} did not answer within {seconds:g} s")
        except Exception as error:
            known = as_aurum_error(error)
            if known is not error:
                _log.error("backend %s failed", name, exc_info=error)
            return known


def _all_of(backend: str) -> TableId:
    return TableId(backend, ("*",))


def _may_mean(glob: str, backend: str) -> bool:
    """True when the glob can match a table of that backend."""
    prefix = literal_prefix(glob)
    return not prefix or prefix[0] == backend


def _discover(backend: BaseMaintenanceBackend, patterns: Sequence[str]) -> list[DiscoveredTable]:
    return backend.discover(patterns) if _lists(backend) else []


def _names(backend: BaseMaintenanceBackend, patterns: Sequence[str]) -> list[DiscoveredTable]:
    return backend.names(patterns) if _lists(backend) else []


def _lists(backend: BaseMaintenanceBackend) -> bool:
    """Whether it can list tables at all: one from somebody's package need not."""
    return type(backend).discover is not BaseMaintenanceBackend.discover


def _measure(backend: BaseMaintenanceBackend, tables: Sequence[TableId], policy: PolicyLookup) -> list[TableHealth]:
    return backend.measure(tables, policy)


def _unmeasured(table: TableId, error: AurumError | None) -> TableHealth:
    error = error or InternalError(f"backend {table.backend!r} said nothing about the table")
    return TableHealth(table, table.backend, "", datetime.now(UTC), problem=error.problem(table=str(table)))
