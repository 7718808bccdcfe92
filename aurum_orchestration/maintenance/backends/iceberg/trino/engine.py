"""The Trino engine of the Iceberg backend: the same operations, plans and results as the embedded one."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from pydantic import BaseModel

from aurum_orchestration.errors import (
    BackendUnavailableError,
    CorruptTableError,
    StateDriftedError,
    UndoRefusedError,
    UnsupportedError,
)
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.trino.capabilities import Capabilities, probe
from aurum_orchestration.maintenance.backends.iceberg.trino.client import TrinoClient
from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable
from aurum_orchestration.maintenance.interfaces import (
    DiscoveredTable,
    MaintenancePlan,
    MaintenanceResult,
    PlanExecution,
    PolicyLookup,
    RunContext,
    TableHealth,
)
from aurum_orchestration.maintenance.operations.undo import UNDO

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from aurum_orchestration.maintenance.backends.iceberg.trino.measure import TrinoMeasurer
    from aurum_orchestration.maintenance.findings import Finding

_log = logging.getLogger(__name__)

ENGINE = "trino"
"""What ``fingerprint["engine"]`` of this engine's plans says."""

_HERE = "aurum_orchestration.maintenance.backends.iceberg.trino"

HANDLERS: dict[str, str] = {
    "backup": f"{_HERE}.backup",
    "bloat": f"{_HERE}.bloat",
    "compaction": f"{_HERE}.compaction",
    "manifests": f"{_HERE}.manifests",
    "partition_evolution": f"{_HERE}.evolution",
    "retention": f"{_HERE}.retention",
    "stats": f"{_HERE}.stats",
    "vacuum": f"{_HERE}.vacuum",
}
"""The module of each operation: ``plan(table: TrinoTable, table_id, parameters)``, ``execution(plan, table)``.

One whose work can be taken back also has ``undo(table, result)`` and ``undo_execution(plan, table)``.
"""


def handler_of(operation: str) -> ModuleType:
    """The module of an operation. Raises UnsupportedError for one that this engine does not have."""
    if operation not in HANDLERS:
        raise UnsupportedError(f"the engine trino has no {operation}", operation=operation)
    return importlib.import_module(HANDLERS[operation])


class TrinoEngine:
    """Plans and executes operations on one coordinator.

    ``embedded`` loads a table for PyIceberg, None where the backend has no catalog of its own.
    """

    def __init__(self, client: TrinoClient, embedded: Callable[[TableId], Table] | None = None) -> None:
        self.client = client
        self._embedded = embedded
        self._probing = threading.Lock()
        self._capabilities: Capabilities | None = None
        self._measuring = threading.Lock()
        self._measurer: TrinoMeasurer | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What the server can do, asked for once."""
        with self._probing:
            if self._capabilities is None:
                self._capabilities = probe(self.client)
            return self._capabilities

    def discover(self, patterns: Sequence[str], backend: str, *, names_only: bool = False) -> list[DiscoveredTable]:
        """The catalog's tables as Trino lists them."""
        from aurum_orchestration.maintenance.backends.iceberg.trino.discovery import list_tables

        return list_tables(self.client, backend, patterns, names_only=names_only)

    def measure(self, tables: Sequence[TableId], policy: PolicyLookup) -> list[TableHealth]:
        """Health of the tables from Trino's metadata tables, many tables to a statement."""
        from aurum_orchestration.maintenance.backends.iceberg.trino.measure import TrinoMeasurer

        capabilities = self.capabilities
        with self._measuring:
            if self._measurer is None:
                self._measurer = TrinoMeasurer(self.client, self.client.name, capabilities)
            return self._measurer.measure(tables, policy)

    def judge(self, measured: Sequence[TableHealth], *, alone: bool) -> list[TableHealth]:
        """What the embedded engine measured, with what this engine refuses. Without Trino: as it was measured.

        ``alone``: nothing is done by the embedded engine instead.
        """
        from aurum_orchestration.maintenance.backends.iceberg.trino.refusals import judged

        try:
            capabilities = self.capabilities
        except BackendUnavailableError:
            return list(measured)
        return [judged(health, capabilities, alone=alone) for health in measured]

    def checkup(self, tables: Sequence[DiscoveredTable]) -> list[Finding]:
        """Version, rights, floors, and what this version cannot do."""
        from aurum_orchestration.maintenance.backends.iceberg.trino.checkup import checkup

        return list(checkup(self.client, self.capabilities, tables))

    def table(self, table: TableId, run: RunContext | None = None, operation: str = "") -> TrinoTable:
        """The table for an operation's module, without PyIceberg's while its catalog does not answer.

        Raises TableNotFoundError where PyIceberg finds none, UnsupportedError for a name with capital letters.
        """
        from aurum_orchestration.maintenance.backends.iceberg.trino.refusals import name_refusal

        if (reason := name_refusal(table)) is not None:
            raise UnsupportedError(reason, table=str(table))
        embedded: Table | None = None
        if self._embedded is not None:
            try:
                embedded = self._embedded(table)
            except BackendUnavailableError as error:
                _log.warning("%s goes on through Trino alone: %s", table, error)
        return TrinoTable(self.client, table, self.capabilities, embedded, run, operation=operation)

    def plan(self, table: TableId, operation: str, parameters: BaseModel) -> MaintenancePlan:
        """Plan an operation from the table's metadata."""
        handler = handler_of(operation)
        found = self.table(table, operation=operation)
        try:
            return _marked(handler.plan(found, table, parameters))
        except CorruptTableError as error:
            read = found.embedded.metadata_location if found.embedded is not None else None
            now = self.table(table).embedded
            if now is None or now.metadata_location == read:
                raise
            # planned without the lease: an expiry may delete what an older state of the table still names
            raise StateDriftedError(f"the table changed while it was read: {error.detail}") from error

    def plan_undo(self, table: TableId, result: MaintenanceResult) -> MaintenancePlan:
        """Plan taking an operation back. Raises UndoRefusedError with the reason when nothing can."""
        operation = str(result.config.operation_type)
        handler = handler_of(operation)
        if not hasattr(handler, "undo"):
            raise UndoRefusedError(f"nothing takes {operation} back" + (f": {result.undo}" if result.undo else ""))
        return _marked(handler.undo(self.table(table, operation=UNDO), result))

    def open(self, plan: MaintenancePlan, run: RunContext) -> PlanExecution:
        """The steps of a plan, on the table as it is now."""
        table = self.table(TableId.parse(plan.table), run, plan.operation)
        execution: PlanExecution
        if plan.operation == UNDO:
            execution = handler_of(plan.parameters["operation"]).undo_execution(plan, table)
        else:
            execution = handler_of(plan.operation).execution(plan, table)
        return execution

    def close(self) -> None:
        """Close the client's connections."""
        self.client.close()


def _marked(plan: MaintenancePlan) -> MaintenancePlan:
    """The plan with its engine in the fingerprint, by which ``open`` finds the way back."""
    return plan.model_copy(update={"fingerprint": {**plan.fingerprint, "engine": ENGINE}})
