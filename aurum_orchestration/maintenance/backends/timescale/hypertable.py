"""A hypertable as TimescaleDB's catalog has it: its time dimension and its chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, LiteralString

from psycopg import sql

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.connection import Session
from aurum_orchestration.maintenance.backends.postgres.server import ServerFacts
from aurum_orchestration.maintenance.backends.postgres.table import Database as Target
from aurum_orchestration.maintenance.backends.postgres.table import PgTable, table_of

_DIMENSION = """
SELECT column_name::text AS column, column_type::text AS type, time_interval AS interval,
       integer_interval AS integer_interval
  FROM timescaledb_information.dimensions
 WHERE hypertable_schema = %s AND hypertable_name = %s AND dimension_number = 1
"""

_CHUNKS = """
SELECT k.oid::bigint, n.nspname::text, k.relname::text, k.relfilenode::bigint,
       c.range_start, c.range_end, c.range_start_integer, c.range_end_integer, c.is_compressed,
       CASE WHEN k.oid IN (SELECT relation FROM locked) THEN k.relpages * current_setting('block_size')::float8
            ELSE pg_total_relation_size(k.oid)::float8 END,
       s.oid::bigint, m.nspname::text, s.relname::text, s.relfilenode::bigint,
       CASE WHEN s.oid IN (SELECT relation FROM locked) THEN s.relpages * current_setting('block_size')::float8
            ELSE pg_total_relation_size(s.oid)::float8 END
  FROM timescaledb_information.chunks c
  JOIN pg_namespace n ON n.nspname = c.chunk_schema
  JOIN pg_class k ON k.relnamespace = n.oid AND k.relname = c.chunk_name
  LEFT JOIN {stores} ON of.chunk = k.oid
  LEFT JOIN pg_class s ON s.oid = of.store
  LEFT JOIN pg_namespace m ON m.oid = s.relnamespace
 WHERE c.hypertable_schema = %s AND c.hypertable_name = %s
 ORDER BY c.range_start, c.range_start_integer, k.relname
"""
_LOCKED = """
WITH locked AS MATERIALIZED (
  SELECT relation FROM pg_locks
   WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' AND relation IS NOT NULL
     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
"""
_STORES = """
(SELECT relid::oid AS chunk, compress_relid::oid AS store FROM _timescaledb_catalog.compression_settings) of
"""
_NO_STORES = "(SELECT NULL::oid AS chunk, NULL::oid AS store) of"

TIMES: dict[str, LiteralString] = {
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
    "date": "date",
}
"""Types of a time dimension that ages can be told of -> the same in a cast."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """What a hypertable is split by: its first dimension. ``interval`` is None for an integer column."""

    column: str
    type: str
    interval: timedelta | None
    integer_interval: int | None

    @property
    def told(self) -> str:
        """How wide a new chunk is."""
        return str(self.integer_interval) if self.interval is None else str(self.interval)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk. Its range is the times from ``start`` up to ``end``, those of a column without zone read as UTC.

    With an integer column ``start`` and ``end`` are None and the integers are set. ``bytes``: with indexes and TOAST.
    ``store`` is the table of TimescaleDB's that holds the rows while they are in the columnstore.
    """

    oid: int
    schema: str
    name: str
    filenode: int
    start: datetime | None
    end: datetime | None
    start_integer: int | None
    end_integer: int | None
    compressed: bool
    bytes: float
    store: Chunk | None = None

    @property
    def parts(self) -> list[Chunk]:
        """The tables it consists of: itself, and its columnstore."""
        return [self] if self.store is None else [self, self.store]

    @property
    def all_bytes(self) -> float:
        """What all of them take."""
        return sum(part.bytes for part in self.parts)

    @property
    def begin(self) -> str:
        """Where its range begins, for the server to read as of the column's type."""
        return str(self.start_integer if self.start is None else self.start)

    @property
    def identifier(self) -> sql.Identifier:
        """Its name, for psycopg.sql."""
        return sql.Identifier(self.schema, self.name)

    @property
    def regclass(self) -> sql.Composed:
        """Its name as an argument of a function."""
        return regclass(self.schema, self.name)

    def __str__(self) -> str:
        span = f"{self.start_integer} to {self.end_integer}"
        if self.start is not None and self.end is not None:
            span = f"{self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M}"
        return f"{self.name} ({span})"


def regclass(schema: str, name: str) -> sql.Composed:
    """A table's name as an argument of a function."""
    return sql.SQL("{}::regclass").format(sql.Literal(sql.Identifier(schema, name).as_string(None)))


def hypertable_of(target: Target, operation: str) -> PgTable:
    """The target when it is a hypertable. Raises UnsupportedError."""
    table = table_of(target, operation)
    if table.kind != "hypertable":
        raise UnsupportedError(f"{table.id} is no hypertable", operation=operation)
    return table


def dimension_of(session: Session, table: PgTable) -> Dimension:
    """What the hypertable is split by first."""
    return Dimension(*session.row(_DIMENSION, (table.relation.schema, table.relation.name)))


def chunks_of(session: Session, table: PgTable) -> list[Chunk]:
    """Its chunks, the oldest first."""
    stores = _STORES if table.server.tells_columnstore else _NO_STORES
    query = sql.SQL(_LOCKED + _CHUNKS).format(stores=sql.SQL(stores))
    return [_chunk(*row) for row in session.tuples(query, (table.relation.schema, table.relation.name))]


def _chunk(*row: Any) -> Chunk:
    chunk, (oid, schema, name, filenode, size) = Chunk(*row[:10]), row[10:]
    if oid is None:
        return chunk
    store = replace(chunk, oid=oid, schema=schema, name=name, filenode=filenode, bytes=size)
    return replace(chunk, store=store)


def as_table(table: PgTable, chunk: Chunk) -> PgTable:
    """A chunk (or its columnstore) as a table of its own, which it is to VACUUM; its rights are the hypertable's."""
    return replace(
        table,
        id=TableId(table.id.backend, (chunk.schema, chunk.name)),
        relation=replace(
            table.relation,
            oid=chunk.oid,
            schema=chunk.schema,
            name=chunk.name,
            kind="table",
            filenode=chunk.filenode,
        ),
    )


def still_there(chunks: Sequence[Chunk], oid: int) -> Chunk | None:
    """The chunk (or its columnstore) that was planned, None when it was dropped meanwhile."""
    return next((part for chunk in chunks for part in chunk.parts if part.oid == oid), None)


def require_tsl(server: ServerFacts, operation: str, what: str) -> None:
    """Raise UnsupportedError on the Apache edition."""
    if server.timescale_edition != "tsl":
        raise UnsupportedError(
            f"{what} needs the TSL edition, and the server has the Apache one",
            operation=operation,
            hint="timescaledb.license says which it is; packages of TimescaleDB's makers hold the other one.",
        )
