"""The maintenance of a fleet, as one asynchronous API. Both edges, Dagster and the command, use nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ValidationError

from aurum_orchestration.errors import (
    AurumError,
    HistoryError,
    RequestError,
    UnknownNameError,
    UnsupportedError,
    nearest,
)
from aurum_orchestration.fleet.notifications import Destination, destinations
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.history.records import GROUP_WAITS, Notices
from aurum_orchestration.maintenance.batch import Request, as_they_end
from aurum_orchestration.maintenance.calendar import night_began
from aurum_orchestration.maintenance.checks import CheckName, Verdict, all_verdicts, last_completed
from aurum_orchestration.maintenance.connections import Backends
from aurum_orchestration.maintenance.executor import MaintenanceExecutor, ResultHook, default_holder
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
    Decision,
    DiscoveredTable,
    MaintenanceConfig,
    MaintenanceResult,
    MaintenanceStatus,
    OperationType,
    PolicyLookup,
)
from aurum_orchestration.maintenance.operations.base import BaseMaintenanceOperation
from aurum_orchestration.maintenance.operations.undo import UNDO, UndoOperation
from aurum_orchestration.maintenance.planner.debt import debt_score
from aurum_orchestration.maintenance.planner.decide import decide
from aurum_orchestration.maintenance.planner.facts import RunFacts
from aurum_orchestration.maintenance.planner.rank import NO_BUDGET, Budget, Spent
from aurum_orchestration.maintenance.planner.triggers import TRIGGERS
from aurum_orchestration.maintenance.rounds import Respect, choose, judge, overriding
from aurum_orchestration.maintenance.running import ProgressHook
from aurum_orchestration.maintenance.shapes import TableStatus
from aurum_orchestration.maintenance.survey import Examined, Listing, Surveyor
from aurum_orchestration.maintenance.threads import in_thread
from aurum_orchestration.notifications.notices import FailedRun, Telling, of_run
from aurum_orchestration.notifications.notifier import Flushed, Notifier

if TYPE_CHECKING:
    from aurum_orchestration.fleet import Fleet
    from aurum_orchestration.history import History
    from aurum_orchestration.settings import AurumSettings

_log = logging.getLogger(__name__)

_NO_FACTS = "decisions are made without the history (no cooldown, no back-off)"

FailureHook = Callable[[str, AurumError], None]
"""Called with the name of a backend that does not answer and what went wrong."""


def _log_failure(backend: str, error: AurumError) -> None:
    _log.warning("backend %s lists no tables: %s", backend, error)


class MaintenanceService:
    """Keeps the tables of a fleet healthy.

    Without arguments everything comes from the environment (:class:`AurumSettings`). Nothing is read or
    connected before first use. Use it as an asynchronous context manager, or call :meth:`close`.
    """

    def __init__(
        self,
        settings: AurumSettings | None = None,
        *,
        fleet: Fleet | None = None,
        history: History | None = None,
        who: str | None = None,
        patience: timedelta = timedelta(seconds=60),
    ) -> None:
        from aurum_orchestration.settings import AurumSettings

        self.settings = settings or AurumSettings.from_env()
        self._fleet, self._history, self._own_history = fleet, history, history is None
        self._patience = patience
        self._who = who
        self._backends: Backends | None = None
        self._making = threading.RLock()

    @property
    def fleet(self) -> Fleet:
        """Backends, policies and rules; read from the fleet file when first asked for."""
        with self._making:
            if self._fleet is None:
                from aurum_orchestration.fleet.load import load_fleet
                from aurum_orchestration.fleet.policy import builtin_policy_models

                models = {**builtin_policy_models(), **MaintenanceFactory.policies()}
                self._fleet = load_fleet(
                    settings=self.settings, policy_models=models, backend_types=MaintenanceFactory.backends()
                )
            return self._fleet

    @property
    def history(self) -> History:
        """Log of operations, leases, health series. Opened by its first use, not before."""
        with self._making:
            if self._history is None:
                from aurum_orchestration.history import History

                self._history = History(self.settings.history_url)
            return self._history

    @property
    def backends(self) -> Backends:
        """The backends of the fleet."""
        with self._making:
            if self._backends is None:
                self._backends = Backends(self.fleet.backends)
            return self._backends

    async def connect(self) -> None:
        """Connect every backend now. Not needed: each connects when first used."""
        for name in self.backends.names:
            await self.backends.get(name).connect()

    async def disconnect(self) -> None:
        """Disconnect every backend; one that is used again connects again. Idempotent."""
        if self._backends is not None:
            await self._backends.close()

    async def close(self) -> None:
        """Disconnect, and close the history unless it was given. Idempotent."""
        try:
            await self.disconnect()
        finally:
            if self._history is not None and self._own_history:
                await in_thread(self._history.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- what a person asks for

    async def execute_maintenance(
        self,
        backend_type: str | None,
        operation_type: OperationType | str,
        target_table: str,
        dry_run: bool = False,
        parameters: Mapping[str, Any] | None = None,
        *,
        on_result: ResultHook | None = None,
        progress: ProgressHook | None = None,
    ) -> MaintenanceResult:
        """Do one operation to one table now, whatever the planner thinks of it.

        ``backend_type``: a backend's name, a type that only one backend has, or None (the table id's
        first part). What goes wrong is in the result. Raises RequestError or UnknownNameError for a
        request that cannot be understood.
        """
        given = {
            "backend_type": backend_type,
            "operation_type": operation_type,
            "target_table": target_table,
            "dry_run": dry_run,
            "parameters": dict(parameters or {}),
        }
        results = await self._carry_out([self._understood(given)], on_result, progress)
        return results[0]

    async def execute_batch_maintenance(
        self, operations: Sequence[MaintenanceConfig | Mapping[str, Any]]
    ) -> list[MaintenanceResult]:
        """Do many operations, some at a time per backend; results in the order asked, failures among them.

        Several operations on one table run one after the other, in the order asked. Raises RequestError
        or UnknownNameError before anything is started when one request cannot be understood.
        """
        return await self._carry_out(self._understood_all(operations))

    async def stream_batch_maintenance(
        self, operations: Sequence[MaintenanceConfig | Mapping[str, Any]]
    ) -> AsyncGenerator[MaintenanceResult, None]:
        """As :meth:`execute_batch_maintenance`, but results come as they end. Leaving early cancels the rest."""
        requests = self._understood_all(operations)
        async with self.telling() as telling:
            carry = partial(self._carry, progress=None, telling=telling)
            async with aclosing(as_they_end(requests, carry, self.backends.gate)) as ended:
                async for _, result in ended:
                    yield result

    async def undo(
        self,
        operation_id: str,
        dry_run: bool = False,
        *,
        on_result: ResultHook | None = None,
        progress: ProgressHook | None = None,
    ) -> MaintenanceResult:
        """Take back a recorded operation; recorded itself as the operation ``undo``.

        What goes wrong is in the result: a refusal has the problem ``undo-refused`` and says what was
        committed since. Raises UnknownNameError for an id that the history does not have.
        """
        recorded = await in_thread(self.history.operation, operation_id)
        if recorded is None:
            raise UnknownNameError(
                f"the history has no operation {operation_id!r}", hint="`aurum history --output json` prints the ids."
            )
        config = MaintenanceConfig(
            operation_type=UNDO,
            target_table=recorded.config.target_table,
            backend_type=recorded.backend,
            dry_run=dry_run,
            parameters={"operation_id": operation_id},
        )
        request = Request(config, self.backends.get(recorded.backend), UndoOperation(recorded))
        return (await self._carry_out([request], on_result, progress))[0]

    # --- what is there and how it is

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

    async def maintain(
        self,
        tables: Sequence[str] = (),
        operations: Sequence[str] = (),
        dry_run: bool = False,
        parameters: Mapping[str, Any] | None = None,
        *,
        respect: Respect | None = None,
        budget: Budget | None = None,
        on_result: ResultHook | None = None,
        progress: ProgressHook | None = None,
        telling: Telling | None = None,
    ) -> list[MaintenanceResult]:
        """One round over the tables that the globs (none: all) mean: what ``aurum run`` does.

        Without ``operations`` it follows the planner's decisions, cooldown included. With them it passes
        over cooldown, windows, the nights' budgets and ``enabled: false``, but not over thresholds: nothing
        to do is ``skipped``. ``respect`` says otherwise: a schedule's round passes over cooldown alone, a
        sensor's over nothing. ``parameters`` go before the policies'. ``budget`` caps the round. Results:
        what was done, best first, then what was skipped, then what could not be measured (``failed``).
        When cancelled, what runs ends as ``cancelled``, told to ``on_result``. ``telling``: what
        is to be told is part of more than this round, see :meth:`telling`.
        """
        named = list(dict.fromkeys(map(str, operations)))
        given = dict(parameters or {})
        respect = respect or (Respect.NOTHING if named else Respect.DECISIONS)
        asked = respect is Respect.NOTHING
        policy = overriding(self.fleet.policy, self._operations(named or list(TRIGGERS)), given, enable=asked)
        examined = await self._examine(tables, named or None, policy, remember=not dry_run)

        def request(decision: Decision) -> MaintenanceConfig:
            return MaintenanceConfig(
                operation_type=decision.operation,
                target_table=str(decision.table),
                backend_type=decision.table.backend,
                dry_run=dry_run,
                parameters=given,
            )

        nights = {} if asked else await self._nights({health.backend for health, _, _ in examined})
        judged = judge(respect, policy, datetime.now(self.fleet.zone))
        chosen = choose(examined, named=bool(named), judged=judged, budget=budget, request=request, nights=nights)
        requests = [self._understood(request(one)) for one in chosen.to_do]
        async with contextlib.nullcontext(telling) if telling else self.telling(dry_run=dry_run) as group:
            done = await self._carry_out(requests, on_result, progress, group)
            if group is not None:
                await self._post(group.of_all(chosen.answered))
        if on_result is not None:
            for answer in chosen.answered:
                on_result(answer)
        return [*done, *chosen.answered]

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

    async def check(self, examined: Sequence[Examined], wanted: Mapping[TableId, Sequence[CheckName]]) -> list[Verdict]:
        """The wanted checks of tables that :meth:`health` looked at, with one question to the history for all."""
        completed: Mapping[TableId, datetime] | None = {}
        recent = [health.table for health, _, _ in examined if "maintenance_recency" in wanted.get(health.table, ())]
        if recent:
            facts = await self._facts(recent, "when tables were maintained last is not known")
            completed = None if facts is None else last_completed(facts)
        return await in_thread(all_verdicts, examined, wanted, self.fleet.policy, completed, datetime.now(UTC))

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

    # --- telling people

    async def flush_notifications(self, seconds: float = 30.0) -> Flushed:
        """Send the notices that are due, beginning none after so many seconds.

        Raises MissingExtraError without apprise, HistoryError when the outbox cannot be read: all then waits.
        """
        destinations = self._destinations()
        if not destinations:
            return Flushed()
        return await in_thread(Notifier(self.history, destinations).flush, seconds)

    async def tell_failed_run(self, run: FailedRun) -> int:
        """Put it into the outbox that a whole run failed; how many destinations are told."""
        notices = of_run(self._destinations(), run)
        await in_thread(self.history.post, notices)
        return len(notices.items)

    def _destinations(self) -> list[Destination]:
        return list(destinations(self.fleet.config.notifications))

    @asynccontextmanager
    async def telling(self, origin: str | None = None, *, dry_run: bool = False) -> AsyncIterator[Telling | None]:
        """What is done within is told in one message when it is over; None where nobody is to be told.

        ``origin`` is what people read about whose work it is. What was cancelled is sent by whoever comes next.
        """
        known = [] if dry_run else self._destinations()
        if not known:
            yield None
            return
        telling = Telling(known, origin or self._who or default_holder())
        try:
            yield telling
        finally:
            await self._end_group(telling.group)
        try:
            await self.flush_notifications()
        except AurumError as error:
            _log.warning("notifications wait: %s%s", error, f"; {error.hint}" if error.hint else "")

    async def _end_group(self, group: str) -> None:
        try:
            await in_thread(self.history.end_group, group)
        except HistoryError as error:
            _log.warning("notifications are sent some minutes later: %s", error)

    async def _post(self, notices: Notices) -> None:
        try:
            await in_thread(self.history.post, notices, due_in=GROUP_WAITS)
        except HistoryError as error:
            _log.error("nobody is told of tables that could not be measured: %s", error)

    # --- inside

    async def _nights(self, backends: Collection[str]) -> Mapping[str, Budget]:
        return {name: await self.night_budget(name) for name in backends if name in self.fleet.backends}

    def _surveyor(self) -> Surveyor:
        return Surveyor(self.fleet, self.backends, self._patience)

    def _executor(self, telling: Telling | None = None) -> MaintenanceExecutor:
        return MaintenanceExecutor(self.history, who=self._who, telling=telling)

    async def _examine(
        self,
        globs: Sequence[str],
        operations: Sequence[str] | None,
        policy: PolicyLookup,
        *,
        remember: bool = False,
    ) -> list[Examined]:
        surveyor = self._surveyor()
        listing = await surveyor.listing(globs, described=remember)
        chosen = surveyor.select(globs, listing)
        if remember:
            await self._remembered(listing, _log_failure)
        measured = await surveyor.measure(chosen, listing, policy)
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

    def _understood_all(self, operations: Sequence[MaintenanceConfig | Mapping[str, Any]]) -> list[Request]:
        return [self._understood(given) for given in operations]

    def _understood(self, given: MaintenanceConfig | Mapping[str, Any]) -> Request:
        config = given if isinstance(given, MaintenanceConfig) else _request(given)
        backend = self.backends.find(config.backend_type, config.target_table)
        table = backend.table_id(config.target_table)
        config = config.model_copy(update={"target_table": str(table)})
        try:
            operation = MaintenanceFactory.create_operation(config.operation_type)
        except UnsupportedError as error:
            return Request(config, backend, reason=error.detail)
        policy = self._policy(table, operation.name)
        operation.parameters(config.parameters, policy)
        return Request(config, backend, operation, policy)

    def _policy(self, table: TableId, operation: str) -> BaseModel | None:
        try:
            return self.fleet.policy(table, operation)
        except UnknownNameError:  # registered after the fleet was read: it has no section in there
            return None

    async def _carry_out(
        self,
        requests: Sequence[Request],
        on_result: ResultHook | None = None,
        progress: ProgressHook | None = None,
        telling: Telling | None = None,
    ) -> list[MaintenanceResult]:
        if telling is None and not all(request.config.dry_run for request in requests):
            async with self.telling() as made:
                if made is not None:
                    return await self._carry_out(requests, on_result, progress, made)
        results: dict[int, MaintenanceResult] = {}
        carry = partial(self._carry, progress=progress, told=on_result, telling=telling)
        async with aclosing(as_they_end(requests, carry, self.backends.gate)) as ended:
            async for position, result in ended:
                results[position] = result
        return [results[position] for position in range(len(requests))]

    async def _carry(
        self,
        request: Request,
        end: ResultHook,
        *,
        progress: ProgressHook | None,
        told: ResultHook | None = None,
        telling: Telling | None = None,
    ) -> None:
        def on_result(result: MaintenanceResult) -> None:
            if told is not None:
                told(result)
            end(result)

        if request.operation is None:
            now = datetime.now(UTC)
            on_result(
                MaintenanceResult(
                    config=request.config,
                    backend=request.backend.name,
                    status=MaintenanceStatus.SKIPPED,
                    reason=request.reason,
                    started_at=now,
                    finished_at=now,
                )
            )
            return
        await self._executor(telling).execute(
            request.backend,
            request.operation,
            request.config,
            policy=request.policy,
            on_result=on_result,
            progress=progress,
        )


def _request(given: Mapping[str, Any]) -> MaintenanceConfig:
    try:
        return MaintenanceConfig.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        hint = nearest(key, MaintenanceConfig.model_fields) if first["type"] == "extra_forbidden" else None
        raise RequestError(f"request {key!r}: {first['msg']}", hint=hint) from error


def create_maintenance_service(settings: AurumSettings | None = None) -> MaintenanceService:
    """A service of its own for these settings (default: the environment)."""
    return MaintenanceService(settings)
