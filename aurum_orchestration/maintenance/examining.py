"""What is there and how it is: listing, measuring, deciding. Changes no table."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from pydantic import BaseModel

from aurum_orchestration.errors import (
    AurumError,
    HistoryError,
    RequestError,
    UnknownNameError,
    UnsupportedError,
)
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.calendar import night_began
from aurum_orchestration.maintenance.checks import CheckName, Verdict, all_verdicts, last_completed
from aurum_orchestration.maintenance.connected import ConnectedService
from aurum_orchestration.maintenance.database_report import DatabaseInspector, DatabaseReport, FleetReport
from aurum_orchestration.maintenance.explanation import TableExplanation, explain
from aurum_orchestration.maintenance.factory import MaintenanceFactory
from aurum_orchestration.maintenance.health_checks import (
    BackendHealthProvider,
    FleetHealthProvider,
    HealthCheckProvider,
    HealthCheckResult,
    HistoryHealthProvider,
    NotificationHealthProvider,
    PlannerHealthProvider,
)
from aurum_orchestration.maintenance.interfaces import (
    DiscoveredTable,
    OperationType,
    PolicyLookup,
)
from aurum_orchestration.maintenance.operations.base import BaseMaintenanceOperation
from aurum_orchestration.maintenance.planner.debt import debt_score
from aurum_orchestration.maintenance.planner.decide import decide
from aurum_orchestration.maintenance.planner.facts import RunFacts
from aurum_orchestration.maintenance.planner.rank import NO_BUDGET, Budget, Spent
from aurum_orchestration.maintenance.planner.triggers import TRIGGERS
from aurum_orchestration.maintenance.shapes import TableStatus
from aurum_orchestration.maintenance.sharing import Shared
from aurum_orchestration.maintenance.survey import Examined, Listing, Surveyor
from aurum_orchestration.maintenance.threads import in_thread, run_sync
from aurum_orchestration.maintenance.utils import ALL, SQL, MaintenanceUtils

_log = logging.getLogger(__name__)

_NO_FACTS = "decisions are made without the history (no cooldown, no back-off)"

FailureHook = Callable[[str, AurumError], None]
"""Called with the name of a backend that does not answer and what went wrong."""


def _log_failure(backend: str, error: AurumError) -> None:
    _log.warning("backend %s lists no tables: %s", backend, error)


class ExaminingService(ConnectedService):
    """The part of a service that looks at tables."""

    async def discover(self, on_failure: FailureHook | None = None) -> list[DiscoveredTable]:
        """List the tables of every backend and remember them, so that they are known while a backend is down.

        A backend that does not answer is told to ``on_failure`` (none: logged), and contributes what is
        remembered of it.
        """
        listing = await self._surveyor().listing(described=True)
        return await self._remembered(listing, on_failure or _log_failure)

    async def tables(self, globs: Sequence[str] = ()) -> list[TableId]:
        """Ids of the tables that the globs (none: all) mean, as the backends list them now.

        Raises UnknownNameError for a glob that matches nothing, and what went wrong when nothing is known
        because a backend does not answer.
        """
        surveyor = self._surveyor()
        listing = await surveyor.listing(globs)
        known = [table for table in surveyor.select(globs, listing) if table not in listing.unknown]
        if not known and listing.failed:
            raise next(iter(listing.failed.values()))
        return known

    async def health(self, tables: Sequence[str] = (), operations: Sequence[str] | None = None) -> list[Examined]:
        """(health, debt score, decisions) of each table that the globs (none: all) mean; writes nothing.

        Plain data, for thousands of tables. A table that cannot be measured has a problem and stops no other.
        Raises UnknownNameError for an operation that nobody knows.
        """
        self._operations(operations or ())
        return await self._examine(tables, operations, self.fleet.policy)

    async def status(self, tables: Sequence[str] = (), operations: Sequence[str] = ()) -> list[TableStatus]:
        """What ``aurum status`` prints: :meth:`health` as shapes."""
        return [TableStatus.of(*one) for one in await self.health(tables, [str(name) for name in operations] or None)]

    async def check(self, examined: Sequence[Examined], wanted: Mapping[TableId, Sequence[CheckName]]) -> list[Verdict]:
        """The wanted checks of tables that :meth:`health` looked at, with one question to the history for all."""
        completed: Mapping[TableId, datetime] | None = {}
        recent = [health.table for health, _, _ in examined if "maintenance_recency" in wanted.get(health.table, ())]
        if recent:
            facts = await self._facts(recent, "when tables were maintained last is not known")
            completed = None if facts is None else last_completed(facts)
        return await in_thread(all_verdicts, examined, wanted, self.fleet.policy, completed, datetime.now(UTC))

    def backends_with(self, operation: str) -> list[str]:
        """Names of the backends that have the operation; one that cannot be made has none. Connects nothing."""
        having = []
        for name in self.backends.names:
            with contextlib.suppress(AurumError):
                if operation in map(str, self.backends.get(name).supported_operations):
                    having.append(name)
        return having

    def enabled_anywhere(self, operation: str) -> bool:
        """Whether the policy of some known table leaves the operation enabled; True when no table is known."""
        policies = (self._policy(found.table, operation) for found in self.fleet.tables())
        said = [getattr(policy, "enabled", True) for policy in policies]
        return not said or any(said)

    async def night_budget(self, backend: str) -> Budget:
        """What the planner may still start on a backend tonight: its caps, and what was spent since noon."""
        caps = self.fleet.backends[backend].budget
        if caps.tables is caps.gib is caps.minutes is None:
            return NO_BUDGET
        try:
            spent = await in_thread(self.history.spent, backend, night_began(datetime.now(self.fleet.zone)))
        except HistoryError as error:
            _log.warning("the budget of %s is taken as unspent, the history does not answer: %s", backend, error)
            spent = Spent()
        return replace(Budget.of(caps.tables, caps.minutes, caps.gib), spent=spent, name="night's budget")

    async def explain(self, table: str) -> TableExplanation:
        """What holds for one table, where each value comes from, and what the planner makes of it now.

        Raises UnknownNameError for a table nobody lists, RequestError for a glob that means several.
        """
        examined = await self.health([table])
        if len(examined) != 1:
            raise RequestError(f"{table!r} means {len(examined):,} tables", hint="explain takes the id of one table.")
        backend = self.backends.get(examined[0][0].backend)
        own_code = (name for name, operation in MaintenanceFactory.operations().items() if not operation.planned)
        operations = dict.fromkeys([*map(str, backend.supported_operations), *own_code])
        return explain(self.fleet, examined[0], list(operations), datetime.now(self.fleet.zone))

    async def doctor(self) -> list[HealthCheckResult]:
        """Whether everything that maintenance needs is there: fleet, history, each backend, and what is due now."""
        surveyor, notified = self._surveyor(), bool(self.fleet.config.notifications)
        providers: dict[str, HealthCheckProvider] = {
            "fleet": FleetHealthProvider(self.fleet),
            "history": HistoryHealthProvider(self.history),
            **{name: BackendHealthProvider(surveyor) for name in self.backends.names},
            "tonight": PlannerHealthProvider(self.health),
            **({"notifications": NotificationHealthProvider(self.history, self._destinations())} if notified else {}),
        }
        return await asyncio.gather(*(provider.check_health(target) for target, provider in providers.items()))

    def database(self, backend: str) -> MaintenanceUtils:
        """Insight into the database of a backend, as plain calls; nothing is connected before the first.

        Raises UnknownNameError; the calls raise UnsupportedError where the backend is no database.
        """
        found = self.backends.find(backend, "")
        supported = {*map(str, found.supported_operations)} - {*found.refusals}
        operations = [name for name in ALL if name in supported]

        def connected() -> DatabaseInspector:
            run_sync(found.connect())  # so that closing the service closes it
            return found.inspector()

        return MaintenanceUtils(found.name, connected, operations, lambda: self.history)

    async def report(self, backends: Sequence[str] = ()) -> FleetReport:
        """What ``aurum report`` prints, of each database or of these backends. One that fails has a problem."""
        configs = self.fleet.backends
        names = [self.backends.find(name, "").name for name in backends] or [
            name for name in configs if configs[name].type in SQL
        ]
        return FleetReport(databases=await asyncio.gather(*(in_thread(self._reported, name) for name in names)))

    def _reported(self, backend: str) -> DatabaseReport:
        try:
            return self.database(backend).get_maintenance_report()
        except AurumError as error:
            return DatabaseReport(backend=backend, problem=error.problem())

    async def _nights(self, backends: Collection[str]) -> Mapping[str, Budget]:
        return {name: await self.night_budget(name) for name in backends if name in self.fleet.backends}

    def _surveyor(self) -> Surveyor:
        return Surveyor(self.fleet, self.backends, self._patience)

    async def _examine(
        self,
        globs: Sequence[str],
        operations: Sequence[str] | None,
        policy: PolicyLookup,
        *,
        remember: bool = False,
        shared: Shared | None = None,
    ) -> list[Examined]:
        shared = shared or Shared(policy, plain=True)
        surveyor, asked = self._surveyor(), tuple(globs)
        listing = shared.listings.get(asked)
        if listing is None:
            listing = await surveyor.listing(globs, described=remember)
            if remember:
                await self._remembered(listing, _log_failure)
            if not listing.failed:
                shared.listings[asked] = listing
        chosen = surveyor.select(globs, listing)
        news = await surveyor.measure(shared.missing(chosen), listing, policy)
        shared.learn(news)
        measured = shared.all_of(chosen, news)
        facts = await self._facts(chosen if globs else None, _NO_FACTS) or {}

        def judge() -> list[Examined]:
            now = datetime.now(self.fleet.zone)
            considered = {
                name: operations or self._planned_on(name) for name in {one.table.backend for one in measured}
            }
            return [
                (one, debt_score(one), decide(one, policy, facts, now, considered[one.table.backend]))
                for one in measured
            ]

        return await in_thread(judge)

    def _planned_on(self, backend: str) -> list[str] | None:
        """The operations that the planner may start on a backend; None for all, where none is known."""
        try:
            supported = set(map(str, self.backends.get(backend).supported_operations))
        except AurumError:
            return None
        return [operation for operation in TRIGGERS if operation in supported] or None

    async def _remembered(self, listing: Listing, on_failure: FailureHook) -> list[DiscoveredTable]:
        found: list[DiscoveredTable] = []
        for name, tables in listing.tables.items():
            if name in listing.failed:
                on_failure(name, listing.failed[name])
            else:
                await in_thread(self.fleet.remember, name, tables)
            found.extend(table for table in tables if table.table not in listing.unknown)
        return found

    async def _facts(self, tables: Sequence[TableId] | None, without: str) -> Mapping[tuple[str, str], RunFacts] | None:
        """What the history knows of the tables (None: all); where it does not answer None, and the warning is given."""
        try:
            return await in_thread(self.history.facts, tables)
        except HistoryError as error:
            _log.warning("%s: %s", without, error)
            return None

    def _operations(self, names: Sequence[OperationType | str]) -> dict[str, BaseMaintenanceOperation]:
        """Those that are implemented; the others are answered as skipped. Raises UnknownNameError."""
        known: dict[str, BaseMaintenanceOperation] = {}
        for name in names:
            with contextlib.suppress(UnsupportedError):
                known[str(name)] = MaintenanceFactory.create_operation(name)
        return known

    def _policy(self, table: TableId, operation: str) -> BaseModel | None:
        try:
            return self.fleet.policy(table, operation)
        except UnknownNameError:  # registered after the fleet was read: it has no section in there
            return None
