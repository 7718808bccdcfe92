"""The maintenance of a fleet, as one asynchronous API. Both edges, Dagster and the command, use nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from aurum_orchestration.errors import RequestError, UnknownNameError, UnsupportedError, nearest
from aurum_orchestration.maintenance.batch import Request, as_they_end
from aurum_orchestration.maintenance.examining import ExaminingService
from aurum_orchestration.maintenance.executor import MaintenanceExecutor, ResultHook
from aurum_orchestration.maintenance.factory import MaintenanceFactory
from aurum_orchestration.maintenance.informing import InformingService
from aurum_orchestration.maintenance.interfaces import (
    Decision,
    MaintenanceConfig,
    MaintenanceResult,
    MaintenanceStatus,
    OperationType,
)
from aurum_orchestration.maintenance.operations.undo import UNDO, UndoOperation
from aurum_orchestration.maintenance.planner.rank import Budget
from aurum_orchestration.maintenance.planner.triggers import TRIGGERS
from aurum_orchestration.maintenance.rounds import Respect, choose, judge, overriding
from aurum_orchestration.maintenance.running import ProgressHook
from aurum_orchestration.maintenance.sharing import Shared
from aurum_orchestration.maintenance.threads import in_thread
from aurum_orchestration.notifications.notices import Telling

if TYPE_CHECKING:
    from aurum_orchestration.settings import AurumSettings


class MaintenanceService(ExaminingService, InformingService):
    """Keeps the tables of a fleet healthy.

    Without arguments everything comes from the environment (:class:`AurumSettings`). Nothing is read or
    connected before first use. Use it as an asynchronous context manager, or call :meth:`close`.
    """

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
            with self.history.kept():
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
        shared: Shared | None = None,
    ) -> list[MaintenanceResult]:
        """One round over the tables that the globs (none: all) mean: what ``aurum run`` does.

        Without ``operations`` it follows the planner's decisions, cooldown included. With them it passes
        over cooldown, windows, the nights' budgets and ``enabled: false``, but not over thresholds: nothing
        to do is ``skipped``. ``respect`` says otherwise: a schedule's round passes over cooldown alone, a
        sensor's over nothing. ``parameters`` go before the policies'. ``budget`` caps the round. Results:
        what was done, best first, then what was skipped, then what could not be measured (``failed``).
        When cancelled, what runs ends as ``cancelled``, told to ``on_result``. ``telling``: what
        is to be told is part of more than this round, see :meth:`telling`. ``shared``: so is what was
        measured, see :meth:`sharing`.
        """
        named = list(dict.fromkeys(map(str, operations)))
        given = dict(parameters or {})
        respect = respect or (Respect.NOTHING if named else Respect.DECISIONS)
        asked = respect is Respect.NOTHING
        if shared is None:
            considered = named or list(TRIGGERS)
            shared = self.sharing(considered, dict.fromkeys(considered, given), respect)
        policy = shared.policy
        examined = await self._examine(tables, named or None, policy, remember=not dry_run, shared=shared)

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

        def on_end(result: MaintenanceResult) -> None:
            shared.changed_by(result)
            if on_result is not None:
                on_result(result)

        async with contextlib.nullcontext(telling) if telling else self.telling(dry_run=dry_run) as group:
            done = await self._carry_out(requests, on_end, progress, group)
            if group is not None:
                await self._post(group.of_all(chosen.answered))
        if on_result is not None:
            for answer in chosen.answered:
                on_result(answer)
        return [*done, *chosen.answered]

    def sharing(
        self,
        operations: Sequence[str],
        parameters: Mapping[str, Mapping[str, Any]] | None = None,
        respect: Respect | None = None,
    ) -> Shared:
        """What several calls of :meth:`maintain` that do one operation each may share: every table is measured once.

        After an operation ran on a table, the next round measures that table again. ``parameters`` are by
        operation. Raises RequestError for a parameter that its operation does not know.
        """
        given = {name: own for name, own in (parameters or {}).items() if own}
        enable = (respect or Respect.NOTHING) is Respect.NOTHING
        policy = overriding(self.fleet.policy, self._operations(operations), given, enable=enable)
        return Shared(policy, plain=not given)

    def _executor(self, telling: Telling | None = None) -> MaintenanceExecutor:
        return MaintenanceExecutor(self.history, who=self._who, telling=telling)

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
        with self.history.kept():
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
