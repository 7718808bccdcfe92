"""One run of one operation on one table: plan, lease, apply, verify, record.

Safety: nothing is committed without the table's lease; a failed check is never retried; what was
committed before a failure stays and is reported; every run but a dry run is recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic import BaseModel
from tenacity import RetryCallState

from aurum_orchestration.errors import (
    AurumError,
    CommitConflictError,
    CommitStateUnknownError,
    HistoryError,
    HistoryUnavailableError,
    LeaseLostError,
    OperationCancelledError,
    StateDriftedError,
    UnsupportedError,
    as_aurum_error,
)
from aurum_orchestration.maintenance.flow import Tally, run_units
from aurum_orchestration.maintenance.interfaces import (
    MaintenanceConfig,
    MaintenancePlan,
    MaintenanceResult,
    MaintenanceStatus,
    PlanStep,
    RunContext,
    Verification,
)
from aurum_orchestration.maintenance.leasing import KeptLease
from aurum_orchestration.maintenance.operations.base import BaseMaintenanceOperation, numbers
from aurum_orchestration.maintenance.stopping import StopSignal
from aurum_orchestration.maintenance.threads import in_thread, until_done

if TYPE_CHECKING:
    from aurum_orchestration.history import History
    from aurum_orchestration.history.records import Notices
    from aurum_orchestration.maintenance.backends.base import BaseMaintenanceBackend
    from aurum_orchestration.maintenance.executor import MaintenanceExecutor

_log = logging.getLogger(__name__)

ProgressHook = Callable[[MaintenanceConfig, float, float, str], None]
"""Called as (request, done, total, unit) from any thread. The flow itself counts the plan's ``steps``."""


class OperationRun:
    """State of one run over all its attempts."""

    def __init__(
        self,
        executor: MaintenanceExecutor,
        backend: BaseMaintenanceBackend,
        operation: BaseMaintenanceOperation,
        config: MaintenanceConfig,
        *,
        parameters: BaseModel,
        progress: ProgressHook | None,
    ) -> None:
        self.operation_id = uuid.uuid4().hex
        self.started_at = datetime.now(UTC)
        self.table = backend.table_id(config.target_table)
        self.config = config
        self._executor, self._backend, self._operation = executor, backend, operation
        self._parameters, self._progress = parameters, progress
        self._tally = Tally()
        self._stop = StopSignal()
        self._lease: KeptLease | None = None
        self._plan: MaintenancePlan | None = None
        self._status: MaintenanceStatus | None = None
        self._opened = False
        self._interrupt: Callable[[], object] | None = None
        self._conflicts = 0
        self._left = 0

    # --- attempts

    async def attempt(self) -> None:
        """Plan and carry out once. What is left to do after a failure is planned anew by the next attempt."""
        event = self._stop.begin()
        if self._stop.final and self._stop.cause is not None:
            raise self._stop.cause
        run = RunContext(
            operation_id=self.operation_id, cancelled=event, progress=self._report, still_mine=self._still_mine
        )
        await self._backend.connect()
        if self._operation.planned:
            await until_done(in_thread(self._planned, run), self._stop.cancel)
        else:
            await self._own_code()

    def may_retry(self, error: BaseException) -> bool:
        """True for a transient error after which planning anew makes sense."""
        return (
            isinstance(error, AurumError)
            and error.transient
            and not isinstance(error, CommitStateUnknownError)
            and not self._stop.final
        )

    def note_retry(self, state: RetryCallState) -> None:
        """Keep in the result that an attempt failed and was repeated."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, CommitConflictError | StateDriftedError):
            self._conflicts += 1
        text = f"attempt {state.attempt_number} ended with {as_aurum_error(error).type}: {error}" if error else ""
        _log.warning("%s; planning again", text)
        self._tally.warn(text)

    def _planned(self, run: RunContext) -> None:
        self._tally.forget_reports()
        plan = self._operation.plan(self._backend, self.table, self._parameters)
        self._tally.warn(*plan.warnings)
        if not self._tally.steps:  # what was done stays explained by the plan that it began with
            self._plan = plan
        if not plan.steps:
            self._status = MaintenanceStatus.COMPLETED if self._tally.steps else MaintenanceStatus.SKIPPED
            self._end_abandoned()
            return
        if self.config.dry_run:
            self._status = MaintenanceStatus.PLANNED
            return
        run.check()
        self._take_lease()
        execution = self._backend.open(plan, run)
        self._opened = True
        self._left = len(plan.steps)
        run.progress(0, len(plan.steps), "steps")

        def on_commit() -> None:
            self._left -= 1
            run.progress(len(plan.steps) - self._left, len(plan.steps), "steps")

        run_units(execution, run, self._tally, self._stop, on_commit)
        self._status = MaintenanceStatus.COMPLETED

    async def _own_code(self) -> None:
        """An operation that brings its own asynchronous code instead of a plan."""
        if self.config.dry_run:
            self._plan = self._unplanned()
            self._status = MaintenanceStatus.PLANNED
            return
        await until_done(in_thread(self._take_lease), self._stop.cancel)
        self._opened = True
        task = asyncio.ensure_future(self._operation._execute_impl(self._backend, self.config))
        loop = asyncio.get_running_loop()
        self._interrupt = lambda: loop.call_soon_threadsafe(task.cancel)
        try:
            self._still_mine()
            answer = await task
        except asyncio.CancelledError:
            if self._stop.cause is None:
                raise
            answer = {}
        finally:
            self._interrupt = None
        if self._stop.cause is not None:  # the lease was lost meanwhile
            raise self._stop.cause
        self._tally.metrics.update(numbers(answer))
        self._status = MaintenanceStatus.COMPLETED

    def _unplanned(self) -> MaintenancePlan:
        name = self._operation.name
        return MaintenancePlan(
            table=str(self.table),
            backend=self._backend.name,
            operation=name,
            parameters=self._parameters.model_dump(mode="json"),
            reason=f"{name} runs code of its own, which cannot be looked into ahead",
            fingerprint={},
            steps=[
                PlanStep(
                    number=1,
                    action="run",
                    summary=f"run {name} on {self.table}",
                    risk="Unknown: this operation has no plan. It runs under the table's lease.",
                )
            ],
        )

    def _report(self, done: float, total: float, unit: str) -> None:
        if self._progress is not None:
            self._progress(self.config, done, total, unit)

    # --- lease

    def _take_lease(self) -> None:
        if self._lease is not None:
            return
        history = self._executor.history
        try:
            if history is None:
                raise HistoryUnavailableError("no history store is configured, so no lease can be taken")
            lease, abandoned = history.begin(
                self._running(), who=self._executor.who, ttl=self._executor.lease_ttl, tell=self._tell()
            )
        except AurumError as error:
            self._stop.end(error)
            raise
        self._lease = KeptLease(history, lease, self._lost)
        self._warn_of(abandoned)

    def _end_abandoned(self) -> None:
        """Tell in the log what killed runs left as running; a try, nothing depends on it."""
        history = self._executor.history
        if history is None or self.config.dry_run:
            return
        with contextlib.suppress(HistoryError):
            self._warn_of(
                history.end_abandoned(self.table, besides=self.operation_id, holding=False, tell=self._tell())
            )

    def _warn_of(self, abandoned: int) -> None:
        if abandoned:
            _log.warning(
                "%s earlier runs on %s were killed; carrying on from what they committed", abandoned, self.table
            )

    def _tell(self) -> Callable[[MaintenanceResult], Notices] | None:
        return self._executor.telling.of if self._executor.telling else None

    def _still_mine(self) -> None:
        if self._lease is not None:
            try:
                self._lease.still_mine()
            except LeaseLostError as error:
                self._stop.end(error)
                raise

    def _lost(self, error: LeaseLostError) -> None:
        self._stop.end(error)
        if self._interrupt is not None:
            self._interrupt()

    def _running(self) -> MaintenanceResult:
        """What the log says until the end is recorded: all there is of a run whose process is killed."""
        return MaintenanceResult(
            operation_id=self.operation_id,
            config=self._named_config(),
            backend=self._backend.name,
            status=MaintenanceStatus.RUNNING,
            reason=self._plan.reason if self._plan else f"{self._operation.name} runs",
            plan_id=self._plan.plan_id if self._plan else None,
            started_at=self.started_at,
        )

    def _named_config(self) -> MaintenanceConfig:
        return self.config.model_copy(update={"target_table": str(self.table)})

    # --- the end

    def result(self, error: Exception | None) -> MaintenanceResult:
        """How it ended. ``error`` None without a status reached means that it was cancelled."""
        status, reason, problem = self._status, self._plan.reason if self._plan else "", None
        done = len(self._tally.steps)
        if isinstance(error, UnsupportedError) and (not self._opened or self._operation.planned):
            # what was staged is gone; what was committed before is right, and stays
            told = " ".join(filter(None, (error.detail, error.hint)))
            if done:
                status = MaintenanceStatus.COMPLETED
                self._tally.warn(f"{self._left} of {done + self._left} steps were left alone: {told}")
            else:
                status, reason = MaintenanceStatus.SKIPPED, told
        elif status is None or error is not None:
            known = as_aurum_error(error or OperationCancelledError("the run was cancelled"))
            status = MaintenanceStatus.FAILED
            if isinstance(known, OperationCancelledError):
                status = MaintenanceStatus.CANCELLED
            if known is not error and error is not None:
                _log.error("%s failed", self._operation.name, exc_info=error)
            problem = known.problem(instance=self.operation_id, table=str(self.table), operation=self._operation.name)
            told = "; ".join([known.detail, *dict.fromkeys(self._tally.taken_back)])
            problem = problem.model_copy(update={"detail": told})
            reason = told + (f"; {done} steps committed before stay" if done else "")
        if problem is None:
            self._tally.warn(*self._tally.taken_back)
        metrics = dict(self._tally.metrics)
        if self._opened and self._operation.planned:
            metrics["conflicts_retried"] = metrics.get("conflicts_retried", 0.0) + self._conflicts
            metrics["groups_left"] = metrics.get("groups_left", 0.0) + self._left
        planned = self._plan.steps if self._plan and status is MaintenanceStatus.PLANNED else None
        return MaintenanceResult(
            operation_id=self.operation_id,
            config=self._named_config(),
            backend=self._backend.name,
            status=status,
            reason=reason,
            metrics=metrics,
            plan_id=self._plan.plan_id if self._plan else None,
            steps=planned or self._tally.steps or None,
            verification=Verification.combine(self._tally.verifications),
            problem=problem,
            warnings=self._tally.warnings,
            undo=self._tally.undo_text(),
            undo_data=self._tally.undo_data,
            started_at=self.started_at,
            finished_at=datetime.now(UTC),
        )

    def finish(self, result: MaintenanceResult) -> MaintenanceResult:
        """Record the result and give the lease back. Never raises."""
        try:
            if not self.config.dry_run and self._executor.history is not None:
                notices = self._executor.telling.of(result) if self._executor.telling else None
                self._record(self._executor.history, result, notices)
        except Exception as error:
            known = as_aurum_error(error)
            _log.error("%s on %s could not be recorded: %s", self._operation.name, self.table, known.detail)
            result = result.model_copy(
                update={"warnings": [*result.warnings, f"not recorded in the history: {known.detail}"]}
            )
        if self._lease is not None:
            self._lease.release()
        return result

    def _record(self, history: History, result: MaintenanceResult, notices: Notices | None) -> None:
        if self._lease is None:
            history.record(result, who=self._executor.who, notices=notices)
        else:
            history.end(result, self._lease.stop(), who=self._executor.who, notices=notices)
            self._lease = None
