"""What fleet.yaml holds, as models. Policies stay plain mappings here: see :mod:`.policy`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic.functional_validators import ModelWrapValidatorHandler

from aurum_orchestration.errors import RequestError, redact
from aurum_orchestration.fleet.automation import AutomationConfig
from aurum_orchestration.fleet.notifications import NotificationRule
from aurum_orchestration.fleet.table_id import check_glob, literal_id
from aurum_orchestration.fleet.trino import TrinoKeys

PolicySections = dict[str, dict[str, Any]]
"""Policies as written: operation -> key -> value."""

BUILTIN_BACKEND_TYPES = ("iceberg", "postgres", "timescale", "clickhouse", "sqlite")

_OWNER = re.compile(r"team:.+|[^@\s]+@[^@\s]+\.[^@\s]+")


class NightBudget(BaseModel):
    """What the planner may spend on a backend in one night, from noon to noon in the fleet's time zone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tables: int | None = Field(default=None, ge=0, description="Tables worked on. Left out: no cap.")
    gib: float | None = Field(default=None, ge=0, description="GiB read and written. Left out: no cap.")
    minutes: float | None = Field(
        default=None, ge=0, description="Minutes of work, added up over all tables. Left out: no cap."
    )


class BackendConfig(BaseModel):
    """One backend. What its engine needs to connect are keys of its own, kept as they are."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = Field(description="Kind of backend: iceberg, postgres, timescale, clickhouse or sqlite.")
    engine: str | None = Field(default=None, description="What does the work, where a type has several engines.")
    discover: list[str] = Field(
        default_factory=list, description="Namespaces or globs, relative to the backend; none: everything."
    )
    policy: PolicySections = Field(default_factory=dict, description="Policies of all tables of this backend.")
    max_parallel: int = Field(
        default=2, ge=1, le=64, description="Operations at the same time on this backend, in one process."
    )
    budget: NightBudget = Field(
        default_factory=NightBudget, description="What the planner may spend on this backend in one night."
    )

    @field_validator("discover")
    @classmethod
    def _globs(cls, value: list[str]) -> list[str]:
        return [_glob(glob) for glob in value]

    @property
    def connection(self) -> dict[str, Any]:
        """What the backend itself is made from: the engine's own keys. Holds secrets."""
        return self.model_dump(exclude={"type", "discover", "policy", "max_parallel", "budget"}, exclude_none=True)

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Fields as printed: without secrets, which the environment put into connection keys."""
        return [(key, _Redacted(key or "", value)) for key, value in super().__repr_args__()]


class _Redacted:
    def __init__(self, key: str, value: Any) -> None:
        # what is a secret shows in its key
        self._text = redact(f"{key}={value!r}").removeprefix(f"{key}=")

    def __repr__(self) -> str:
        return self._text


def _property_text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


class IcebergBackendConfig(TrinoKeys, BackendConfig):
    """An Iceberg catalog, worked on by PyIceberg or through Trino."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["iceberg"] = Field(description="Kind of backend.")
    engine: Literal["pyiceberg", "trino", "auto"] = Field(
        default="pyiceberg", description="What does the work; `auto`: by size and by what a table needs."
    )
    catalog: dict[str, Annotated[Any, BeforeValidator(_property_text)]] = Field(
        default_factory=dict, description="PyIceberg's catalog properties; `name` defaults to the backend's name."
    )

    @model_validator(mode="after")
    def _auto_has_both(self) -> Self:
        if self.engine == "auto" and not self.catalog.keys() - {"name"}:
            raise ValueError("engine: auto needs both engines: give it the `catalog` properties of PyIceberg too")
        return self

    @property
    def connection(self) -> dict[str, Any]:
        """What the backend is made from: of Trino's keys those that are written."""
        left_out = TrinoKeys.model_fields.keys() - self.model_fields_set
        return {key: value for key, value in super().connection.items() if key not in left_out}


def backend_model(backend_type: Any) -> type[BackendConfig]:
    """The model of a backend type; a type without a model of its own may have any connection key."""
    if backend_type in {"postgres", "timescale"}:
        from aurum_orchestration.fleet.postgres import PostgresBackendConfig

        return PostgresBackendConfig
    if backend_type == "sqlite":
        from aurum_orchestration.fleet.sqlite import SqliteBackendConfig

        return SqliteBackendConfig
    return IcebergBackendConfig if backend_type == "iceberg" else BackendConfig


def _by_type(value: Any, _handler: ModelWrapValidatorHandler[BackendConfig]) -> BackendConfig:
    if isinstance(value, BackendConfig):
        return value
    return backend_model(value.get("type") if isinstance(value, Mapping) else None).model_validate(value)


class TableRule(BaseModel):
    """What holds for the tables that ``match`` describes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: str = Field(description="Glob over whole table ids: `*` stops at a dot, `**` does not.")
    owners: list[str] | None = Field(default=None, description='Who answers for the tables: "team:ops" or an email.')
    description: str | None = Field(default=None, description="What the tables are, in a sentence.")
    tags: dict[str, str] = Field(default_factory=dict, description="Tags of the tables' assets.")
    asset_key: list[str] | None = Field(
        default=None, min_length=1, description="Asset key instead of the id's parts; only where match is one table."
    )
    policy: PolicySections = Field(default_factory=dict, description="Policies of these tables.")

    @field_validator("match")
    @classmethod
    def _match(cls, value: str) -> str:
        return _glob(value)

    @field_validator("owners")
    @classmethod
    def _owners(cls, value: list[str] | None) -> list[str] | None:
        for owner in value or ():
            if not _OWNER.fullmatch(owner):
                raise ValueError(f'{owner!r} is neither an email address nor "team:" and a name')
        return value

    @field_validator("asset_key")
    @classmethod
    def _asset_key(cls, value: list[str] | None, info: Any) -> list[str] | None:
        if value is not None and "match" in info.data and literal_id(info.data["match"]) is None:
            raise ValueError("one asset cannot stand for several tables; write it where match is one table's id")
        return value


class FleetConfig(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = Field(description="Version of this format.")
    time_zone: str = Field(
        default="UTC", description="Zone of the schedules, the windows and the nights: `Europe/Berlin`."
    )
    backends: dict[str, SerializeAsAny[Annotated[BackendConfig, WrapValidator(_by_type)]]] = Field(
        min_length=1, description="Backends by name. The name is the first part of every table id."
    )
    policy: PolicySections = Field(default_factory=dict, description="Policies of all tables.")
    tables: list[TableRule] = Field(
        default_factory=list, description="Rules for some tables. Later ones win, and one table's id wins over globs."
    )
    notifications: list[NotificationRule] = Field(
        default_factory=list, description="Who is told of failures, and of what else. Each rule for itself."
    )
    automation: AutomationConfig = Field(
        default_factory=AutomationConfig, description="Schedules and sensors of Dagster that are on from the start."
    )

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, KeyError):
            close = difflib.get_close_matches(value, available_timezones(), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{value!r} is no time zone of the tz database{hint}") from None
        return value

    @field_validator("notifications")
    @classmethod
    def _one_rule_per_name(cls, value: list[NotificationRule]) -> list[NotificationRule]:
        names = [rule.name or str(number) for number, rule in enumerate(value, 1)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two rules are named {twice!r}")
        return value

    @field_validator("backends")
    @classmethod
    def _name_catalogs(cls, value: dict[str, BackendConfig]) -> dict[str, BackendConfig]:
        return {
            name: backend.model_copy(update={"catalog": {"name": name, **backend.catalog}})
            if isinstance(backend, IcebergBackendConfig)
            else backend
            for name, backend in value.items()
        }


def _glob(value: str) -> str:
    try:
        return check_glob(value)
    except RequestError as error:
        raise ValueError(error.detail) from error
