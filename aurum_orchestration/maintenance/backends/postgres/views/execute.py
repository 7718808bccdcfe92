"""Refreshes views one after the other. One that fails keeps back those made of it, and no other."""

from __future__ import annotations

from collections.abc import Iterator

from aurum_orchestration.errors import (
    AurumError,
    BackendUnavailableError,
    EngineError,
    LeaseHeldError,
    LockTimeoutError,
    OperationCancelledError,
)
from aurum_orchestration.maintenance.backends.postgres.connection import patiently
from aurum_orchestration.maintenance.backends.postgres.horizon import lockers
from aurum_orchestration.maintenance.backends.postgres.table import Database
from aurum_orchestration.maintenance.backends.postgres.views.catalog import View
from aurum_orchestration.maintenance.backends.postgres.views.plan import known_views, refresh_statement
from aurum_orchestration.maintenance.backends.reports import DirectUnit
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    OperationType,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
)
from aurum_orchestration.maintenance.operations.views import ViewsParameters

_UNDO = "nothing to undo: the view holds what its query gives"


class ViewsExecution:
    """The views of a plan, in its order."""

    workers = 1

    def __init__(self, plan: MaintenancePlan, target: Database) -> None:
        self._plan, self._target = plan, target
        self._parameters = ViewsParameters.model_validate(plan.parameters)
        self.failed: dict[int, AurumError] = {}
        """By oid: the views that could not be refreshed, and why."""

    def units(self) -> Iterator[Unit]:
        """One unit per step. Raises at the end what kept views from being refreshed."""
        for step in self._plan.steps:
            yield _Refresh(step, self._target, self._parameters, self.failed)
        if len(self._plan.steps) == len(self.failed) == 1:
            raise next(iter(self.failed.values()))
        if self.failed:
            # not transient: trying again at once would refresh all the others, too
            told = "; ".join(error.detail for error in self.failed.values())
            raise EngineError(f"{len(self.failed)} of {len(self._plan.steps)} views were not refreshed: {told}")


class _Refresh(DirectUnit):
    def __init__(
        self, step: PlanStep, target: Database, parameters: ViewsParameters, failed: dict[int, AurumError]
    ) -> None:
        super().__init__(step)
        self._target, self._parameters, self._failed = target, parameters, failed

    def commit(self, run: RunContext) -> UnitOutcome:
        """Refresh it; what is wrong with this view alone is kept for the end."""
        oid, name = self.step.detail["oid"], self.step.detail["view"]
        try:
            with self._target.work(OperationType.VIEWS, run) as session:
                view = next((one for one in known_views(session, self._target.server) if one.oid == oid), None)
                if view is None:
                    return UnitOutcome(warnings=[f"{name} was dropped meanwhile"])
                stale = view.needs & self._failed.keys()
                if stale:
                    raise EngineError(f"{view} is left: what it is made of was not refreshed")
                if view.only_plain and not self._parameters.allow_plain:
                    raise EngineError(f"{view} is left: since the plan {view.only_plain}")
                # days and text in the view are those of the database's own settings, not of our sessions
                session.execute("RESET timezone")
                session.execute("RESET datestyle")
                patiently(lambda: session.execute(refresh_statement(view)), run)
        except LockTimeoutError as error:
            with self._target.look(OperationType.VIEWS) as session:
                there = "; ".join(map(str, lockers(session, oid))) or "nobody any more"
            return self._keep(LockTimeoutError(f"{error.detail}; it is locked by {there}"), name)
        except (OperationCancelledError, BackendUnavailableError, LeaseHeldError):
            raise
        except AurumError as error:
            return self._keep(error, name)
        return UnitOutcome({"views_refreshed": 1}, undo=_UNDO, warnings=_told(view, self.step))

    def _keep(self, error: AurumError, name: str) -> UnitOutcome:
        detail = error.detail if error.detail.startswith(name) else f"{name}: {error.detail}"
        kept = type(error)(detail, hint=error.hint)
        self._failed[self.step.detail["oid"]] = kept
        return UnitOutcome(warnings=[detail])


def _told(view: View, step: PlanStep) -> list[str]:
    if view.only_plain and not step.detail["plain"]:
        return [f"{view} was refreshed with its readers locked out: since the plan {view.only_plain}"]
    return []
