"""Which schedules and sensors of the code location are switched on, in the Dagster instance of the environment."""

from __future__ import annotations

import os
import time

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorStatus

from aurum_orchestration.fleet.automation import AutomationConfig
from aurum_orchestration.maintenance.findings import Finding, HealthStatus, ok, warning

_RUNNING = frozenset({InstigatorStatus.RUNNING, InstigatorStatus.DECLARED_IN_CODE})
_SILENT_SECONDS = 300.0
"""A daemon says every half a minute that it is alive; Dagster itself calls one dead after half an hour."""


def switched_on(automation: AutomationConfig) -> list[Finding]:
    """What is on, and whether a daemon is there to start it: findings of ``aurum doctor``.

    ``automation``: what the fleet switches on; Dagster does not know of it before its daemon first looked.
    Without DAGSTER_HOME nothing is known.
    """
    if not os.environ.get("DAGSTER_HOME"):
        return [ok("switches", "DAGSTER_HOME is not set: which schedules and sensors are on is not known here")]
    try:
        with dg.DagsterInstance.get() as instance:
            states = {state.name: state.status for state in instance.all_instigator_state()}
            beats = [beat.timestamp for beat in instance.get_daemon_heartbeats().values()]
    except Exception as error:
        return [
            Finding(
                check="switches",
                status=HealthStatus.FAILED,
                detail=f"the Dagster instance cannot be read: {type(error).__name__}: {error}",
                hint="DAGSTER_HOME has to be the folder of a working instance with its dagster.yaml.",
            )
        ]
    unseen = {*automation.schedules, *automation.sensors} - states.keys()
    running = sorted(unseen.union(name for name, status in states.items() if status in _RUNNING))
    if not running:
        return [
            warning(
                "switches",
                "no schedule and no sensor is on: nothing starts by itself",
                "Switch them on in the Dagster UI under Automation, by `aurum maintenance --schedule daily`, or by "
                "automation in fleet.yaml.",
            )
        ]
    return [ok("switches", f"{len(running):,} on: {', '.join(running)}"), _daemon(beats)]


def _daemon(beats: list[float]) -> Finding:
    if not beats:
        told = "no daemon has run on this instance yet: what is on does not start"
    elif (silent := time.time() - max(beats)) > _SILENT_SECONDS:
        told = f"the daemon has been silent for {silent / 60:,.0f} min: what is on does not start"
    else:
        return ok("daemon", "the daemon is running")
    return warning("daemon", told, "Start one, and only one: dagster-daemon run.")
