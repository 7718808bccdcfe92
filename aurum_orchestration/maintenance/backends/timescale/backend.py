"""The TimescaleDB backend: the PostgreSQL backend, on a database whose tables may be hypertables."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.backend import PostgresMaintenanceBackend
from aurum_orchestration.maintenance.backends.postgres.server import ServerFacts
from aurum_orchestration.maintenance.findings import Finding
from aurum_orchestration.maintenance.interfaces import DiscoveredTable, OperationType, PolicyLookup, TableHealth

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.postgres.table import Database

_HERE = "aurum_orchestration.maintenance.backends.timescale"

HANDLERS = {
    "vacuum": f"{_HERE}.vacuum",
    "stats": f"{_HERE}.stats",
    "retention": f"{_HERE}.retention",
    "partition_evolution": f"{_HERE}.interval",
    "compaction": f"{_HERE}.compaction",
    "views": f"{_HERE}.views",
}
"""What is done otherwise to a hypertable than to a table; the rest, such as reindex, looks at its chunks by itself."""


class TimescaleMaintenanceBackend(PostgresMaintenanceBackend):
    """A PostgreSQL database with TimescaleDB."""

    @property
    def backend_type(self) -> str:
        """``timescale``."""
        return "timescale"

    @property
    def supported_operations(self) -> Sequence[OperationType]:
        """PostgreSQL's, and those of hypertables."""
        return [OperationType(name) for name in dict.fromkeys((*self.handlers, *HANDLERS))]

    def server(self) -> ServerFacts:
        """What the server is. Raises UnsupportedError where the extension is missing."""
        facts = super().server()
        if facts.timescale_edition is None:
            raise UnsupportedError(
                f"database {facts.database} has no extension timescaledb",
                hint="CREATE EXTENSION timescaledb there, or write type: postgres.",
            )
        return facts

    def measure(self, tables: Sequence[TableId], policy: PolicyLookup) -> list[TableHealth]:
        """As for PostgreSQL, a hypertable as the sum of its chunks, and what TimescaleDB knows of it."""
        from aurum_orchestration.maintenance.backends.timescale.measure import with_chunks

        return with_chunks(self.sessions, self.server(), super().measure(tables, policy), policy)

    def checkup(self, tables: Sequence[DiscoveredTable]) -> list[Finding]:
        """Also which edition it is, and which of its background jobs fail."""
        from aurum_orchestration.maintenance.backends.timescale.jobs import findings

        return [*super().checkup(tables), *findings(self.sessions, self.server())]

    def handler(self, operation: str, target: Database) -> ModuleType:
        """The module for hypertables where the target is one and it is done otherwise there."""
        if target.kind == "hypertable" and operation in HANDLERS:
            return importlib.import_module(HANDLERS[operation])
        return super().handler(operation, target)
