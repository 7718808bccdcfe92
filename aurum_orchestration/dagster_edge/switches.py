"""Which schedules and sensors of the code location are switched on, in the Dagster instance of the environment."""

from __future__ import annotations

import os

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorStatus

from aurum_orchestration.maintenance.findings import Finding, HealthStatus, ok, warning

_RUNNING = frozenset({InstigatorStatus.RUNNING, InstigatorStatus.DECLARED_IN_CODE})


def switched_on() -> list[Finding]:
    """What is on, as a finding of ``aurum doctor``. Without DAGSTER_HOME nothing is known."""
    if not os.environ.get("DAGSTER_HOME"):
        return [ok("switches", "DAGSTER_HOME is not set: which schedules and sensors are on is not known here")]
    try:
        with dg.DagsterInstance.get() as instance:
            running = sorted(state.name for state in instance.all_instigator_state() if state.status in _RUNNING)
    except Exception as error:
        return [
            Finding(
                check="switches",
                status=HealthStatus.FAILED,
                detail=f"the Dagster instance cannot be read: {type(error).__name__}: {error}",
                hint="DAGSTER_HOME has to be the folder of a working instance with its dagster.yaml.",
            )
        ]
    if not running:
        return [
            warning(
                "switches",
                "no schedule and no sensor is on: nothing starts by itself",
                "Switch them on in the Dagster UI under Automation, by `aurum maintenance --schedule daily`, or by "
                "automation in fleet.yaml.",
            )
        ]
    return [ok("switches", f"{len(running):,} on: {', '.join(running)}")]
