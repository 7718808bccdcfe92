"""Cleanup, logs and sessions on SQLite: rule groups carried out, batch by batch."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aurum_orchestration.errors import TableNotFoundError, UnsupportedError, VerificationError
from aurum_orchestration.maintenance.backends.rules.chores import OPERATIONS, Chore
from aurum_orchestration.maintenance.backends.rules.work import Outlook, RulesExecution, Take, Taken, plan_rules
from aurum_orchestration.maintenance.backends.sqlite.catalog import MAIN, Table, Target, tables_of
from aurum_orchestration.maintenance.backends.sqlite.connection import Database, name, transaction, typed_errors, value
from aurum_orchestration.maintenance.backends.sqlite.references import require_free
from aurum_orchestration.maintenance.backends.sqlite.times import limits, old_rows
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, RunContext
from aurum_orchestration.maintenance.operations.rule_groups import RuleGroupParameters

_TRIGGERS = """
SELECT name FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = ? AND sql LIKE '%delete%' ORDER BY 1
"""
_ANY_TRIGGER = "SELECT 1 FROM main.sqlite_schema WHERE type = 'trigger' LIMIT 1"


def plan(target: Target, parameters: RuleGroupParameters) -> MaintenancePlan:
    """The chores whose rows are old. Raises UnsupportedError when no rule group is about the target."""
    operation = OPERATIONS[type(parameters)]
    engine = SqliteRules(target.database)
    table = target.id.parts if target.table is not None else None
    reason, steps, warnings = plan_rules(engine, target.database.config, table, parameters)
    return target.plan(operation, parameters.model_dump(), reason, steps, warnings)


def execution(plan: MaintenancePlan, target: Target) -> RulesExecution:
    """The chores."""
    return RulesExecution(plan, SqliteRules(target.database))


@dataclass(frozen=True)
class _Removal:
    """Which rows leave ``table``, and the table they go to."""

    table: Table
    old: str
    limits: dict[str, str | float]
    archive: Table | None

    def found(self, where: str = "1") -> str:
        """The keys of the next old rows: ``:rows`` of them."""
        keys = ", ".join(map(name, self.table.key))
        return f"SELECT {keys} FROM {self.table.sql} WHERE {where} AND {self.old} ORDER BY {keys} LIMIT :rows"

    def delete(self) -> str:
        """The deletion of one row by its key, if it is still old."""
        return f"DELETE FROM {self.table.sql} WHERE {self._one()} AND {self.old}"

    def move(self) -> str:
        """The same row into the archive."""
        columns = ", ".join(name(one.name) for one in self.table.columns)
        archive = self.archive.sql if self.archive else ""
        row = f"SELECT {columns} FROM {self.table.sql} WHERE {self._one()} AND {self.old}"
        return f"INSERT INTO {archive} ({columns}) {row}"

    def _one(self) -> str:
        return " AND ".join(f"{name(key)} = :key{number}" for number, key in enumerate(self.table.key))

    def row(self, key: Sequence[Any]) -> dict[str, Any]:
        """The parameters that name one row."""
        return {**self.limits, **{f"key{number}": part for number, part in enumerate(key)}}


class SqliteRules:
    """A SQLite database, for :mod:`..rules.work`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def now(self) -> datetime:
        """The clock of this machine, which is SQLite's, too."""
        return datetime.now(UTC)

    def look(self, chore: Chore, before: datetime) -> Outlook:
        """How many rows are old, with which statement they go, and what refers to them."""
        with self._database.look() as connection:
            removal = _removal(connection, chore, before)
            rows = value(connection, f"SELECT count(*) FROM {removal.table.sql} WHERE {removal.old}", removal.limits)
            warnings = require_free(connection, removal.table, removal.old, removal.limits, cascade=chore.cascade)
            triggers = connection.execute(_TRIGGERS, (removal.table.name,)).fetchall()
        warnings += [f"trigger {trigger} of {removal.table.name} may fire on each deletion" for (trigger,) in triggers]
        return Outlook(int(rows), removal.move() if removal.archive else removal.delete(), warnings=warnings)

    @contextmanager
    def batches(
        self,
        chore: Chore,
        before: datetime,
        run: RunContext,
        measured: dict[str, float],
        warnings: list[str],
    ) -> Iterator[Take]:
        """A connection that takes the batches, each a transaction."""
        with self._database.work(run) as connection:
            removal = _removal(connection, chore, before)
            require_free(connection, removal.table, removal.old, removal.limits, cascade=chore.cascade)
            yield _Taker(connection, removal, run, cascade=chore.cascade).take
            query = f"SELECT count(*) FROM {removal.table.sql} WHERE {removal.old}"
            measured["rows_left"] = float(value(connection, query, removal.limits))
            if measured["rows_left"]:
                warnings.append(f"{measured['rows_left']:,.0f} old rows are left: max_rows was reached")


class _Taker:
    """Takes batches in the order of the key, none looked at twice.

    SQLite counts every row that a transaction changes, those that foreign keys and triggers change included. Without
    either these are the rows of the batch; then that is the proof that nothing else went along.
    """

    def __init__(self, connection: sqlite3.Connection, removal: _Removal, run: RunContext, *, cascade: bool) -> None:
        self._connection, self._removal, self._run, self._cascade = connection, removal, run, cascade
        self._last: tuple[Any, ...] | None = None

    def take(self, rows: int) -> Taken:
        """One batch, committed. Raises LockTimeoutError, VerificationError."""
        with typed_errors(self._run), transaction(self._connection):
            removal, before = self._removal, self._connection.total_changes
            triggers = self._connection.execute(_ANY_TRIGGER).fetchone() is not None
            keys = self._next(rows)
            if triggers and not self._cascade:  # they count, too; rows that refer to old ones may have come meanwhile
                require_free(self._connection, removal.table, removal.old, removal.limits, cascade=False)
            moved = self._moved(keys) if self._removal.archive else 0
            deleted = sum(self._touched(self._removal.delete(), key) for key in keys)
            if self._removal.archive and moved != deleted:
                raise VerificationError(f"{moved} of {deleted} rows reached the archive; none of the batch was deleted")
            counted = None
            if not triggers and not self._cascade:
                counted = self._connection.total_changes - before - moved
                if counted != deleted:
                    raise VerificationError(
                        f"{counted - deleted} other rows went or changed with the {deleted} old ones; none did",
                        hint="They came to refer to old rows meanwhile. Set cascade: true if they may go along.",
                    )
        if keys:
            self._last = keys[-1]
        return Taken(deleted, len(keys), more=len(keys) == rows, archived=moved, counted=counted)

    def _next(self, rows: int) -> list[tuple[Any, ...]]:
        key = ", ".join(map(name, self._removal.table.key))
        if self._last is None:
            return self._connection.execute(self._removal.found(), {**self._removal.limits, "rows": rows}).fetchall()
        marks = ", ".join(f":key{number}" for number in range(len(self._last)))
        query = self._removal.found(f"({key}) > ({marks})")
        return self._connection.execute(query, {**self._removal.row(self._last), "rows": rows}).fetchall()

    def _moved(self, keys: Sequence[tuple[Any, ...]]) -> int:
        return sum(self._touched(self._removal.move(), key) for key in keys)

    def _touched(self, statement: str, key: tuple[Any, ...]) -> int:
        return self._connection.execute(statement, self._removal.row(key)).rowcount


def _removal(connection: sqlite3.Connection, chore: Chore, before: datetime) -> _Removal:
    """What a chore comes to. Raises TableNotFoundError, UnsupportedError."""
    if chore.action == "export":
        raise UnsupportedError(
            f"group {chore.title!r}: SQLite cannot tell later whether a killed run's rows were deleted",
            hint="Give archive_table instead of archive_path.",
        )
    table = _table(connection, chore.table)
    if not table.key:
        raise UnsupportedError(f"table {table.name} hides its rowid behind columns of that name")
    archive = _table(connection, chore.archive) if chore.archive else None
    missing = [one.name for one in table.columns if archive is not None and not archive.has(one.name)]
    if missing:
        raise UnsupportedError(
            f"archive table {archive.name if archive else ''} lacks columns of {table.name}: {', '.join(missing)}",
            hint="Make it with the same columns.",
        )
    return _Removal(table, old_rows(table, chore.column, chore.marked), limits(before, chore.time_zone), archive)


def _table(connection: sqlite3.Connection, parts: Sequence[str]) -> Table:
    if len(parts) == 2 and parts[0] != MAIN:
        raise TableNotFoundError(f"a SQLite database has one schema, {MAIN}: write {MAIN}.{parts[-1]}")
    found = next((table for table in tables_of(connection) if table.name == parts[-1]), None)
    if found is None or len(parts) > 2:
        raise TableNotFoundError(f"no table {'.'.join(parts)}")
    return found
