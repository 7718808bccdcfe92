"""Who is told what: the rules under ``notifications`` in fleet.yaml."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator

from aurum_orchestration.errors import AurumError
from aurum_orchestration.fleet.table_id import TableId, check_glob, matches


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Event = Literal["failed", "completed", "cancelled", "skipped"]
"""How an operation may end that somebody wants to be told of."""

_Written = Annotated[list[str], Field(min_length=1)] | str


class NotificationRule(BaseModel):
    """What some people want to be told, and where. The URLs hold secrets and are never printed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = Field(
        default=None,
        pattern=r"^[\w.-]+$",  # a repetition with bounds takes a hundred times as long to compile
        max_length=60,
        description="What logs and the outbox call the rule. Left out: its position, from 1.",
    )
    urls: Annotated[list[SecretStr], BeforeValidator(_one_or_many, json_schema_input_type=_Written)] = Field(
        min_length=1, description="Where to, as apprise writes it: slack, mailto, json and a hundred more."
    )
    on: list[Event] = Field(default=["failed"], min_length=1, description="Which ends of an operation are told.")
    tables: list[str] = Field(default_factory=list, description="Globs over table ids. None: every table.")
    operations: list[str] = Field(default_factory=list, description="Names of operations. None: every operation.")
    give_up_days: float = Field(
        default=3, gt=0, description="Days after which a notice that could not be sent is given up."
    )

    @field_validator("tables")
    @classmethod
    def _globs(cls, value: list[str]) -> list[str]:
        for glob in value:
            try:
                check_glob(glob)
            except AurumError as error:
                raise ValueError(error.detail) from error
        return value

    def wants(self, event: str, operation: str, table: str) -> bool:
        """Whether the rule is about that end of that operation on that table."""
        return event in self.on and self.covers_operation(operation) and self.covers_table(table)

    def covers_operation(self, operation: str) -> bool:
        """Whether the rule is about that operation."""
        return not self.operations or operation in self.operations

    def covers_table(self, table: str) -> bool:
        """Whether the rule is about that table; an id that cannot be read is nobody's."""
        if not self.tables:
            return True
        try:
            found = TableId.parse(table)
        except AurumError:
            return False
        return any(matches(glob, found) for glob in self.tables)


class Destination(BaseModel):
    """One URL of one rule, by a name that may be printed."""

    model_config = ConfigDict(frozen=True)

    name: str
    rule: NotificationRule
    url: SecretStr

    @property
    def kind(self) -> str:
        """What the URL begins with: slack, mailto, json, ..."""
        return self.url.get_secret_value().partition(":")[0][:20]


def destinations(rules: Sequence[NotificationRule]) -> Iterator[Destination]:
    """Every URL of the rules, in order. A rule that is renamed or moved is another destination."""
    for number, rule in enumerate(rules, 1):
        for position, url in enumerate(rule.urls, 1):
            yield Destination(name=f"{rule.name or number}/{position}", rule=rule, url=url)
