"""What fleet.yaml switches on. A person who switches it off in the UI wins: Dagster remembers that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import dagster as dg

from aurum_orchestration.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from aurum_orchestration.fleet import Fleet

D = TypeVar("D", dg.ScheduleDefinition, dg.SensorDefinition)


def switch_on(fleet: Fleet, schedules: Sequence[dg.ScheduleDefinition], sensors: Sequence[dg.SensorDefinition]) -> None:
    """Give the schedules and sensors that the fleet's ``automation`` names the default status RUNNING.

    Raises ConfigurationError for a name that none has.
    """
    wanted = fleet.config.automation
    # there is no public way to change the status of one that is made, whatever kind of sensor it is
    for schedule in _named(fleet, "schedules", wanted.schedules, schedules):
        schedule._default_status = dg.DefaultScheduleStatus.RUNNING
    for sensor in _named(fleet, "sensors", wanted.sensors, sensors):
        sensor._default_status = dg.DefaultSensorStatus.RUNNING


def _named(fleet: Fleet, key: str, names: Sequence[str], made: Sequence[D]) -> list[D]:
    known = {one.name: one for one in made}
    for number, name in enumerate(names):
        if name not in known:
            raise ConfigurationError(
                f"{fleet.place(('automation', key, number))}: no {key.removesuffix('s')} is named {name!r}",
                hint=nearest(name, known),
            )
    return [known[name] for name in names]
