"""Rule groups: which rows of which tables the operations cleanup, logs and sessions take away."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

DELETE_AFTER_DAYS = {"cleanup": 730.0, "logs": 90.0, "sessions": 0.0}
ARCHIVE_AFTER_DAYS = 365.0
BATCH_SIZE = {"cleanup": 1_000, "logs": 10_000, "sessions": 10_000}
"""What holds by operation where a group does not say."""

_NAME = re.compile(r'"((?:[^"]|"")+)"|([^".\s]+)')


def name_parts(name: str) -> tuple[str, ...]:
    """The parts of ``schema.name``, with names in double quotes taken as they are. Raises ValueError."""
    parts: list[str] = []
    rest = f".{name.strip()}"
    while rest:
        found = _NAME.match(rest, 1) if rest.startswith(".") else None
        if found is None:
            raise ValueError(f"{name!r} is no table name: write schema.name")
        parts.append(found[1].replace('""', '"') if found[1] is not None else found[2])
        rest = rest[found.end() :]
    return tuple(parts)


class RuleGroup(BaseModel):
    """Old rows of one table. A row is old by the age of its time column, or once its expiry column has passed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(min_length=1, description="Name of the group in results, e.g. Audit Logs.")
    table: str = Field(description="The table, as schema.name; names with odd characters in double quotes.")
    time_column: str | None = Field(default=None, description="Column (timestamp or date) that says how old a row is.")
    age_days: float | None = Field(
        default=None,
        ge=0,
        le=365_000,
        allow_inf_nan=False,
        description="Rows older than so many days by time_column are deleted. Default: cleanup 730, logs 90.",
    )
    expiry_column: str | None = Field(
        default=None, description="Column that says when a row expires, instead of time_column."
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Rows per transaction. Default: 1,000 in cleanup, else 10,000.",
    )
    soft_delete_column: str | None = Field(
        default=None,
        description="Only rows marked as deleted: this column is true, or, where it is a time, set.",
    )
    archive_table: str | None = Field(
        default=None, description="Table, as schema.name, that rows are copied to before they are deleted."
    )
    archive_path: str | None = Field(
        default=None,
        description="Folder or URL (s3://bucket/prefix) that rows are written to as Parquet before they are deleted.",
    )
    archive_after_days: float | None = Field(
        default=None,
        ge=0,
        le=365_000,
        allow_inf_nan=False,
        description="Rows older than so many days are archived, and deleted from the archive table at age_days. "
        "Default: 365 in cleanup with an archive table; elsewhere rows are archived when they are deleted.",
    )
    time_zone: str = Field(
        default="UTC", description="IANA zone in which a column without zone was written, e.g. Europe/Berlin."
    )
    cascade: bool = Field(
        default=False,
        description="True: rows of other tables may be deleted or changed along, by ON DELETE CASCADE or SET NULL. "
        "False: the group is left out while there are such rows.",
    )

    @field_validator("table", "archive_table")
    @classmethod
    def _a_name(cls, name: str | None) -> str | None:
        if name is not None:
            name_parts(name)
        return name

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ValueError, OSError, KeyError) as error:
            raise ValueError(f"no time zone {name!r}: write a name like Europe/Berlin") from error
        return name

    @model_validator(mode="after")
    def _one_clock(self) -> Self:
        if (self.time_column is None) == (self.expiry_column is None):
            raise ValueError(f"group {self.title!r} needs time_column or expiry_column, and not both")
        if self.archive_table is not None and self.archive_path is not None:
            raise ValueError(f"group {self.title!r}: give archive_table or archive_path, not both")
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the table's name."""
        return name_parts(self.table)

    def days(self, operation: str) -> float:
        """Days after which rows of the group are deleted by an operation; 0 with an expiry column."""
        if self.expiry_column is not None and self.age_days is None:
            return 0.0
        return DELETE_AFTER_DAYS[operation] if self.age_days is None else self.age_days

    def rows_per_batch(self, operation: str) -> int:
        """Rows per transaction of an operation."""
        return self.batch_size or BATCH_SIZE[operation]


class RuleGroups(BaseModel):
    """The keys of a backend that hold rule groups: part of the configuration of every SQL backend."""

    home: ClassVar[str] = "public"
    """The schema of tables that groups name without one."""

    cleanup: list[RuleGroup] = Field(default_factory=list, description="Rule groups of the operation cleanup.")
    logs: list[RuleGroup] = Field(default_factory=list, description="Rule groups of the operation logs.")
    sessions: list[RuleGroup] = Field(default_factory=list, description="Rule groups of the operation sessions.")

    @field_validator("cleanup", "logs", "sessions")
    @classmethod
    def _titles_differ(cls, groups: list[RuleGroup]) -> list[RuleGroup]:
        titles = [group.title for group in groups]
        twice = next((title for title in titles if titles.count(title) > 1), None)
        if twice is not None:
            raise ValueError(f"two groups have the title {twice!r}")
        return groups

    def groups(self, operation: str) -> list[RuleGroup]:
        """The groups of cleanup, logs or sessions."""
        groups: list[RuleGroup] = getattr(self, operation)
        return groups

    def groups_about(self, operation: str, table: Sequence[str]) -> list[RuleGroup]:
        """Those of them that are about a table, given by schema and name."""
        return [group for group in self.groups(operation) if self._whole(group) == tuple(table)]

    def counts(self) -> Mapping[tuple[str, ...], dict[str, float]]:
        """Of each table that groups are about, by schema and name: ``cleanup_groups`` and so on, how many."""
        about: dict[tuple[str, ...], dict[str, float]] = {}
        for operation in DELETE_AFTER_DAYS:
            for group in self.groups(operation):
                counts = about.setdefault(self._whole(group), {})
                counts[f"{operation}_groups"] = counts.get(f"{operation}_groups", 0.0) + 1
        return about

    def _whole(self, group: RuleGroup) -> tuple[str, ...]:
        return group.parts if len(group.parts) > 1 else (self.home, *group.parts)
