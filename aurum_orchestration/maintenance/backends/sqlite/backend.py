"""The SQLite backend: one file of the fleet."""

from __future__ import annotations

import asyncio
import importlib
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from aurum_orchestration.errors import AurumError, ConfigurationError, UnsupportedError
from aurum_orchestration.fleet.table_id import TableId, discovered_by
from aurum_orchestration.maintenance.backends.base import BaseMaintenanceBackend
from aurum_orchestration.maintenance.findings import Finding, HealthStatus, failure, ok, space, warning
from aurum_orchestration.maintenance.interfaces import (
    DiscoveredTable,
    MaintenancePlan,
    OperationType,
    PlanExecution,
    PolicyLookup,
    RunContext,
    TableHealth,
)

if TYPE_CHECKING:
    from aurum_orchestration.fleet.sqlite import SqliteBackendConfig
    from aurum_orchestration.maintenance.backends.sqlite.connection import Database
    from aurum_orchestration.maintenance.backends.sqlite.inspection import SqliteInspector

_HERE = "aurum_orchestration.maintenance.backends.sqlite"

HANDLERS = {
    "vacuum": f"{_HERE}.vacuum",
    "reindex": f"{_HERE}.reindex",
    "stats": f"{_HERE}.stats",
    "backup": f"{_HERE}.backup",
    "cleanup": f"{_HERE}.rules",
    "logs": f"{_HERE}.rules",
    "sessions": f"{_HERE}.rules",
}
"""The module that plans and executes each operation: ``plan(target, parameters)``, ``execution(plan, target)``."""


class SqliteMaintenanceBackend(BaseMaintenanceBackend):
    """A SQLite database. ``config``: ``path`` and the other keys of :class:`SqliteBackendConfig`.

    Each use opens the file anew, so it may be called from several threads, and moved between two uses.
    """

    @property
    def backend_type(self) -> str:
        """``sqlite``."""
        return "sqlite"

    @property
    def supported_operations(self) -> Sequence[OperationType]:
        """Those that have a handler, and those of `aurum maintenance --all` that it answers why not."""
        return [OperationType(name) for name in (*HANDLERS, OperationType.VIEWS, OperationType.BLOAT)]

    @property
    def refusals(self) -> Mapping[str, str]:
        """What SQLite cannot do, and why."""
        from aurum_orchestration.maintenance.backends.sqlite.measure import REFUSALS

        return REFUSALS

    @property
    def settings(self) -> SqliteBackendConfig:
        """The validated configuration. Raises ConfigurationError."""
        from aurum_orchestration.fleet.sqlite import SqliteBackendConfig

        try:
            return SqliteBackendConfig.model_validate({"type": self.backend_type, **self.config})
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            raise ConfigurationError(f"backend {self.name}: {key + ': ' if key else ''}{first['msg']}") from None

    @property
    def database(self) -> Database:
        """The file."""
        from aurum_orchestration.maintenance.backends.sqlite.connection import Database

        return Database(self.settings)

    async def _create_connection(self) -> Any:
        return await asyncio.to_thread(self.discover, ())

    def discover(self, patterns: Sequence[str]) -> list[DiscoveredTable]:
        """The database, and its tables."""
        from aurum_orchestration.maintenance.backends.sqlite.catalog import KIND, MAIN, tables_of

        database = self.database
        with database.look() as connection:
            tables = tables_of(connection)
        found = [DiscoveredTable(TableId(self.name, (MAIN,)), KIND[True], location=str(database.path))]
        for table in tables:
            id = TableId(self.name, (MAIN, table.name))
            if discovered_by(patterns, id):
                columns = tuple((column.name, column.type.lower()) for column in table.columns)
                found.append(DiscoveredTable(id, KIND[False], columns=columns))
        return found

    def measure(self, tables: Sequence[TableId], policy: PolicyLookup) -> list[TableHealth]:  # noqa: ARG002 - the base's
        """Health of the database and its tables."""
        from aurum_orchestration.maintenance.backends.sqlite.measure import measure

        return measure(self.name, self.database, tables)

    def checkup(self, tables: Sequence[DiscoveredTable]) -> list[Finding]:
        """Also rights, free space, and whether SQLite finds anything wrong in the file."""
        from aurum_orchestration.maintenance.backends.sqlite.catalog import integrity

        told = [*super().checkup(tables), *self._surroundings()]
        try:
            with self.database.look() as connection:
                wrong = integrity(connection, quick=True)
        except AurumError as error:
            return [*told, failure("integrity", error)]
        if wrong:
            hint = "Stop writing, take a copy, and restore the last backup."
            return [*told, warning("integrity", f"SQLite finds {wrong[0]}", hint)]
        return [*told, ok("integrity", "SQLite finds nothing wrong in the file")]

    def _surroundings(self) -> Iterator[Finding]:
        file, folder = self.database.path, self.database.path.parent
        yield ok("version", f"SQLite {sqlite3.sqlite_version}")
        if os.access(file, os.W_OK) and os.access(folder, os.W_OK | os.X_OK):
            yield ok("rights", "the file and its folder can be written to")
        else:
            hint = "Give this user the right to write the file and its folder."
            detail = f"{file} or its folder cannot be written to by this user: what writes fails"
            yield Finding(check="rights", status=HealthStatus.FAILED, detail=detail, hint=hint)
        usage = shutil.disk_usage(folder)
        yield space(usage.free, usage.total, f"at {folder}")

    def inspector(self) -> SqliteInspector:
        """What answers ``aurum report``."""
        from aurum_orchestration.maintenance.backends.sqlite.inspection import SqliteInspector

        return SqliteInspector(self.database)

    def plan(self, table: TableId, operation: str, parameters: BaseModel) -> MaintenancePlan:
        """Plan an operation on the database or a table. Raises UnsupportedError with the reason."""
        from aurum_orchestration.maintenance.backends.sqlite.catalog import load

        handler = self._handler(operation)
        plan: MaintenancePlan = handler.plan(load(table, self.database), parameters)
        return plan

    def open(self, plan: MaintenancePlan, run: RunContext) -> PlanExecution:
        """The steps of a plan. Raises StateDriftedError when another file is in its place."""
        from aurum_orchestration.maintenance.backends.sqlite.catalog import load

        run.check()
        target = load(TableId.parse(plan.table), self.database)
        target.require_planned(plan)
        execution: PlanExecution = self._handler(plan.operation).execution(plan, target)
        return execution

    def _handler(self, operation: str) -> ModuleType:
        if operation not in HANDLERS:
            told = self.refusals.get(operation, f"the sqlite backend has no {operation}")
            raise UnsupportedError(told, operation=operation)
        return importlib.import_module(HANDLERS[operation])
