"""Sensors that tell people: one sends what waits in the outbox, one puts runs into it that failed as a whole.

A table that went wrong is told by the service itself, which knows best; what is left are runs that never
got to a result: killed, out of memory, refused before they began. Both are stopped until switched on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from aurum_orchestration.dagster_edge.naming import OPERATION_TAG
from aurum_orchestration.dagster_edge.report import told
from aurum_orchestration.dagster_edge.resources import SERVICE
from aurum_orchestration.errors import AurumError
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.maintenance.threads import run_sync
from aurum_orchestration.notifications.notices import FailedRun

NOTIFICATIONS = "notifications"
RUN_FAILURES = "run_failures"

EVERY_SECONDS = 60
PATIENCE_SECONDS = 30.0
"""Seconds after which a tick begins no further message; Dagster gives an evaluation 60."""

_TOLD_BY_TABLE = frozenset({"tables_failed", "tables_cancelled"})
_LOST = (
    "Nobody said why: its process was killed, ran out of memory, or its machine went down. Look at the run's "
    "page and the machine's log. Its tables are free within a minute; the next run carries on from what was committed."
)
_THROWN = "The run's page has the stack trace. What was committed before stays; the next run carries on from there."


def notification_sensors(service: MaintenanceService, jobs: Sequence[dg.JobDefinition]) -> list[dg.SensorDefinition]:
    """The sensors, for a fleet that tells anybody anything."""
    if not service.fleet.config.notifications:
        return []
    return [_outbox_sensor(), _run_failure_sensor(jobs)]


def _outbox_sensor() -> dg.SensorDefinition:
    def evaluate(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        try:
            flushed = run_sync(_service(context.resources).flush_notifications(PATIENCE_SECONDS))
        except AurumError as error:
            return dg.SkipReason(f"notifications wait: {told(error)}")
        return dg.SkipReason(f"messages: {flushed}")

    return dg.SensorDefinition(
        name=NOTIFICATIONS,
        evaluation_fn=evaluate,
        minimum_interval_seconds=EVERY_SECONDS,
        description="Sends the notices that wait: of runs that were killed, and what could not be sent before.",
        default_status=dg.DefaultSensorStatus.STOPPED,
        required_resource_keys={SERVICE},
    )


def _run_failure_sensor(jobs: Sequence[dg.JobDefinition]) -> dg.SensorDefinition:
    def react(context: dg.RunFailureSensorContext) -> None:
        failed = failed_run(context)
        if failed is not None:
            run_sync(_service(context.resources).tell_failed_run(failed))

    return dg.RunStatusSensorDefinition(
        name=RUN_FAILURES,
        run_status=dg.DagsterRunStatus.FAILURE,
        run_status_sensor_fn=lambda context: react(context.for_run_failure()),
        monitored_jobs=list(jobs),
        minimum_interval_seconds=EVERY_SECONDS // 2,
        description=f"Writes down who is to be told of a failed run; the sensor {NOTIFICATIONS} sends it.",
        default_status=dg.DefaultSensorStatus.STOPPED,
        required_resource_keys={SERVICE},
    )


def failed_run(context: dg.RunFailureSensorContext) -> FailedRun | None:
    """What is to be told of a failed run; None where the results of its tables told it already."""
    run = context.dagster_run
    what, do = context.failure_event.message or "the run failed", _LOST
    for event in context.get_step_failure_events():
        failure = event.step_failure_data
        ours = failure.user_failure_data
        if ours is None:
            error = failure.error
            what, do = (error.message.strip() if error else what), _THROWN
            continue
        metadata = dict(ours.metadata or {})
        if _TOLD_BY_TABLE & set(metadata) and "tables_measured" not in metadata:
            return None
        problem: Any = metadata["problem"].value if "problem" in metadata else {}
        what = str(problem.get("detail") or ours.description or what)
        do = str(problem.get("hint") or "See the run's page.")
    return FailedRun(
        run_id=run.run_id,
        job=run.job_name,
        operation=run.tags.get(OPERATION_TAG, run.job_name),
        tables=_tables(run),
        what=what,
        do=do,
    )


def _tables(run: dg.DagsterRun) -> list[str]:
    ops: Any = run.run_config.get("ops", {})
    config = ops.get(run.job_name, {}).get("config", {}) if isinstance(ops, dict) else {}
    return [str(glob) for glob in config.get("tables") or ()]


def _service(resources: Any) -> MaintenanceService:
    service: MaintenanceService = getattr(resources, SERVICE).get()
    return service
