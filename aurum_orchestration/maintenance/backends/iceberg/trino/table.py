"""A table as the operations' modules get it: its names, its metadata tables, and the statements on it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aurum_orchestration.errors import BackendUnavailableError, RequestError, TableNotFoundError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.trino.capabilities import Capabilities
from aurum_orchestration.maintenance.backends.iceberg.trino.client import Answer, TrinoClient
from aurum_orchestration.maintenance.backends.iceberg.trino.sql import ident, relation

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from aurum_orchestration.maintenance.interfaces import RunContext

_log = logging.getLogger(__name__)

LINEAGE = (("$row_id", "bigint"), ("$last_updated_sequence_number", "bigint"))
"""Names and Trino types of the hidden columns that say which row a row is, and when it was changed last."""


class TrinoTable:
    """One table on a coordinator. ``embedded`` is the same table for PyIceberg where the catalog is reachable.

    ``operation`` is what its statements are for, ``run`` the run that executes a plan on it, None while planning.
    ``embedded`` is as it was when the table was opened; nothing else is remembered: every method asks.
    """

    def __init__(
        self,
        client: TrinoClient,
        table_id: TableId,
        capabilities: Capabilities,
        embedded: Table | None = None,
        run: RunContext | None = None,
        *,
        operation: str = "",
    ) -> None:
        self.client = client
        self.table_id = table_id
        self.capabilities = capabilities
        self.embedded = embedded
        self.run = run
        self.operation = operation

    def asked_by(self, run: RunContext | None) -> TrinoTable:
        """The same table for another run."""
        return TrinoTable(self.client, self.table_id, self.capabilities, self.embedded, run, operation=self.operation)

    @property
    def name(self) -> str:
        """The quoted three-part name."""
        return relation(self.client.catalog, self.table_id)

    def relation(self, suffix: str = "") -> str:
        """The quoted name of the table, or of one of its metadata tables: ``relation("$files")``."""
        return relation(self.client.catalog, self.table_id, suffix)

    def at(self, snapshot_id: int) -> str:
        """The table as it was at a snapshot, with the columns of then."""
        return f"{self.name} FOR VERSION AS OF {snapshot_id}"

    def query(self, sql: str, run: RunContext | None = None) -> Answer:
        """What a statement that changes nothing returns."""
        return self.client.query(sql, run=run or self.run, operation=self.operation, retry=True)

    def rows(self, sql: str, run: RunContext | None = None) -> list[tuple[Any, ...]]:
        """The rows of a statement that changes nothing."""
        return self.query(sql, run).rows

    def change(self, sql: str, run: RunContext, *, operation: str, session: Mapping[str, str] | None = None) -> Answer:
        """Change the table: see :meth:`TrinoClient.change`."""
        return self.client.change(sql, run=run, operation=operation, session=session)

    def knows(self, call: str) -> bool:
        """True when this server knows such a call of a table procedure: ``expire_snapshots(retain_last => 1)``."""
        return self.capabilities.knows(self.client, self.relation(), call)

    def loaded(self) -> Table | None:
        """The table as the catalog has it now, None without a catalog that answers. Raises TableNotFoundError."""
        from aurum_orchestration.maintenance.backends.iceberg.compact.state import load_table

        if self.embedded is None:
            return None
        try:
            return load_table(self.embedded.catalog, self.table_id)
        except BackendUnavailableError as error:
            _log.warning("%s goes on through Trino alone: %s", self.table_id, error)
            return None

    def head(self) -> int | None:
        """The snapshot that main stands at, None for a table without one."""
        found = self.rows(f"SELECT snapshot_id FROM {self.relation('$refs')} WHERE name = 'main'")
        return int(found[0][0]) if found else None

    def has_lineage(self, known_as: Table | None = None) -> bool:
        """Whether Trino tells the rows' ids, as it does of tables of format version 3; now, or as the catalog told."""
        known = known_as or self.embedded
        if self.capabilities.newest_format < 3 or (known is not None and known.metadata.format_version < 3):
            return False
        try:
            named = ", ".join(ident(name) for name, _ in LINEAGE)
            self.query(f"EXPLAIN (TYPE VALIDATE) SELECT {named} FROM {self.name}")
        except RequestError as error:
            if "COLUMN_NOT_FOUND" not in error.detail:
                raise
            return False
        return True

    def types_of(self, columns: Sequence[str], relation: str) -> list[str]:
        """Trino types of quoted columns of a relation; no row is read."""
        named = {f"c{number}": column for number, column in enumerate(columns)}
        told = self.query(
            f"SELECT {', '.join(f'typeof({name})' for name in named)} FROM (VALUES 1) AS one(o) LEFT JOIN "
            f"(SELECT {', '.join(f'{column} AS {name}' for name, column in named.items())} FROM {relation} "
            "WHERE false) ON true"
        )
        return [str(kind) for kind in told.first()]

    def columns(self, known_as: Table | None = None) -> list[tuple[str, str]]:
        """Names and Trino types of the columns, in order, now or as the catalog told them a moment ago.

        Raises TableNotFoundError.
        """
        from aurum_orchestration.maintenance.backends.iceberg.trino.from_catalog import columns_of

        loaded = known_as or self.loaded()
        if loaded is not None and (known := columns_of(loaded)) is not None:
            return known
        found = [(str(row[0]), str(row[1])) for row in self.query(f"SHOW COLUMNS FROM {self.name}").rows]
        if not found:
            raise TableNotFoundError(f"{self.table_id} has no columns", table=str(self.table_id))
        return found
