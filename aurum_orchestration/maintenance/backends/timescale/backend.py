"""The TimescaleDB backend: the PostgreSQL backend, on a database that has the extension."""

from __future__ import annotations

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.maintenance.backends.postgres.backend import PostgresMaintenanceBackend
from aurum_orchestration.maintenance.backends.postgres.server import ServerFacts


class TimescaleMaintenanceBackend(PostgresMaintenanceBackend):
    """A PostgreSQL database with TimescaleDB."""

    @property
    def backend_type(self) -> str:
        """``timescale``."""
        return "timescale"

    def server(self) -> ServerFacts:
        """What the server is. Raises UnsupportedError where the extension is missing."""
        facts = super().server()
        if facts.timescale_edition is None:
            raise UnsupportedError(
                f"database {facts.database} has no extension timescaledb",
                hint="CREATE EXTENSION timescaledb there, or write type: postgres.",
            )
        return facts
