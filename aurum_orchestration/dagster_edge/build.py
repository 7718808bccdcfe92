"""What a code location offers for a fleet, at a glance.

Loads with every backend down: tables come from the last discovery, and nothing is connected.
"""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from aurum_orchestration.dagster_edge.assets import table_specs
from aurum_orchestration.dagster_edge.automation import switch_on
from aurum_orchestration.dagster_edge.checks import table_checks
from aurum_orchestration.dagster_edge.jobs import health_job, maintenance_job, operation_jobs, purge_job
from aurum_orchestration.dagster_edge.notifications import notification_sensors
from aurum_orchestration.dagster_edge.resources import service_resources
from aurum_orchestration.dagster_edge.schedules import maintenance_schedules
from aurum_orchestration.dagster_edge.sensors import maintenance_sensors
from aurum_orchestration.dagster_edge.standing import standing_service
from aurum_orchestration.fleet import Fleet
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.settings import AurumSettings

PATIENCE = timedelta(minutes=10)
"""How long a backend may take to list or measure its tables. A sensor's tick waits less: see ``sensors``."""


def build_definitions(fleet: Fleet | None = None, settings: AurumSettings | None = None) -> dg.Definitions:
    """Assets, checks, jobs, sensors and resources for a fleet (default: the settings' fleet file).

    Nothing is shared between two calls. While the fleet file is wrong, the last one that was right goes on
    and the metadata says so. Raises ConfigurationError for a setting that is wrong, when there is no such file,
    and when ``dagster definitions validate`` asks.
    """
    if fleet is None:
        service, broken = standing_service(settings, PATIENCE)
    else:
        service, broken = MaintenanceService(settings, fleet=fleet, patience=PATIENCE), None
    jobs = [*operation_jobs(), maintenance_job(), health_job(), purge_job()]
    schedules = maintenance_schedules(service)
    sensors = [*maintenance_sensors(service), *notification_sensors(service, jobs)]
    switch_on(service.fleet, schedules, sensors)
    return dg.Definitions(
        assets=table_specs(service.fleet),
        asset_checks=table_checks(service.fleet),
        jobs=jobs,
        schedules=schedules,
        sensors=sensors,
        resources=service_resources(service),
        metadata={"fleet_file_is_broken": str(broken)} if broken else {},
    )
