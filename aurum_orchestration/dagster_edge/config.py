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

_log = logging.getLogger(__name__)

TABLES = (
    "Globs over table ids, e.g. lake.flights.weather or lake.flights.*; * stops at a dot, ** does not. "
    "None given: every table of the fleet."
)


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


class OperationConfig(dg.Config):
    """What an operation's job is told. Its subclass types ``parameters`` for the operation."""

    tables: list[str] = Field(
        default_factory=list, description=f"{TABLES} Tables that do not need the operation are skipped."
    )
    dry_run: bool = Field(default=False, description="Plan only: show what would be done and change nothing.")

    def given(self) -> dict[str, Any]:
        """The parameters that were set, as the service takes them; what is absent follows policy."""
        parameters: BaseModel = self.parameters  # type: ignore[attr-defined]
        return parameters.model_dump(exclude_none=True, mode="json")


@cache
def operation_config(name: str, parameters: type[BaseModel]) -> type[OperationConfig]:
    """The config class of the operation ``name`` whose parameters are described by that model."""
    title = "".join(word.capitalize() for word in name.split("_"))
    fields: dict[str, Any] = {key: _optional(title, key, info) for key, info in parameters.model_fields.items()}
    form = create_model(f"{title}LaunchParameters", __base__=dg.Config, **fields)
    described = Field(
        default_factory=form, description=f"Parameters of {name} for this run. What is left out follows the policy."
    )
    made = create_model(f"{title}Config", __base__=OperationConfig, parameters=(form, described))
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
