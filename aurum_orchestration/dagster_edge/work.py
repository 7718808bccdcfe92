"""What the jobs ask of the service, as coroutines that emit what is worth showing while they work."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from aurum_orchestration.dagster_edge.report import told
from aurum_orchestration.errors import AurumError, RequestError, UnknownNameError, UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.history import HealthPoint
from aurum_orchestration.maintenance.factory import MaintenanceFactory
from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, MaintenanceResult
from aurum_orchestration.maintenance.planner.rank import NO_BUDGET, Budget
from aurum_orchestration.maintenance.rounds import Respect, spent_on
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.maintenance.sharing import TOUCHED, Shared
from aurum_orchestration.maintenance.survey import Examined
from aurum_orchestration.maintenance.threads import in_thread
from aurum_orchestration.notifications.notices import Telling

MEASURE_EVERY = 1.0
"""Seconds between two measurements of the tables that ended meanwhile: one round trip for all of them."""

PROGRESS_EVERY = 15.0
"""Seconds between two progress lines; each is an event in Dagster's storage."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Note:
    """Something a person should know about the run."""

    text: str
    warning: bool = True


@dataclass(frozen=True, slots=True)
class Ended:
    """An operation ended; ``now`` is how its table is since then, None when nothing was done to it."""

    result: MaintenanceResult
    now: Examined | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """A table was measured. ``news``: it differs from the last recorded measurement."""

    examined: Examined
    news: bool


@dataclass(frozen=True, slots=True)
class OperationRequest:
    """What a run is asked for: globs of tables, operations in their order (none: as the planner decides), and how.

    ``parameters`` are by operation. ``respect`` None: nothing when operations are named, else the decisions.
    ``origin`` is what notifications call the run.
    """

    tables: Sequence[str]
    operations: Sequence[str] = ()
    dry_run: bool = False
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    respect: Respect | None = None
    budget: Budget = NO_BUDGET
    origin: str | None = None


Emit = Callable[[Note | Ended | Measured], None]


async def maintain(service: MaintenanceService, request: OperationRequest, emit: Emit) -> None:
    """The operations on the tables that the globs mean: an :class:`Ended` for each, as they end.

    An operation begins when the one before it has ended on all tables: it goes by what that one left.
    """
    _check(request)
    shared = service.sharing(request.operations, request.parameters, request.respect) if request.operations else None
    done: list[MaintenanceResult] = []
    rounds: list[str | None] = [*request.operations] or [None]

    async def all_rounds(globs: Sequence[str]) -> None:
        async with service.telling(request.origin, dry_run=request.dry_run) as telling:
            await each_round(globs, telling)

    async def each_round(globs: Sequence[str], telling: Telling | None) -> None:
        while rounds:
            operation = rounds[0]
            if operation is not None and not service.backends_with(operation):
                emit(Note(f"no backend of the fleet has {operation}"))
            else:
                async with _watching(service, shared, emit) as ended:
                    results = await service.maintain(
                        globs,
                        [operation] if operation else [],
                        request.dry_run,
                        request.parameters.get(operation or "", {}),
                        respect=request.respect,
                        budget=replace(request.budget, spent=spent_on(done)),
                        on_result=ended.put_nowait,
                        progress=_Progress(emit),
                        telling=telling,
                        shared=shared,
                    )
                done.extend(results)
            rounds.pop(0)

    await _with_known(service, request.tables, all_rounds, emit)


def _check(request: OperationRequest) -> None:
    """Raise UnknownNameError or RequestError before anything is started."""
    for operation in request.operations:
        with contextlib.suppress(UnsupportedError):
            MaintenanceFactory.create_operation(operation)
    for operation in request.parameters:
        if operation not in request.operations:
            raise RequestError(
                f"parameters of {operation!r}, which is not among the operations",
                hint=f"Add {operation} to operations. As the planner decides, parameters follow the policies.",
            )


async def measure(service: MaintenanceService, globs: Sequence[str], discover: bool, emit: Emit) -> None:
    """Health of the tables that the globs mean; what changed goes into the health series."""
    if discover:
        found = await service.discover()
        emit(Note(f"{len(found):,} tables discovered", warning=False))
    examined: list[Examined] = []

    async def one_round(globs: Sequence[str]) -> None:
        examined.extend(await service.health(globs))

    await _with_known(service, globs, one_round, emit)
    news = await _news(service, examined, emit)
    await _record(service, [one for one in examined if one[0].table in news], emit)
    for one in examined:
        emit(Measured(one, one[0].table in news))


async def _news(service: MaintenanceService, examined: Sequence[Examined], emit: Emit) -> set[TableId]:
    """The tables that changed since they were recorded last; none where the history does not answer."""
    try:
        last = await in_thread(service.history.latest_health, [health.table for health, _, _ in examined])
    except AurumError as error:
        emit(Note(f"what changed is not known, so the health series has a gap: {told(error)}"))
        return set()
    return {health.table for health, debt, _ in examined if _is_news(last.get(health.table), health.state_token, debt)}


def _is_news(last: HealthPoint | None, state_token: str, debt: float) -> bool:
    """Also when only the policy changed, which shows in the debt."""
    return last is None or (last.state_token, last.debt_score) != (state_token, debt)


async def _with_known(
    service: MaintenanceService,
    globs: Sequence[str],
    work: Callable[[Sequence[str]], Coroutine[Any, Any, None]],
    emit: Emit,
) -> None:
    """Do the work for the globs that mean a table, with a note for each other one."""
    try:
        await work(globs)
    except UnknownNameError:
        kept = [glob for glob in globs if await _means_something(service, glob, emit)]
        if len(kept) == len(globs):
            raise  # it is not a table that is unknown
        if kept:
            await work(kept)


async def _means_something(service: MaintenanceService, glob: str, emit: Emit) -> bool:
    try:
        await service.tables([glob])
    except UnknownNameError as error:
        emit(Note(told(error)))
        return False
    except AurumError as error:
        _log.info("tables of %s are not listed: %s", glob, error)
    return True


@contextlib.asynccontextmanager
async def _watching(
    service: MaintenanceService, shared: Shared | None, emit: Emit
) -> AsyncIterator[asyncio.Queue[MaintenanceResult]]:
    """Where results go as they end; when it is left without an error all of them have been emitted."""
    ended: asyncio.Queue[MaintenanceResult] = asyncio.Queue()
    over = asyncio.Event()
    watching = asyncio.create_task(_watch(service, shared, ended, over, emit))
    try:
        yield ended
        over.set()
        await watching
    finally:
        watching.cancel()


async def _watch(
    service: MaintenanceService,
    shared: Shared | None,
    ended: asyncio.Queue[MaintenanceResult],
    over: asyncio.Event,
    emit: Emit,
) -> None:
    """Emit each result with the health of its table after it; what ends within a second is measured together."""
    while not (over.is_set() and ended.empty()):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), MEASURE_EVERY)
        done = [ended.get_nowait() for _ in range(ended.qsize())]
        touched = [result for result in done if result.status in TOUCHED]
        now = await _after(service, [result.config.target_table for result in touched], emit)
        if shared is not None and shared.plain:
            shared.learn(health for health, _, _ in now.values())
        for result in done:
            emit(Ended(result, now.get(result.config.target_table) if result in touched else None))


async def _after(service: MaintenanceService, tables: Sequence[str], emit: Emit) -> dict[str, Examined]:
    if not tables:
        return {}
    try:
        examined = [one for one in await service.health(tables) if one[0].problem is None]
    except AurumError as error:
        emit(Note(f"not measured after the operation: {told(error)}"))
        return {}
    await _record(service, examined, emit)
    return {str(health.table): (health, debt, decisions) for health, debt, decisions in examined}


async def _record(service: MaintenanceService, examined: Sequence[Examined], emit: Emit) -> None:
    points = [
        HealthPoint(health.table, health.measured_at, health.state_token, debt, health.metrics)
        for health, debt, _ in examined
        if health.problem is None
    ]
    if not points:
        return
    try:
        await in_thread(service.history.record_health, points)
    except AurumError as error:
        emit(Note(f"the health series has a gap: {told(error)}"))


class _Progress:
    """Called from any thread; says at most every quarter of a minute how far a table is."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._next = time.monotonic() + PROGRESS_EVERY

    def __call__(self, config: MaintenanceConfig, done: float, total: float, unit: str) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PROGRESS_EVERY
        table = TableId.parse(config.target_table)
        self._emit(Note(f"{table}: {done:,.0f} of {total:,.0f} {unit} of {config.operation_type}", warning=False))
