"""The schedules, in the fleet's time zone. Each launches the job ``maintenance``; what no backend has is skipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from aurum_orchestration.dagster_edge.naming import MAINTENANCE
from aurum_orchestration.dagster_edge.resources import SERVICE
from aurum_orchestration.dagster_edge.runs import UNFINISHED
from aurum_orchestration.fleet.table_id import quote_part
from aurum_orchestration.maintenance.interfaces import OperationType
from aurum_orchestration.maintenance.rounds import Respect
from aurum_orchestration.maintenance.service import MaintenanceService


@dataclass(frozen=True)
class Timetable:
    """When a schedule ticks (cron, in the fleet's time zone) and what it launches.

    ``operations`` in their order; none: what each table needs, as the planner decides.
    """

    cron: str
    about: str
    operations: tuple[OperationType, ...] = ()


FULL = (
    OperationType.COMPACTION,
    OperationType.MANIFESTS,
    OperationType.RETENTION,
    OperationType.CLEANUP,
    OperationType.LOGS,
    OperationType.SESSIONS,
    OperationType.VACUUM,
    OperationType.REINDEX,
    OperationType.VIEWS,
    OperationType.STATS,
    OperationType.BLOAT,
    OperationType.BACKUP,
)
"""All that is upkeep: what rewrites, then what lets go, then what gives the space back, then what looks."""

TIMETABLES = {
    "daily_light": Timetable(
        "0 2 * * *", "Old log rows and expired sessions.", (OperationType.LOGS, OperationType.SESSIONS)
    ),
    "nightly": Timetable("0 1 * * *", "What each table needs, as the planner decides."),
    "weekly_full": Timetable("0 3 * * 0", "Every operation that is enabled, whatever its cooldown says.", FULL),
    "monthly_reindex": Timetable("0 4 * * 0#1", "Indexes built anew.", (OperationType.REINDEX,)),
}


def maintenance_schedules(service: MaintenanceService) -> list[dg.ScheduleDefinition]:
    """The schedules, stopped until somebody switches them on."""
    return [_schedule(name, timetable, service.fleet.config.time_zone) for name, timetable in TIMETABLES.items()]


def _schedule(name: str, timetable: Timetable, time_zone: str) -> dg.ScheduleDefinition:
    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        service: MaintenanceService = getattr(context.resources, SERVICE).get()
        config = _config(service, timetable)
        if config is None:
            return dg.SkipReason(_nothing_to_do(service, timetable.operations))
        busy = context.instance.get_runs(
            dg.RunsFilter(job_name=MAINTENANCE, statuses=UNFINISHED, tags={"dagster/schedule_name": name}), limit=1
        )
        if busy:
            return dg.SkipReason(f"the run that {name} launched before, {busy[0].run_id}, has not ended")
        return dg.RunRequest(run_config={"ops": {MAINTENANCE: {"config": config}}})

    return dg.ScheduleDefinition(
        name=name,
        cron_schedule=timetable.cron,
        execution_timezone=time_zone,
        job_name=MAINTENANCE,
        execution_fn=evaluate,
        description=f"{timetable.about} Within the tables' windows and the nights' budgets.",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        required_resource_keys={SERVICE},
    )


def _config(service: MaintenanceService, timetable: Timetable) -> dict[str, Any] | None:
    """Config of the run, None when no backend has anything to do."""
    if not timetable.operations:
        return {"respect": Respect.DECISIONS.value}
    having = {str(operation): service.backends_with(operation) for operation in timetable.operations}
    operations = [operation for operation, names in having.items() if names and service.enabled_anywhere(operation)]
    if not operations:
        return None
    concerned = {name for operation in operations for name in having[operation]}
    config: dict[str, Any] = {"operations": operations, "respect": Respect.CALENDAR.value}
    if concerned != set(service.fleet.backends):
        config["tables"] = [f"{quote_part(name)}.**" for name in service.fleet.backends if name in concerned]
    return config


def _nothing_to_do(service: MaintenanceService, operations: Sequence[OperationType]) -> str:
    backends = ", ".join(f"{name} ({backend.type})" for name, backend in service.fleet.backends.items())
    had = [str(operation) for operation in operations if service.backends_with(operation)]
    if had:
        return f"the policies of all tables say enabled: false for {', '.join(had)}"
    wanted = " or ".join(operations)
    return f"no backend of the fleet has {wanted}; there is {backends}"
