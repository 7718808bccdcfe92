"""The PostgreSQL backend: one database of the fleet."""

from __future__ import annotations

import asyncio
import importlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from aurum_orchestration.errors import ConfigurationError, LockTimeoutError, UndoRefusedError, UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.base import BaseMaintenanceBackend
from aurum_orchestration.maintenance.findings import Finding
from aurum_orchestration.maintenance.interfaces import (
    DiscoveredTable,
    MaintenancePlan,
    MaintenanceResult,
    OperationType,
    PlanExecution,
    PolicyLookup,
    RunContext,
    TableHealth,
)
from aurum_orchestration.maintenance.operations.undo import UNDO

if TYPE_CHECKING:
    from aurum_orchestration.fleet.postgres import PostgresBackendConfig
    from aurum_orchestration.maintenance.backends.postgres.connection import Sessions
    from aurum_orchestration.maintenance.backends.postgres.inspection import PostgresInspector
    from aurum_orchestration.maintenance.backends.postgres.server import ServerFacts
    from aurum_orchestration.maintenance.backends.postgres.table import Database

_HERE = "aurum_orchestration.maintenance.backends.postgres"

HANDLERS = {
    "vacuum": f"{_HERE}.vacuum.handler",
    "bloat": f"{_HERE}.bloat.handler",
    "cleanup": f"{_HERE}.rules.handler",
    "logs": f"{_HERE}.rules.handler",
    "sessions": f"{_HERE}.rules.handler",
    "retention": f"{_HERE}.retention.handler",
    "partition_evolution": f"{_HERE}.partition_evolution.handler",
    "backup": f"{_HERE}.backup.handler",
    "reindex": f"{_HERE}.reindex.handler",
    "views": f"{_HERE}.views.handler",
    "stats": f"{_HERE}.stats.handler",
    "compaction": f"{_HERE}.compaction.handler",
}
"""The module that plans and executes each operation: ``plan(target, id, parameters)``, ``execution(plan, target)``.

The target is a :class:`~.table.PgTable` or a :class:`~.table.Database`. One whose work can be taken back also has
``undo(target, result)``, the plan that does it, and ``undo_execution(plan, target)``.
"""

READING = frozenset({"backup", "bloat", "stats"})
"""Operations that a server which takes no writes serves, too."""

FACTS_HOLD = 60.0
"""Seconds after which the server is looked at anew: it may have become a replica."""


class PostgresMaintenanceBackend(BaseMaintenanceBackend):
    """A PostgreSQL database. ``config``: the connection keys of :class:`PostgresBackendConfig` and its rule groups.

    Nothing is opened before first use. Synchronous methods may be called from several threads.
    """

    handlers: Mapping[str, str] = HANDLERS

    def __init__(self, config: Mapping[str, Any] | None = None, *, name: str | None = None) -> None:
        super().__init__(config, name=name)
        self._opening = threading.Lock()
        self._sessions: Sessions | None = None
        self._facts: tuple[float, ServerFacts] | None = None

    @property
    def backend_type(self) -> str:
        """``postgres``."""
        return "postgres"

    @property
    def supported_operations(self) -> Sequence[OperationType]:
        """Those that have a handler."""
        return [OperationType(name) for name in self.handlers]

    @property
    def settings(self) -> PostgresBackendConfig:
        """The validated configuration. Raises ConfigurationError, without the values."""
        from aurum_orchestration.fleet.postgres import PostgresBackendConfig

        try:
            return PostgresBackendConfig.model_validate({"type": self.backend_type, **self.config})
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            raise ConfigurationError(f"backend {self.name}: {key + ': ' if key else ''}{first['msg']}") from None

    @property
    def sessions(self) -> Sessions:
        """The connections; none is open before the first use."""
        from aurum_orchestration.maintenance.backends.postgres.connection import Sessions

        with self._opening:
            if self._sessions is None:
                self._sessions = Sessions(self.settings)
            return self._sessions

    def server(self) -> ServerFacts:
        """What the server is. Raises BackendUnavailableError, AccessDeniedError, UnsupportedError."""
        from aurum_orchestration.maintenance.backends.postgres.server import detect

        sessions = self.sessions
        known = self._facts
        if known is None or time.monotonic() - known[0] > FACTS_HOLD:
            known = self._facts = (time.monotonic(), detect(sessions.config, sessions.options))
        return known[1]

    async def _create_connection(self) -> Any:
        return await asyncio.to_thread(self.server)

    @property
    def _has_opened(self) -> bool:
        return self._connection is not None or self._sessions is not None

    async def _close_connection(self, connection: Any) -> None:  # noqa: ARG002 - the sessions are kept here
        with self._opening:
            opened, self._sessions, self._facts = self._sessions, None, None
        if opened is not None:
            await asyncio.to_thread(opened.close)

    def discover(self, patterns: Sequence[str]) -> list[DiscoveredTable]:
        """The database itself, and its tables, partitioned tables and materialized views."""
        from aurum_orchestration.maintenance.backends.postgres.catalog import list_tables

        return list_tables(self.name, self.sessions, self.server(), patterns)

    def checkup(self, tables: Sequence[DiscoveredTable]) -> list[Finding]:
        """Version, rights, replica, who is in the way, wraparound, invalid indexes, autovacuum, connections, clock."""
        from aurum_orchestration.maintenance.backends.postgres.checkup import checkup

        return checkup(self.sessions, self.server(), tables)

    def inspector(self) -> PostgresInspector:
        """What answers ``aurum report``."""
        from aurum_orchestration.maintenance.backends.postgres.inspection import PostgresInspector

        return PostgresInspector(self.sessions, self.server())

    def measure(self, tables: Sequence[TableId], policy: PolicyLookup) -> list[TableHealth]:  # noqa: ARG002 - the base's
        """Health of the tables in one statement, of the database in another."""
        from aurum_orchestration.maintenance.backends.postgres.measure import measure
        from aurum_orchestration.maintenance.backends.postgres.native import with_driven

        server = self.server()
        healths = with_driven(self.sessions, server, measure(self.name, self.sessions, server, tables))
        writing = {name: server.why_no_writes(name) for name in self.handlers if name not in READING}
        refused = {name: reason for name, reason in writing.items() if reason is not None}
        # a replica counts no dead rows: without this all its tables would be told as healthy
        return [replace(one, refusals={**one.refusals, **refused}) for one in healths] if refused else healths

    def plan(self, table: TableId, operation: str, parameters: BaseModel) -> MaintenancePlan:
        """Plan an operation on a table or on the database. What the database does by itself is left to it."""
        from aurum_orchestration.maintenance.backends.postgres.native import refuse_driven

        with self.sessions.sharing("plan"):
            target = self.load(table)
            handler = self.handler(operation, target)
            refuse_driven(target, operation)
            try:
                plan: MaintenancePlan = handler.plan(target, table, parameters)
            except LockTimeoutError as error:
                raise target.naming(error) from error
        return plan

    def plan_undo(self, table: TableId, result: MaintenanceResult) -> MaintenancePlan:
        """Plan taking an operation back. Raises UndoRefusedError with the reason when nothing can."""
        operation = str(result.config.operation_type)
        target = self.load(table)
        handler = self.handler(operation, target)
        if not hasattr(handler, "undo"):
            raise UndoRefusedError(f"nothing takes {operation} back" + (f": {result.undo}" if result.undo else ""))
        plan: MaintenancePlan = handler.undo(target, result)
        return plan

    def open(self, plan: MaintenancePlan, run: RunContext) -> PlanExecution:
        """The steps of a plan, on the table as it is now. Raises StateDriftedError when it is another one."""
        run.check()
        target = self.load(TableId.parse(plan.table))
        target.require_planned(plan)
        execution: PlanExecution
        if plan.operation == UNDO:
            execution = self.handler(plan.parameters["operation"], target).undo_execution(plan, target)
        else:
            execution = self.handler(plan.operation, target).execution(plan, target)
        return execution

    def load(self, table: TableId) -> Database:
        """The target that an id means. Raises TableNotFoundError."""
        from aurum_orchestration.maintenance.backends.postgres.table import load

        return load(table, self.sessions, self.server())

    def handler(self, operation: str, target: Database) -> ModuleType:  # noqa: ARG002 - other kinds of databases go by it
        """The module that plans and executes an operation on a target. Raises UnsupportedError when there is none."""
        if operation not in self.handlers:
            raise UnsupportedError(f"the {self.backend_type} backend has no {operation}", operation=operation)
        return importlib.import_module(self.handlers[operation])
