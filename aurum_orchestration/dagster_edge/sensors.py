"""Sensors: one per operation and backend, each measuring its backend once per tick and requesting batched runs.

All are stopped until somebody switches them on. What a tick found is in its skip reason or its log.
"""

from __future__ import annotations

import concurrent.futures
import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import dagster as dg

from aurum_orchestration.dagster_edge.cursor import Cursor
from aurum_orchestration.dagster_edge.naming import (
    BACKEND_TAG,
    MAINTENANCE,
    OPERATION_TAG,
    TABLE_TAG,
    TABLES_TAG,
    definition_name,
    digest,
    tag_value,
)
from aurum_orchestration.dagster_edge.report import told
from aurum_orchestration.dagster_edge.resources import SERVICE
from aurum_orchestration.dagster_edge.runs import UNFINISHED
from aurum_orchestration.dagster_edge.tick import Batch, plan_tick
from aurum_orchestration.errors import AurumError
from aurum_orchestration.fleet.table_id import TableId, literal_id, matches, quote_part
from aurum_orchestration.maintenance.planner.triggers import TRIGGERS
from aurum_orchestration.maintenance.rounds import Respect
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.maintenance.survey import Examined
from aurum_orchestration.maintenance.threads import run_sync

BATCH_SIZE = 50
"""Tables per run: large enough that the start of a run does not count, small enough that a killed run loses little."""

EVERY_SECONDS = 60

PATIENCE_SECONDS = 45.0
"""Dagster gives an evaluation 60 seconds."""

STALE_SECONDS = 900.0
"""Age from which on a tick does not use a measurement that an earlier one began."""

_log = logging.getLogger(__name__)


def maintenance_sensors(service: MaintenanceService) -> list[dg.SensorDefinition]:
    """A sensor for each backend and each operation that the backend has and the planner starts there by itself.

    None for what no policy of the backend enables, such as ``backup`` by default: it would only ever skip.
    """
    sensors: dict[str, dg.SensorDefinition] = {}
    for backend in service.fleet.backends:
        for operation in _sensed(service, backend):
            sensor = maintenance_sensor(operation, backend)
            if sensor.name in sensors:  # names that differ in what Dagster does not allow
                sensor = maintenance_sensor(operation, backend, name=f"{sensor.name}_{digest(backend, 6)}")
            sensors[sensor.name] = sensor
    return list(sensors.values())


def _sensed(service: MaintenanceService, backend: str) -> list[str]:
    try:
        supported = {str(operation) for operation in service.backends.get(backend).supported_operations}
    except AurumError as error:
        _log.warning("backend %s has no sensor: %s", backend, told(error))
        return []
    enabled = service.fleet.enabled
    return [operation for operation in TRIGGERS if operation in supported and enabled(backend, operation)]


def maintenance_sensor(
    operation: str,
    backend: str,
    *,
    name: str | None = None,
    batch_size: int = BATCH_SIZE,
    patience: float = PATIENCE_SECONDS,
) -> dg.SensorDefinition:
    """The sensor ``<operation>_<backend>``. ``patience``: seconds a tick waits for the backend at most."""
    measuring = Measuring()

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        service: MaintenanceService = getattr(context.resources, SERVICE).get()
        try:
            examined = measuring.outcome(lambda: _examine(service, operation, backend), patience)
            if examined is None:
                return dg.SkipReason(
                    f"backend {backend} did not answer within {patience:g} s; nothing is requested. "
                    f"Its measurement goes on, the next tick takes its outcome. Look at the backend's load."
                )
            tick = plan_tick(
                operation,
                examined,
                busy=_busy(context.instance, operation),
                last_end=_last_ends(service, operation, examined),
                cursor=Cursor.parse(context.cursor),
                batch_size=batch_size,
                budget=run_sync(service.night_budget(backend)),
            )
        except AurumError as error:
            return dg.SkipReason(f"backend {backend}: {told(error)}")
        context.update_cursor(str(tick.cursor))
        if not tick.batches:
            return dg.SkipReason(tick.summary)
        context.log.info(tick.summary)
        return dg.SensorResult(run_requests=[_request(batch, operation, backend) for batch in tick.batches])

    return dg.SensorDefinition(
        name=name or definition_name(f"{operation}_{backend}"),
        evaluation_fn=evaluate,
        job_name=definition_name(operation),
        minimum_interval_seconds=EVERY_SECONDS,
        description=f"Measures the tables of {backend} and requests {operation} for those that need it.",
        default_status=dg.DefaultSensorStatus.STOPPED,
        required_resource_keys={SERVICE},
    )


def _examine(service: MaintenanceService, operation: str, backend: str) -> list[Examined]:
    return run_sync(service.health([f"{quote_part(backend)}.**"], [operation]))


def _last_ends(service: MaintenanceService, operation: str, examined: Sequence[Examined]) -> dict[str, datetime | None]:
    wanted = [health.table for health, _, found in examined if any(decision.act for decision in found)]
    if not wanted:
        return {}
    facts = service.history.facts(wanted)
    return {table: fact.last_finished for (table, name), fact in facts.items() if name == operation}


def _busy(instance: dg.DagsterInstance, operation: str) -> Callable[[TableId], bool]:
    """Says whether a run of the operation that names the table is queued or in progress, whoever launched it."""
    exact: set[TableId] = set()
    globs: set[str] = set()
    for config in _unfinished(instance, operation):
        for glob in config.get("tables") or ["**"]:
            try:
                table = literal_id(glob)
            except AurumError:
                continue  # that run will say so itself
            if table is None:
                globs.add(glob)
            else:
                exact.add(table)
    return lambda table: table in exact or any(matches(glob, table) for glob in globs)


def _unfinished(instance: dg.DagsterInstance, operation: str) -> Iterator[dict[str, Any]]:
    """Config of the unfinished runs that do the operation: its own job's, and those of ``maintenance``."""
    for job in (definition_name(operation), MAINTENANCE):
        for run in instance.get_runs(dg.RunsFilter(job_name=job, statuses=UNFINISHED)):
            ops: Any = run.run_config.get("ops", {})
            config = ops.get(job, {}).get("config", {})
            if not config.get("dry_run") and operation in (config.get("operations") or [operation]):
                yield config


def _request(batch: Batch, operation: str, backend: str) -> dg.RunRequest:
    tables = batch.tables
    tags = {OPERATION_TAG: operation, BACKEND_TAG: tag_value(backend), TABLES_TAG: str(len(tables))}
    if len(tables) == 1:
        tags[TABLE_TAG] = tag_value(tables[0])
    return dg.RunRequest(
        run_key=batch.run_key,
        run_config={
            "ops": {definition_name(operation): {"config": {"tables": tables, "respect": Respect.DECISIONS.value}}}
        },
        tags=tags,
    )


class Measuring:
    """One measurement at a time, in a thread that outlives the tick: a slow backend is not asked twice at once."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._running: concurrent.futures.Future[list[Examined]] | None = None
        self._begun = 0.0

    def outcome(self, measure: Callable[[], list[Examined]], patience: float) -> list[Examined] | None:
        """What ``measure`` returns, or the one that an earlier tick left running; None when that takes too long."""
        with self._guard:
            if self._running is None or (self._running.done() and time.monotonic() - self._begun > STALE_SECONDS):
                self._running, self._begun = _in_thread(measure), time.monotonic()
            future = self._running
        if not concurrent.futures.wait([future], patience).done:
            return None
        with self._guard:
            if self._running is future:
                self._running = None
        return future.result()


def _in_thread(measure: Callable[[], list[Examined]]) -> concurrent.futures.Future[list[Examined]]:
    future: concurrent.futures.Future[list[Examined]] = concurrent.futures.Future()

    def work() -> None:
        try:
            future.set_result(measure())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=contextvars.copy_context().run, args=(work,), name="measuring", daemon=True).start()
    return future
