"""What the rule groups of an operation come to: chores, each about the old rows of one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from aurum_orchestration.errors import ConfigurationError, UnknownNameError, UnsupportedError, nearest
from aurum_orchestration.fleet.rule_groups import ARCHIVE_AFTER_DAYS, RuleGroup, RuleGroups, name_parts
from aurum_orchestration.maintenance.operations.cleanup import CleanupParameters
from aurum_orchestration.maintenance.operations.logs import LogsParameters
from aurum_orchestration.maintenance.operations.rule_groups import RuleGroupParameters
from aurum_orchestration.maintenance.operations.sessions import SessionsParameters

OPERATIONS: dict[type[RuleGroupParameters], str] = {
    CleanupParameters: "cleanup",
    LogsParameters: "logs",
    SessionsParameters: "sessions",
}
"""Parameters -> the operation that they are of."""

Action = Literal["delete", "move", "export"]
"""Rows are deleted; or go to another table first; or into Parquet files first. Always in one transaction."""


@dataclass(frozen=True, slots=True)
class Chore:
    """The rows of ``table`` that are older than ``days`` by ``column`` leave it, in transactions of ``batch`` rows.

    ``title``: of the rule group. ``archive``: the table that rows are moved to; ``path``: the folder or URL that they
    are exported to. ``marked``: only rows with this column true or set. ``time_zone``: of a column without zone.
    ``cascade``: rows of other tables that foreign keys take along may go, too.
    """

    title: str
    table: tuple[str, ...]
    column: str
    days: float
    batch: int
    action: Action = "delete"
    archive: tuple[str, ...] | None = None
    path: str | None = None
    marked: str | None = None
    time_zone: str = "UTC"
    cascade: bool = False

    @property
    def name(self) -> str:
        """The table's name, for people."""
        return ".".join(self.table)

    def as_json(self) -> dict[str, Any]:
        """For the detail of a plan's step."""
        given = asdict(self)
        return {**given, "table": list(self.table), "archive": list(self.archive) if self.archive else None}

    @classmethod
    def of_json(cls, given: dict[str, Any]) -> Chore:
        """Back from a plan's step."""
        archive = given["archive"]
        return cls(**{**given, "table": tuple(given["table"]), "archive": tuple(archive) if archive else None})


def chosen_groups(
    config: RuleGroups, operation: str, table: Sequence[str] | None, titles: Sequence[str]
) -> list[RuleGroup]:
    """The groups of an operation: all of them, or those on a table (its name's parts), or with these titles.

    Raises UnsupportedError when there is none, UnknownNameError for a title that no group has.
    """
    groups = config.groups(operation)
    known = [group.title for group in groups]
    for title in titles:
        if title not in known:
            raise UnknownNameError(f"no rule group {title!r} of {operation}", hint=nearest(title, known))
    if not groups:
        raise UnsupportedError(
            f"the backend has no rule group of {operation}",
            operation=operation,
            hint=f"fleet.yaml says which rows are old: {operation}: [{{title: ..., table: schema.name, ...}}].",
        )
    if table is not None:
        groups = config.groups_about(operation, table)
        if not groups:
            raise UnsupportedError(f"no rule group of {operation} is about {'.'.join(table)}", operation=operation)
    return [group for group in groups if not titles or group.title in titles]


def chores_of(group: RuleGroup, operation: str, batch: int | None = None) -> list[Chore]:
    """The chores of a group, in order: rows go to the archive first, and leave it when they are old enough.

    ``batch``: rows per transaction, instead of the group's own. Raises ConfigurationError.
    """
    column = group.time_column or group.expiry_column or ""
    days = group.days(operation)
    after = group.archive_after_days
    if after is None and operation == "cleanup" and group.archive_table and group.time_column:
        after = ARCHIVE_AFTER_DAYS
    if after is not None and after > days:
        raise ConfigurationError(
            f"group {group.title!r}: rows are deleted after {days:g} days, before they are archived after {after:g}"
        )
    table = group.parts
    rows = batch or group.rows_per_batch(operation)
    here = Chore(
        group.title,
        table,
        column,
        days,
        rows,
        marked=group.soft_delete_column,
        time_zone=group.time_zone,
        cascade=group.cascade,
    )
    told = asdict(here)
    if group.archive_table is not None:
        archive = name_parts(group.archive_table)
        if archive == table:
            raise ConfigurationError(f"group {group.title!r}: a table cannot be its own archive")
        move = Chore(**{**told, "days": days if after is None else after, "action": "move", "archive": archive})
        if after is None:
            return [move]
        return [move, Chore(**{**told, "table": archive, "marked": None})]
    if group.archive_path is not None:
        kept = days if after is None else after
        return [Chore(**{**told, "days": kept, "action": "export", "path": group.archive_path})]
    if after is not None:
        raise ConfigurationError(f"group {group.title!r}: archive_after_days needs archive_table or archive_path")
    return [here]
