"""The Iceberg backend: one catalog of the fleet, on the embedded engine, through Trino, or on whichever fits."""

from __future__ import annotations

import asyncio
import importlib
import threading
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from aurum_orchestration.errors import (
    AurumError,
    BackendUnavailableError,
    ConfigurationError,
    CorruptTableError,
    RequestError,
    StateDriftedError,
    UndoRefusedError,
    UnsupportedError,
    nearest,
)
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.base import BaseMaintenanceBackend
from aurum_orchestration.maintenance.findings import Finding
from aurum_orchestration.maintenance.interfaces import (
    DiscoveredTable,
    MaintenancePlan,
    MaintenanceResult,
    MaintenanceStatus,
    OperationType,
    PlanExecution,
    PolicyLookup,
    RunContext,
    TableHealth,
)
from aurum_orchestration.maintenance.operations.undo import UNDO

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from aurum_orchestration.maintenance.backends.iceberg.measure import IcebergMeasurer
    from aurum_orchestration.maintenance.backends.iceberg.sources import Source
    from aurum_orchestration.maintenance.backends.iceberg.sql_listing import SqlListing
    from aurum_orchestration.maintenance.backends.iceberg.trino.engine import TrinoEngine

EMBEDDED, TRINO, AUTO = "pyiceberg", "trino", "auto"
ENGINES = (EMBEDDED, TRINO, AUTO)

_MAIN_MOVES = {"rollback_to", "snapshots"}
"""What is recorded of an operation that only moved main, by both engines alike."""

HANDLERS = {
    "compaction": "aurum_orchestration.maintenance.backends.iceberg.compact.handler",
    "manifests": "aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.handler",
    "partition_evolution": "aurum_orchestration.maintenance.backends.iceberg.evolution.handler",
    "retention": "aurum_orchestration.maintenance.backends.iceberg.retention.handler",
    "vacuum": "aurum_orchestration.maintenance.backends.iceberg.vacuum.handler",
    "backup": "aurum_orchestration.maintenance.backends.iceberg.backup.handler",
    "bloat": "aurum_orchestration.maintenance.backends.iceberg.bloat.handler",
    "stats": "aurum_orchestration.maintenance.backends.iceberg.stats.handler",
}
"""The module that plans and executes each operation: ``plan(table, id, parameters)``, ``execution(plan, table)``.

One whose work can be taken back also has ``undo(table, result)``, the plan that does it (made by
:func:`~aurum_orchestration.maintenance.backends.iceberg.rollback.undo_plan`), and ``undo_execution(plan, table)``.
"""


def handler_of(operation: str) -> ModuleType:
    """The module of an operation. Raises UnsupportedError for one that this engine does not have."""
    if operation not in HANDLERS:
        raise UnsupportedError(f"the embedded Iceberg engine has no {operation}", operation=operation)
    return importlib.import_module(HANDLERS[operation])


class IcebergMaintenanceBackend(BaseMaintenanceBackend):
    """A catalog. ``config``: ``engine`` (``pyiceberg``, ``trino`` or ``auto``), ``catalog``, its PyIceberg properties,
    and the keys of :class:`~aurum_orchestration.fleet.trino.TrinoKeys`.

    Nothing is opened before first use. Synchronous methods may be called from several threads.
    """

    def __init__(self, config: Mapping[str, Any] | None = None, *, name: str | None = None) -> None:
        super().__init__(config, name=name)
        catalog = self.config.get("catalog") or {}
        # a name alone is Trino's: PyIceberg needs to know where the catalog is
        self._has_catalog = bool(catalog.keys() - {"name"})
        engine = self.config.get("engine") or EMBEDDED
        if engine not in ENGINES:
            raise ConfigurationError(
                f"backend {self.name}: engine {engine!r} is not known", hint=nearest(str(engine), ENGINES)
            )
        self.engine = str(engine)
        self._only_trino = self.engine == TRINO and not self._has_catalog
        self._trino: TrinoEngine | None = None
        self._opening = threading.Lock()
        self._opened: Catalog | None = None
        self._listing: SqlListing | None = None
        self._measurer: IcebergMeasurer | None = None
        self._lister: Source | None = None

    @property
    def backend_type(self) -> str:
        """``iceberg``."""
        return "iceberg"

    @property
    def supported_operations(self) -> Sequence[OperationType]:
        """Those that have a handler."""
        return [OperationType(name) for name in HANDLERS]

    async def health_check(self) -> bool:
        """True when the engine answers now; Trino has the backend's ``health_timeout_seconds`` for it."""
        if self.engine != TRINO:
            return await super().health_check()
        try:
            await asyncio.to_thread(self.trino.client.ping)
        except AurumError:
            return False
        return True

    async def _create_connection(self) -> Any:
        if self.engine == TRINO:
            return self.trino
        # without a catalog there is nothing to reach yet; what needs it says so
        return await asyncio.to_thread(self._listed) if "catalog" in self.config else self.config

    @property
    def _has_opened(self) -> bool:
        kept = (self._connection, self._opened, self._listing, self._trino)
        return any(one is not None for one in kept)

    async def _close_connection(self, connection: Any) -> None:  # noqa: ARG002 - the catalog is kept here
        with self._opening:
            opened, self._opened, self._measurer, self._lister = self._opened, None, None, None
            listing, self._listing = self._listing, None
            trino, self._trino = self._trino, None
        if trino is not None:
            await asyncio.to_thread(trino.close)
        for one in (opened, listing):
            if one is not None:
                await asyncio.to_thread(one.close)

    @property
    def trino(self) -> TrinoEngine:
        """The Trino engine; nothing is sent before it is asked something. Raises ConfigurationError."""
        from aurum_orchestration.maintenance.backends.iceberg.trino.client import TrinoClient
        from aurum_orchestration.maintenance.backends.iceberg.trino.connection import TrinoConnection
        from aurum_orchestration.maintenance.backends.iceberg.trino.engine import TrinoEngine

        with self._opening:
            if self._trino is None:
                client = TrinoClient(TrinoConnection.of(self.config, self.name), self.name)
                self._trino = TrinoEngine(client, self._load if self._has_catalog else None)
            return self._trino

    @property
    def catalog(self) -> Catalog:
        """The PyIceberg catalog, opened on first use. Raises BackendUnavailableError."""
        from aurum_orchestration.maintenance.backends.iceberg.catalog import open_catalog

        with self._opening:
            if self._opened is None:
                self._opened = open_catalog(self.name, self._properties())
            return self._opened

    def _listed(self) -> Catalog | SqlListing:
        """What tables are listed and measured by: PyIceberg's catalog only where nothing lighter will do."""
        from aurum_orchestration.maintenance.backends.iceberg.sql_listing import open_listing

        with self._opening:
            if self._opened is None and self._listing is None:
                self._listing = open_listing(self.name, self.config.get("catalog") or {})
            found = self._listing
        return found or self.catalog

    def _source(self, catalog: Catalog | SqlListing) -> Source:
        """Where metadata comes from; kept, so that what did not change is not read again."""
        from aurum_orchestration.maintenance.backends.iceberg.sources import source_of

        if self._lister is None:
            self._lister = source_of(catalog)
        return self._lister

    def _properties(self) -> Mapping[str, Any]:
        from pyiceberg.utils.config import Config

        if "catalog" not in self.config and Config().get_catalog_config(self.name) is None:
            raise ConfigurationError(
                f"backend {self.name} has no 'catalog' in its configuration, and PyIceberg's own names none",
                hint="Give it the PyIceberg properties of its catalog, e.g. catalog: {type: sql, uri: ...}, "
                f"or set PYICEBERG_CATALOG__{self.name.upper()}__URI.",
            )
        properties: Mapping[str, Any] = self.config.get("catalog") or {}
        return properties

    def discover(self, patterns: Sequence[str]) -> list[DiscoveredTable]:
        """The catalog's tables, namespaces within namespaces included; what did not change comes from memory."""
        return self._tables(patterns, names_only=False)

    def names(self, patterns: Sequence[str]) -> list[DiscoveredTable]:
        """The same tables by their ids alone."""
        return self._tables(patterns, names_only=True)

    def _tables(self, patterns: Sequence[str], *, names_only: bool) -> list[DiscoveredTable]:
        if self._only_trino:
            return self.trino.discover(patterns, self.name, names_only=names_only)
        try:
            return self._tables_embedded(patterns, names_only=names_only)
        except BackendUnavailableError:
            if self.engine == EMBEDDED:
                raise
            return self.trino.discover(patterns, self.name, names_only=names_only)

    def _tables_embedded(self, patterns: Sequence[str], *, names_only: bool) -> list[DiscoveredTable]:
        from aurum_orchestration.maintenance.backends.iceberg.sources import list_tables

        catalog = self._listed()
        with self._opening:
            source = self._source(catalog)
        return list_tables(catalog, self.name, patterns, source, names_only=names_only)

    def checkup(self, tables: Sequence[DiscoveredTable]) -> list[Finding]:
        """Versions, rights, free space and clocks, of Trino and of the catalog as far as the backend has them."""
        from aurum_orchestration.maintenance.backends.iceberg.checkup import checkup

        found = [] if self.engine == EMBEDDED else self.trino.checkup(tables)
        return found if self._only_trino else [*found, *checkup(self.catalog, tables)]

    def measure(self, tables: Sequence[TableId], policy: PolicyLookup) -> list[TableHealth]:
        """Health of the tables; unchanged ones come from memory.

        By the embedded engine, which is far faster, where there is a catalog that answers; else through Trino.
        """
        if self._only_trino:
            return self.trino.measure(tables, policy)
        if self.engine == EMBEDDED:
            return self._measure_embedded(tables, policy)
        try:
            found = self._measure_embedded(tables, policy)
        except BackendUnavailableError:
            return self.trino.measure(tables, policy)
        return self.trino.judge(found, alone=self.engine == TRINO)

    def _measure_embedded(self, tables: Sequence[TableId], policy: PolicyLookup) -> list[TableHealth]:
        from aurum_orchestration.maintenance.backends.iceberg.measure import IcebergMeasurer

        catalog = self._listed()
        with self._opening:
            if self._measurer is None:
                self._measurer = IcebergMeasurer(catalog, self.name, source=self._source(catalog))
            measurer = self._measurer
        return measurer.measure(tables, policy)

    def plan(self, table: TableId, operation: str, parameters: BaseModel) -> MaintenancePlan:
        """Plan an operation from the table's metadata."""
        if self.engine == TRINO:
            return self.trino.plan(table, operation, parameters)
        if self.engine == AUTO:
            from aurum_orchestration.maintenance.backends.iceberg.trino.auto import plan_auto

            return plan_auto(
                lambda: self._plan_embedded(table, operation, parameters), self.trino, table, operation, parameters
            )
        return self._plan_embedded(table, operation, parameters)

    def _plan_embedded(self, table: TableId, operation: str, parameters: BaseModel) -> MaintenancePlan:
        handler = handler_of(operation)
        loaded = self._load(table)
        try:
            plan: MaintenancePlan = handler.plan(loaded, table, parameters)
        except CorruptTableError as error:
            if self._load(table).metadata_location == loaded.metadata_location:
                raise
            # planned without the lease: an expiry may delete what an older state of the table still names
            raise StateDriftedError(f"the table changed while it was read: {error.detail}") from error
        return plan

    def plan_undo(self, table: TableId, result: MaintenanceResult) -> MaintenancePlan:
        """Plan taking an operation back, by the engine that did it: the backend may have another one by now.

        Raises UndoRefusedError with the reason when nothing can.
        """
        if self._undone_by_trino(result):
            return self.trino.plan_undo(table, result)
        operation = str(result.config.operation_type)
        handler = handler_of(operation)
        if not hasattr(handler, "undo"):
            raise UndoRefusedError(f"nothing takes {operation} back" + (f": {result.undo}" if result.undo else ""))
        plan: MaintenancePlan = handler.undo(self._load(table), result)
        ended = result.status in {MaintenanceStatus.COMPLETED, MaintenanceStatus.SKIPPED}
        if self.engine == AUTO and not (plan.steps or result.undo_data or ended):
            return self.trino.plan_undo(table, result)  # what left no record may have been Trino's
        return plan

    def _undone_by_trino(self, result: MaintenanceResult) -> bool:
        """Whether Trino takes it back. Raises UndoRefusedError where the engine that has to is not there."""
        data = result.undo_data or {}
        by_trino = data.get("engine") == TRINO
        if by_trino and self.engine != EMBEDDED:
            return True
        if data.keys() - {"engine"} == _MAIN_MOVES:  # either engine does
            return self.engine == TRINO
        if by_trino:
            raise UndoRefusedError(
                f"{result.config.operation_type} was done through Trino, which has to take it back",
                hint="Set the backend's engine to trino, or to auto, for this undo.",
            )
        if not data:
            by_files = result.config.operation_type == OperationType.VACUUM and self._has_catalog  # what was set aside
            return self.engine == TRINO and not by_files
        if self._only_trino:
            raise UndoRefusedError(
                f"{result.config.operation_type} was done by the embedded engine, which has to take it back",
                hint="Give the backend its `catalog`, for this undo.",
            )
        return False

    def open(self, plan: MaintenancePlan, run: RunContext) -> PlanExecution:
        """The steps of a plan, on the table as it is now. They commit only while the run holds its lease."""
        from aurum_orchestration.maintenance.backends.iceberg.fencing import fenced

        run.check()
        if plan.fingerprint.get("engine") == TRINO:
            return self.trino.open(plan, run)
        table = fenced(self._load(TableId.parse(plan.table)), run.still_mine)
        execution: PlanExecution
        if plan.operation == UNDO:
            execution = handler_of(plan.parameters["operation"]).undo_execution(plan, table)
        else:
            execution = handler_of(plan.operation).execution(plan, table)
        return execution

    def _load(self, table: TableId) -> Table:
        from aurum_orchestration.maintenance.backends.iceberg.compact.state import load_table

        return load_table(self.catalog, table)

    async def execute_iceberg_operation(self, operation: str, table: str, **parameters: Any) -> dict[str, Any]:
        """Run one of the plain functions of :mod:`aurum_orchestration.maintenance.iceberg` on this catalog.

        Raises RequestError for an operation that is not there.
        """
        from aurum_orchestration.maintenance import iceberg

        functions = iceberg.FUNCTIONS
        if operation not in functions:
            raise RequestError(f"no Iceberg operation {operation!r}", hint=nearest(operation, functions))
        return await asyncio.to_thread(functions[operation], str(self.table_id(table)), backend=self, **parameters)
