"""The seam between the service and a storage engine.

A backend knows one connection of the fleet. Connecting is asynchronous and lazy; the four verbs of
the flow (:meth:`~BaseMaintenanceBackend.discover`, ``measure``, ``plan``, ``open``) are plain
synchronous code, which the service runs in threads under the backend's limit. A backend never takes
leases, retries or writes history: the executor does, once for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel

from aurum_orchestration.errors import AurumError, UndoRefusedError, UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.database_report import DatabaseInspector
from aurum_orchestration.maintenance.findings import Finding, ok
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


class BaseMaintenanceBackend(ABC):
    """Base of all backends. Abstract: ``backend_type``, ``supported_operations``, ``_create_connection``.

    ``config`` are the engine's own settings as in fleet.yaml; ``name`` is the backend's name there
    (default: its type). Nothing is connected until first use.
    """

    def __init__(self, config: Mapping[str, Any] | None = None, *, name: str | None = None) -> None:
        self.config: dict[str, Any] = dict(config or {})
        self.name = name or self.backend_type
        self._connection: Any = None
        self._connecting = threading.Lock()

    @property
    @abstractmethod
    def backend_type(self) -> str:
        """The kind of backend: iceberg, postgres, ..."""

    @property
    @abstractmethod
    def supported_operations(self) -> Sequence[OperationType | str]:
        """The operations this backend has, for at least one kind of table."""

    @property
    def refusals(self) -> Mapping[str, str]:
        """Operations that it has for no kind of table, with what it answers instead."""
        return {}

    @abstractmethod
    async def _create_connection(self) -> Any:
        """Open whatever the engine needs and return it. Raises BackendUnavailableError."""

    async def _close_connection(self, connection: Any) -> None:
        """Close what ``_create_connection`` returned. Default: its ``close()`` if it has one."""
        close = getattr(connection, "close", None)
        if callable(close):
            await asyncio.to_thread(close)

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """One at a time, also between event loops: a backend may be shared by threads that each run one."""
        while not self._connecting.acquire(blocking=False):  # noqa: ASYNC110 - an asyncio.Event belongs to one loop
            await asyncio.sleep(0.01)
        try:
            yield
        finally:
            self._connecting.release()

    async def connect(self) -> None:
        """Connect if not connected yet."""
        async with self._alone():
            if self._connection is None:
                self._connection = await self._create_connection()

    async def disconnect(self) -> None:
        """Close the connection if there is one, and what was opened by use without :meth:`connect`."""
        async with self._alone():
            opened = self._has_opened
            connection, self._connection = self._connection, None
            if opened:
                await self._close_connection(connection)

    @property
    def _has_opened(self) -> bool:
        """Whether there is anything to close. A backend whose methods open things on first use knows of those, too."""
        return self._connection is not None

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.disconnect()

    async def health_check(self) -> bool:
        """True when the engine can be reached now."""
        try:
            await self.connect()
        except AurumError:
            return False
        return True

    def table_id(self, name: str) -> TableId:
        """The id of a table of this backend. The first part may be the backend's name or type, or missing."""
        table = TableId.parse(name if "." in name else f"{self.name}.{name}")
        if table.backend in {self.name, self.backend_type}:
            return TableId(self.name, table.parts)
        return TableId(self.name, (table.backend, *table.parts))

    def discover(self, patterns: Sequence[str]) -> list[DiscoveredTable]:
        """The tables whose ``namespace.table`` matches one of the globs (none given: all)."""
        raise UnsupportedError(f"a {self.backend_type} backend lists no tables")

    def names(self, patterns: Sequence[str]) -> list[DiscoveredTable]:
        """The same tables, told as fast as the engine can: all but their ids and kinds may be missing."""
        return self.discover(patterns)

    def checkup(self, tables: Sequence[DiscoveredTable]) -> list[Finding]:
        """What ``aurum doctor`` tells of the backend; ``tables`` are those that it listed just now. Writes nothing."""
        return [ok("reachable", f"it answers, with {len(tables):,} tables")]

    def inspector(self) -> DatabaseInspector:
        """What answers ``aurum report``. Raises UnsupportedError where the backend is no database."""
        raise UnsupportedError(f"a {self.backend_type} backend is no database")

    def measure(self, tables: Sequence[TableId], policy: PolicyLookup) -> list[TableHealth]:
        """Health of the tables, in the order given, in as few round trips as the engine allows.

        A table that cannot be measured has a ``problem``; the others are not affected.
        """
        raise UnsupportedError(f"a {self.backend_type} backend measures nothing")

    def plan(self, table: TableId, operation: str, parameters: BaseModel) -> MaintenancePlan:
        """What the operation would do now. Writes nothing. A plan without steps says why in ``reason``.

        Raises UnsupportedError with the reason when this engine cannot do it to this table.
        """
        raise UnsupportedError(f"a {self.backend_type} backend has no {operation}", operation=operation)

    def plan_undo(self, table: TableId, result: MaintenanceResult) -> MaintenancePlan:
        """What taking back the operation that ended with ``result`` would do now; :meth:`open` opens it.

        The plan's operation is ``undo``. Raises UndoRefusedError with the reason when nothing can take it back.
        """
        raise UndoRefusedError(
            f"a {self.backend_type} backend takes nothing back by itself", operation=str(result.config.operation_type)
        )

    def open(self, plan: MaintenancePlan, run: RunContext) -> PlanExecution:
        """Make a plan executable."""
        raise UnsupportedError(f"a {self.backend_type} backend has no {plan.operation}", operation=plan.operation)
