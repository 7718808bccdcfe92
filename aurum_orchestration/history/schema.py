"""The tables of the history store, for SQLite and PostgreSQL alike.

All names begin with ``aurum_``, the table of the schema's version too, because the store may share a
database with others (Dagster keeps an ``alembic_version`` of its own). Times are UTC: ``timestamptz``
in PostgreSQL, ISO text without offset in SQLite. What has structure is JSON text, so that any Python
text survives; migrations under ``migrations/versions`` make what is declared here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

HEAD = "0004"
"""Revision of the newest migration: the schema that this code reads and writes."""

VERSION_TABLE = "aurum_schema_version"


class UtcTime(TypeDecorator[datetime]):
    """A moment. Goes in with any time zone (none is taken as UTC), comes out in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """In UTC; without offset where the database knows none."""
        if value is None:
            return None
        moment = value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Aware, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class store_time(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function it stands for
    """The store's own clock at the moment the row is looked at, plus a number of seconds."""

    type = UtcTime()
    inherit_cache = True


@compiles(store_time, "postgresql")
def _postgres_time(element: store_time, compiler: Any, **options: Any) -> str:
    # now() stands still at the start of the transaction, also while it waits for a lock
    return f"(clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)}))"


@compiles(store_time, "sqlite")
def _sqlite_time(element: store_time, compiler: Any, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', printf('%+.3f seconds', {seconds})) || '000')"


metadata = MetaData()

operations = Table(
    "aurum_operations",
    metadata,
    # SQLite numbers rows by itself only for a primary key of the type INTEGER
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, doc="Order of recording."),
    Column("operation_id", Text, nullable=False, unique=True, doc="Id of the operation, as printed by every command."),
    Column("table_id", Text, nullable=False, doc="Id of the table: backend.namespace.table."),
    Column("backend", Text, nullable=False, doc="Name of the backend that did it."),
    Column("operation", Text, nullable=False, doc="Name of the operation, e.g. compaction."),
    Column(
        "status", Text, nullable=False, doc="How it ended: completed, skipped, failed or cancelled; running before."
    ),
    Column("reason", Text, nullable=False, doc="What was done and why, or why nothing was."),
    Column("who", Text, nullable=False, doc="Who ran it: user, host and program."),
    Column("dry_run", Boolean, nullable=False, doc="True for a plan only."),
    Column("backend_type", Text, doc="The backend the request asked for, if it named one."),
    Column("parameters", Text, nullable=False, doc="JSON object: the parameters of the request."),
    Column("plan_id", Text, doc="Hash of the plan that was executed."),
    Column("steps", Text, doc="JSON array: the steps of the plan."),
    Column("metrics", Text, nullable=False, doc="JSON object: numbers by name; docs/metrics.md has the units."),
    Column("verification", Text, doc="JSON object: method, rows before and after, checksum_equal."),
    Column("problem", Text, doc="JSON object: problem details (RFC 9457) of a failure."),
    Column("problem_type", Text, doc="The problem's type, e.g. lease-held."),
    Column("warnings", Text, nullable=False, doc="JSON array of texts."),
    Column("undo", Text, doc="What to run to take it back, or why nothing can."),
    Column("undo_data", Text, doc="JSON object: what `aurum undo` needs to take it back."),
    Column("started_at", UtcTime, nullable=False, doc="Start, by the clock of the machine that ran it."),
    Column("finished_at", UtcTime, doc="End; null while it runs, and after a kill until somebody notices."),
    Column("seconds", Float(53), nullable=False, doc="Wall seconds from start to end, 0 without an end."),
    Index("aurum_operations_started", "started_at"),
    Index("aurum_operations_table", "table_id", "operation", "finished_at"),
    info={"meaning": "One row per operation."},
)

facts = Table(
    "aurum_facts",
    metadata,
    Column("table_id", Text, primary_key=True, doc="Id of the table."),
    Column("operation", Text, primary_key=True, doc="Name of the operation."),
    Column("last_finished", UtcTime, doc="End of the newest run."),
    Column("last_status", Text, doc="How the newest run ended."),
    Column("last_completed", UtcTime, doc="End of the newest run that completed."),
    Column("consecutive_failures", Integer, nullable=False, doc="Newest runs in a row that failed."),
    Column("consecutive_no_gain", Integer, nullable=False, doc="Newest runs in a row that gained nothing."),
    Column("seconds_per_gib", Float(53), doc="Wall seconds per GiB read plus written, over the newest completed runs."),
    Column("engaged", Boolean, nullable=False, doc="True when the newest run left planned work undone."),
    info={"meaning": "What the planner asks of the log, kept up to date with every row of it; outlives pruned rows."},
)

leases = Table(
    "aurum_leases",
    metadata,
    Column("table_id", Text, primary_key=True, doc="Id of the table."),
    Column("token", BigInteger, nullable=False, doc="Fencing token of the newest lease; only ever grows."),
    Column("holder", Text, nullable=False, doc="Who has, or last had, the lease."),
    Column("operation_id", Text, nullable=False, doc="Id of the operation it was taken for."),
    Column("ttl_seconds", Float(53), nullable=False, doc="How long each renewal extends it."),
    Column("acquired_at", UtcTime, nullable=False, doc="When it was taken, by the store's clock."),
    Column("expires_at", UtcTime, doc="Until when it is held, by the store's clock; null once released."),
    info={"meaning": "One row per table that was ever maintained. Rows stay, so that tokens never repeat."},
)

health = Table(
    "aurum_health",
    metadata,
    Column("table_id", Text, primary_key=True, doc="Id of the table."),
    Column("at", UtcTime, primary_key=True, doc="When it was measured."),
    Column("state_token", Text, nullable=False, doc="Changes whenever the table does; for Iceberg the snapshot id."),
    Column("debt_score", Float(53), doc="0 (nothing to win) to 100; null when it could not be told."),
    Column("metrics", Text, nullable=False, doc="JSON object: numbers by name; docs/metrics.md has the units."),
    Index("aurum_health_at", "at"),
    info={"meaning": "Health of tables over time."},
)

outbox = Table(
    "aurum_outbox",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, doc="Order of writing."),
    Column("group_id", Text, nullable=False, doc="Notices of one run or batch: they are one message."),
    Column("destination", Text, nullable=False, doc="Rule of fleet.yaml and position of its URL; never the URL."),
    Column("about", Text, nullable=False, doc="JSON object of texts: what happened to which table, what to do."),
    Column("created_at", UtcTime, nullable=False, doc="When it was written, by the store's clock."),
    Column("due_at", UtcTime, doc="From when on it is to be sent; null once it is sent or given up."),
    Column("attempts", Integer, nullable=False, doc="How often somebody began to send it."),
    Column("claim", Text, doc="Who sends it right now."),
    Column("claimed_until", UtcTime, doc="Until when nobody else takes it, by the store's clock."),
    Column("sent_at", UtcTime, doc="When it was sent; null with `due_at` null: given up."),
    Column("error", Text, doc="Why the last attempt failed, without secrets."),
    Index("aurum_outbox_due", "due_at"),
    Index("aurum_outbox_group", "group_id", "destination"),
    Index("aurum_outbox_created", "created_at"),
    info={"meaning": "One row per notice and destination."},
)
