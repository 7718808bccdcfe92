"""``aurum maintenance --schedule``: switches a schedule of Dagster's on, through Dagster's own command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from aurum_orchestration.cli.activity import Activity
from aurum_orchestration.cli.output import print_json, print_text, stderr_console, stdout_console
from aurum_orchestration.cli.render.maintenance import render_switched
from aurum_orchestration.cli.session import Session
from aurum_orchestration.errors import ConfigurationError, RequestError
from aurum_orchestration.maintenance.shapes import Shape
from aurum_orchestration.maintenance.threads import in_thread

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.service import MaintenanceService

MODULE = "aurum_orchestration.definitions"
SCHEDULES = {"daily": "daily_light", "weekly": "weekly_full", "monthly": "monthly_reindex"}


class SwitchedSchedule(Shape):
    """A schedule that ``aurum maintenance --schedule`` switches on."""

    schedule: str = Field(description="Its name in Dagster.")
    cron: str = Field(description="When it ticks, in its time zone.")
    time_zone: str
    operations: list[str] = Field(description="What it launches, as far as the fleet's backends have it.")
    switched_on: bool = Field(description="False on a dry run.")


def schedule(session: Session, period: str, *, alone: bool, dry_run: bool) -> None:
    """Say which schedule that is and switch it on in the Dagster instance of DAGSTER_HOME."""
    name = SCHEDULES[period]

    async def switched(service: MaintenanceService) -> SwitchedSchedule:
        from aurum_orchestration.dagster_edge.schedules import TIMETABLES

        if not alone:
            raise RequestError(
                "--schedule says itself what is done", hint="Leave --operation, --all, --backend and --table out."
            )
        home = _dagster_home()
        zone = service.fleet.config.time_zone
        if not dry_run:
            await in_thread(_start, name, {"DAGSTER_HOME": str(home), "AURUM_FLEET": str(service.fleet.path or "")})
        timetable = TIMETABLES[name]
        return SwitchedSchedule(
            schedule=name,
            cron=timetable.cron,
            time_zone=zone,
            operations=[str(operation) for operation in timetable.operations],
            switched_on=not dry_run,
        )

    found = session.call(switched, Activity(stderr_console(), "Asking Dagster"))
    if session.json:
        print_json(SwitchedSchedule, [found])
    else:
        print_text(stdout_console(), render_switched(found))


def _dagster_home() -> Path:
    given = os.environ.get("DAGSTER_HOME", "")
    if given and Path(given).is_dir():
        return Path(given).absolute()
    raise ConfigurationError(
        f"DAGSTER_HOME is no folder: {given}" if given else "DAGSTER_HOME is not set",
        hint="Set it to the folder that holds dagster.yaml of the instance whose daemon is to run the schedule.",
    )


def _start(name: str, variables: dict[str, str]) -> None:
    environment = {**os.environ, **{key: value for key, value in variables.items() if value}}
    ran = subprocess.run(  # noqa: S603 - the name is one of ours
        [sys.executable, "-m", "dagster", "schedule", "start", name, "-m", MODULE],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        told = [line.strip() for line in (ran.stderr or ran.stdout).splitlines() if line.strip()]
        raise ConfigurationError(
            f"Dagster did not start {name}: {told[-1] if told else f'exit code {ran.returncode}'}",
            hint=f"Try it by hand: dagster schedule start {name} -m {MODULE}",
        )
