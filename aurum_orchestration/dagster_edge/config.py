"""Run config of the jobs, made from the operations' own parameter models: the launchpad explains each field."""

from __future__ import annotations

import enum
import logging
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import dagster as dg
from pydantic import BaseModel, Field, create_model
from pydantic.fields import FieldInfo

from aurum_orchestration.maintenance.rounds import Respect

_log = logging.getLogger(__name__)

TABLES = (
    "Globs over table ids, e.g. lake.flights.weather or lake.flights.*; * stops at a dot, ** does not. "
    "None given: every table of the fleet."
)

DRY_RUN = "Plan only: show what would be done and change nothing."

RESPECT = (
    "What holds the work back besides thresholds, which always do. nothing: somebody asked for it now. calendar: "
    "windows, blackouts, the night's budget, enabled: false and the pause after failures. decisions: cooldown too, as "
    "if the planner had asked. What is held back is skipped with the reason."
)

Caution = enum.Enum("Caution", {value.value: value.value for value in Respect}, type=str)  # type: ignore[misc]
"""Respect, with members that are named as they are written: Dagster's config goes by names."""


class HealthConfig(dg.Config):
    """What the ``health`` job measures."""

    tables: list[str] = Field(default_factory=list, description=TABLES)
    discover: bool = Field(
        default=True,
        description="First ask every backend which tables it has now. New tables become assets at the next "
        "reload of the code location; their numbers are recorded at once.",
    )
    observe: Literal["changed", "all"] = Field(
        default="changed",
        description="Which tables get an observation (a point in their plots): those that changed since the "
        "last recorded measurement, or all. 'all' writes one event per table.",
    )
    checks: Literal["changed", "all", "none"] = Field(
        default="changed",
        description="Which asset checks are told anew: those whose table or outcome changed, all, or none.",
    )


class OperationConfig(dg.Config):
    """What an operation's job is told. Its subclass types ``parameters`` for the operation."""

    tables: list[str] = Field(
        default_factory=list, description=f"{TABLES} Tables that do not need the operation are skipped."
    )
    dry_run: bool = Field(default=False, description=DRY_RUN)
    respect: Caution = Field(default=Caution(Respect.NOTHING.value), description=f"{RESPECT} Sensors set decisions.")

    def given(self) -> dict[str, Any]:
        """The parameters that were set, as the service takes them; what is absent follows policy."""
        parameters: BaseModel = self.parameters  # type: ignore[attr-defined]
        return parameters.model_dump(exclude_none=True, mode="json")


class RoundConfig(dg.Config):
    """What the ``maintenance`` job is told. Its subclass types ``parameters`` for each operation."""

    tables: list[str] = Field(default_factory=list, description=TABLES)
    operations: list[str] = Field(
        default_factory=list,
        description="Operations, done one after the other in this order. None given: what each table needs, as the "
        "planner decides.",
    )
    dry_run: bool = Field(default=False, description=DRY_RUN)
    respect: Caution | None = Field(
        default=None, description=f"{RESPECT} Left out: nothing when operations are given, else decisions."
    )
    max_tables: int | None = Field(default=None, ge=1, description="Tables worked on at most. Left out: no cap.")
    max_minutes: float | None = Field(
        default=None, ge=0, description="Only what is predicted to fit in these minutes is started. Left out: no cap."
    )
    max_gib: float | None = Field(
        default=None, ge=0, description="GiB read and written at most, as predicted. Left out: no cap."
    )

    def given(self) -> dict[str, dict[str, Any]]:
        """The parameters that were set, by the operation's name as Dagster writes it."""
        parameters: BaseModel = self.parameters  # type: ignore[attr-defined]
        told = parameters.model_dump(exclude_none=True, mode="json")
        return {operation: values for operation, values in told.items() if values}


class PurgeConfig(dg.Config):
    """What the ``purge`` job is told."""

    older_than_days: float = Field(
        default=30, ge=1, description="Runs that ended longer ago than this go, with their events and logs."
    )
    dry_run: bool = Field(default=True, description="Only say what would go. False: delete it.")
    runs: Literal["ours", "all"] = Field(
        default="ours",
        description="ours: runs of this code location's jobs (those with the tag aurum/operation). all: runs of every "
        "job in this Dagster instance, other teams' too.",
    )
    keep_last: int = Field(
        default=0, ge=0, description="So many of the newest ended runs of each job stay, whatever their age."
    )
    batch_size: int = Field(default=100, ge=1, le=10_000, description="Runs listed and deleted at a time.")
    history_older_than_days: float | None = Field(
        default=None,
        ge=1,
        description="Operations and health points in the project's own history older than this go too; operations "
        "that are gone cannot be undone. Left out: the history stays.",
    )


@cache
def round_config(operations: tuple[tuple[str, type[BaseModel]], ...]) -> type[RoundConfig]:
    """The config class of the ``maintenance`` job for these operations (name, model of its parameters)."""
    forms = {name: launch_form(name, parameters) for name, parameters in operations}
    fields: dict[str, Any] = {
        name: (form, Field(default_factory=form, description=_PARAMETERS.format(name))) for name, form in forms.items()
    }
    every = create_model("MaintenanceLaunchParameters", __base__=dg.Config, **fields)
    described = Field(default_factory=every, description="Parameters by operation, of those that `operations` names.")
    made = create_model("MaintenanceRoundConfig", __base__=RoundConfig, parameters=(every, described))
    made.__doc__ = "What the maintenance job is told."
    return made


_PARAMETERS = "Parameters of {} for this run. What is left out follows the policy."


@cache
def launch_form(name: str, parameters: type[BaseModel]) -> type[dg.Config]:
    """An operation's parameters as optional config fields."""
    title = _title(name)
    fields: dict[str, Any] = {key: _optional(title, key, info) for key, info in parameters.model_fields.items()}
    return create_model(f"{title}LaunchParameters", __base__=dg.Config, **fields)


def _title(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


@cache
def operation_config(name: str, parameters: type[BaseModel]) -> type[OperationConfig]:
    """The config class of the operation ``name`` whose parameters are described by that model."""
    form = launch_form(name, parameters)
    described = Field(default_factory=form, description=_PARAMETERS.format(name))
    made = create_model(f"{_title(name)}Config", __base__=OperationConfig, parameters=(form, described))
    made.__doc__ = f"What the {name} job is told."
    return made


def _optional(title: str, key: str, info: FieldInfo) -> tuple[Any, Any]:
    """One parameter as an optional config field: same meaning and limits, but absent unless a person sets it."""
    default = info.get_default(call_default_factory=True)
    fallback = "" if info.is_required() or default is None else f" (default {default!r})"
    text = f"{info.description or key}{_limits(info)} Left out: the table's policy{fallback}."
    kind = _dagster_type(f"{title}{key.capitalize()}", info.annotation)
    if info.metadata and kind is not Any:
        kind = Annotated[(kind, *info.metadata)]  # limits such as ge and le
    return (kind | None if kind is not Any else Any), Field(default=None, description=text)


def _limits(info: FieldInfo) -> str:
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    marks = [(say, getattr(mark, name, None)) for mark in info.metadata for name, say in words.items()]
    found = [f"{say} {limit}" for say, limit in marks if limit is not None]
    return f" {', '.join(found).capitalize()}." if found else ""


def _dagster_type(name: str, annotation: Any) -> Any:
    """The nearest type Dagster's config has; what it cannot express is checked by the operation itself."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal and all(isinstance(argument, str) for argument in arguments):
        return enum.Enum(name, {argument: argument for argument in arguments}, type=str)
    if origin in {Union, UnionType}:
        present = [argument for argument in arguments if argument is not type(None)]
        return _dagster_type(name, present[0]) if len(present) == 1 else Any
    if annotation in {int, float, bool, str} or (isinstance(annotation, type) and issubclass(annotation, enum.Enum)):
        return annotation
    if origin is list and arguments[0] in {int, float, bool, str}:
        return annotation
    return Any
