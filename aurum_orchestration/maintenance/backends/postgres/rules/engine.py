"""Rule groups on a PostgreSQL database: what a chore would do, and its batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from psycopg import sql

from aurum_orchestration.errors import (
    ConfigurationError,
    RequestError,
    StatementTimeoutError,
    UnsupportedError,
)
from aurum_orchestration.maintenance.backends.postgres.advisory import reserved
from aurum_orchestration.maintenance.backends.postgres.connection import Session
from aurum_orchestration.maintenance.backends.postgres.horizon import long_transactions
from aurum_orchestration.maintenance.backends.postgres.rows.ledger import Ledger
from aurum_orchestration.maintenance.backends.postgres.rows.references import referrers
from aurum_orchestration.maintenance.backends.postgres.rows.relation import (
    RowTable,
    delete_triggers,
    leaves,
    require_all_visible,
    require_insertable,
    row_table,
)
from aurum_orchestration.maintenance.backends.postgres.rows.removal import Removal, Remover
from aurum_orchestration.maintenance.backends.postgres.table import Database, is_hypertable
from aurum_orchestration.maintenance.backends.rules.archive import ParquetArchive
from aurum_orchestration.maintenance.backends.rules.chores import Chore
from aurum_orchestration.maintenance.backends.rules.work import Outlook, Take
from aurum_orchestration.maintenance.interfaces import RunContext

EXPORT_IDLE = "15min"
"""How long a transaction may wait for the archive's storage before the server ends it."""

LEFT_AT_MOST = 100_000
"""Locked rows are counted up to here."""


class PostgresRules:
    """The database of a target, for :mod:`..rules.work`. ``operation`` names the sessions."""

    def __init__(self, target: Database, operation: str) -> None:
        self._target, self._operation = target, operation

    def now(self) -> datetime:
        """The server's clock."""
        with self._target.look() as session:
            moment: datetime = session.value("SELECT now()")
        return moment

    def warnings(self) -> list[str]:
        """Transactions that have been open for long: they keep rows locked, and dead ones in the table."""
        with self._target.look() as session:
            return long_transactions(session)

    def look(self, chore: Chore, before: datetime) -> Outlook:
        """How many rows are old, with which statement they go, and what refers to them."""
        with self._target.look() as session:
            removal = self._removal(session, chore, before)
            table = removal.table
            parts = leaves(session, table, chore.column)
            refer = referrers(session, table, removal.old, cascade=chore.cascade)
            warnings = [*refer.warnings, *delete_triggers(session, table)]
            if refer.rows and chore.action != "delete":
                warnings.append("rows of other tables that go along are not archived")
            try:
                rows: int | None = session.value(removal.count())
            except StatementTimeoutError:
                rows = None
                warnings.append("its old rows could not be counted within statement_timeout")
        pending = len(_parquet(chore).pending()) if chore.action == "export" else 0
        return Outlook(
            rows,
            removal.shown(parts[0], chore.batch) if parts else "",
            pending,
            warnings,
            {"references": refer.keys, "rows_cascaded": refer.rows} if refer.keys else {},
        )

    @contextmanager
    def batches(
        self, chore: Chore, before: datetime, run: RunContext, measured: dict[str, float], warnings: list[str]
    ) -> Iterator[Take]:
        """A session that holds the advisory lock of the table, and takes its batches."""
        with self._target.work(self._operation, run) as session:
            removal = self._removal(session, chore, before)
            with reserved(session, removal.table.oid, chore.name):
                referrers(session, removal.table, removal.old, cascade=chore.cascade)  # some may have come meanwhile
                yield from _go(session, removal, chore, run, measured=measured, warnings=warnings)

    def _removal(self, session: Session, chore: Chore, before: datetime) -> Removal:
        table = row_table(session, chore.table)
        require_all_visible(table)
        if is_hypertable(session, self._target.server, table.schema, table.name):
            raise UnsupportedError(f"{table.shown} is a hypertable: retention drops its old chunks as a whole")
        archive = None
        if chore.action == "move" and chore.archive is not None:
            archive = row_table(session, chore.archive)
            require_insertable(archive)
            _require_same_columns(table, archive)
        removal = Removal(table, chore.column, before, chore.time_zone, chore.marked, archive)
        try:
            removal.old  # noqa: B018 - raises for a column that is not there or no time
        except RequestError as error:  # fleet.yaml is wrong, not the request
            raise ConfigurationError(f"group {chore.title!r}: {error.detail}", hint=error.hint) from error
        return removal


def _go(
    session: Session,
    removal: Removal,
    chore: Chore,
    run: RunContext,
    *,
    measured: dict[str, float],
    warnings: list[str],
) -> Iterator[Take]:
    export = None
    if chore.action == "export":
        from aurum_orchestration.maintenance.backends.postgres.rows.export import Export

        export = Export(_parquet(chore), session, run)
        warnings += export.settle()
        session.set(idle_in_transaction_session_timeout=EXPORT_IDLE, intervalstyle="postgres")
    parts = leaves(session, removal.table, chore.column)
    ledger = Ledger.of(session, removal.table, parts, cascade=chore.cascade)
    warnings += [ledger.warning] if ledger.warning else []
    with measuring(session, measured):
        yield Remover(removal, parts, session, run, ledger=ledger, export=export).take
    left = rows_left(session, removal)
    measured["rows_left"] = float(left)
    if left:
        warnings.append(f"{left:,} old rows are left: others have them locked, or max_rows was reached")


@contextmanager
def measuring(session: Session, measured: dict[str, float]) -> Iterator[None]:
    """Within, ``wal_bytes`` of ``measured`` is what the server writes to its log."""
    start = session.value("SELECT pg_current_wal_insert_lsn()")
    yield
    written = session.value("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s::pg_lsn)", (start,))
    measured["wal_bytes"] = float(written)


def rows_left(session: Session, removal: Removal) -> int:
    """How many old rows there still are, counted up to :data:`LEFT_AT_MOST`; 0 when that takes too long."""
    query = sql.SQL("SELECT count(*) FROM (SELECT FROM {} WHERE {} LIMIT {}) one").format(
        removal.table.relation, removal.old, sql.Literal(LEFT_AT_MOST)
    )
    return int(session.value(query))


def _parquet(chore: Chore) -> ParquetArchive:
    return ParquetArchive(chore.path or "", chore.name)


def _require_same_columns(table: RowTable, archive: RowTable) -> None:
    """Raise UnsupportedError when the archive cannot take the rows as they are."""
    there = {one.name: one.type for one in archive.columns if not one.generated}
    wrong = [one.name for one in table.columns if not one.generated and there.get(one.name) != one.type]
    if wrong:
        made = f"CREATE TABLE {archive.identifier.as_string(None)} (LIKE {table.identifier.as_string(None)});"
        raise UnsupportedError(
            f"the archive {archive.shown} has no column like {', '.join(wrong)} of {table.shown}",
            hint=f"Make it like the table: {made}",
        )
