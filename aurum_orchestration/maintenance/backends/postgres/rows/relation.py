"""A table whose rows leave: its columns, the parts that hold rows, and what the role may do to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from aurum_orchestration.errors import AccessDeniedError, RequestError, TableNotFoundError, UnsupportedError, nearest
from aurum_orchestration.maintenance.backends.postgres.connection import Session

_RELATION = """
SELECT c.oid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
       c.relpersistence = 't' AS temporary,
       has_table_privilege(c.oid, 'SELECT') AS reads, has_table_privilege(c.oid, 'INSERT') AS inserts,
       has_table_privilege(c.oid, 'DELETE') AS deletes, has_any_column_privilege(c.oid, 'UPDATE') AS locks,
       row_security_active(c.oid) AS filtered
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = %s
"""

_COLUMNS = """
SELECT a.attname::text AS name, a.attnum::int AS number,
       format_type(coalesce(b.oid, t.oid), CASE WHEN b.oid IS NULL THEN a.atttypmod ELSE t.typtypmod END) AS type,
       coalesce(b.typname, t.typname)::text AS base, a.attgenerated <> '' AS generated
  FROM pg_attribute a
  JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_type b ON t.typtype = 'd' AND b.oid = t.typbasetype
 WHERE a.attrelid = %s::oid AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum
"""

_LEAVES = """
SELECT c.oid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
       pg_relation_size(c.oid) / current_setting('block_size')::bigint AS blocks,
       EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
                 JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
                WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree'
                  AND a.attname = %s) AS by_time,
       has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'DELETE')
         AND has_any_column_privilege(c.oid, 'UPDATE') AS deletes,
       row_security_active(c.oid) AS filtered
  FROM (SELECT %s::oid AS relid UNION SELECT relid FROM pg_partition_tree(%s::oid) WHERE isleaf) leaf
  JOIN pg_class c ON c.oid = leaf.relid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind <> 'p'
 ORDER BY c.oid
"""
"""The table itself unless it is partitioned, and its partitions; children by inheritance are none."""

_TRIGGERS = """
SELECT t.tgname::text, c.relname::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
 WHERE t.tgrelid = %s::oid AND NOT t.tgisinternal AND t.tgtype & 8 = 8 AND t.tgenabled <> 'D'
"""

TIMES = ("timestamptz", "timestamp", "date")
"""Types that a time column may have."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column; ``type`` with its modifier, ``base`` the bare name of the type below a domain."""

    name: str
    number: int
    type: str
    base: str
    generated: bool


@dataclass(frozen=True, slots=True)
class Leaf:
    """A table that holds rows itself, a partition or the whole. ``by_time``: an index leads with the time."""

    oid: int
    schema: str
    name: str
    blocks: int
    by_time: bool

    @property
    def identifier(self) -> sql.Identifier:
        """Its name, for psycopg.sql."""
        return sql.Identifier(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class RowTable:
    """A table or partitioned table with its columns, as the catalog has it.

    ``filtered``: row-level security applies to the role, so it may see fewer rows than there are.
    """

    oid: int
    schema: str
    name: str
    partitioned: bool
    columns: Sequence[Column]
    inserts: bool
    filtered: bool

    @property
    def identifier(self) -> sql.Identifier:
        """Its name, for psycopg.sql."""
        return sql.Identifier(self.schema, self.name)

    @property
    def shown(self) -> str:
        """Its name, for people."""
        return f"{self.schema}.{self.name}"

    @property
    def relation(self) -> sql.Composable:
        """For FROM: all its partitions, but of an inheritance parent only its own rows."""
        return self.identifier if self.partitioned else sql.SQL("ONLY {}").format(self.identifier)

    def column(self, name: str) -> Column:
        """A column by its name. Raises RequestError with the nearest."""
        found = next((one for one in self.columns if one.name == name), None)
        if found is None:
            raise RequestError(
                f"{self.shown} has no column {name!r}", hint=nearest(name, [one.name for one in self.columns])
            )
        return found


def row_table(session: Session, parts: Sequence[str]) -> RowTable:
    """The table of a name's parts; ``public`` where no schema is said. Raises TableNotFoundError, UnsupportedError."""
    schema, name = parts if len(parts) == 2 else ("public", parts[0])
    if len(parts) > 2:
        raise TableNotFoundError(f"{'.'.join(parts)} is no name of a table", hint="Write schema.name.")
    found = session.row(_RELATION, (schema, name))
    if found is None:
        raise TableNotFoundError(f"no table {schema}.{name}")
    if found.kind not in {"r", "p"} or found.temporary:
        raise UnsupportedError(f"{schema}.{name} is no table that keeps its own rows")
    if not found.reads:
        raise AccessDeniedError(f"role may not read {schema}.{name}", hint=_grant(schema, name, "SELECT"))
    columns = [Column(*row) for row in session.tuples(_COLUMNS, (found.oid,))]
    return RowTable(found.oid, schema, name, found.kind == "p", columns, found.inserts, found.filtered)


def require_insertable(table: RowTable) -> None:
    """Raise AccessDeniedError when the role may not insert into the table."""
    if not table.inserts:
        raise AccessDeniedError(
            f"the role may not insert into {table.shown}", hint=_grant(table.schema, table.name, "SELECT, INSERT")
        )


def require_all_visible(table: RowTable) -> None:
    """Raise AccessDeniedError when row-level security may hide rows of the table from the role."""
    if table.filtered:
        raise _hidden(table.shown)


def _hidden(shown: str) -> AccessDeniedError:
    return AccessDeniedError(
        f"row-level security may hide rows of {shown} from the role: what it counts and deletes would be some of them",
        hint="ALTER ROLE ... BYPASSRLS as superuser, or NO FORCE ROW LEVEL SECURITY where the role owns the table.",
    )


def _grant(schema: str, name: str, rights: str) -> str:
    return f"GRANT {rights} ON {sql.Identifier(schema, name).as_string(None)} TO the role;"


def leaves(session: Session, table: RowTable, column: str) -> list[Leaf]:
    """The parts that hold the rows: the table itself, or every partition.

    Raises UnsupportedError for a foreign table, AccessDeniedError with the SQL that helps when the role may not
    delete, or not lock, rows of one of them, or not see all of them.
    """
    found = session.rows(_LEAVES, (column, table.oid, table.oid))
    for one in found:
        if one.kind != "r":
            raise UnsupportedError(f"{one.schema}.{one.name} is a foreign table: its own server has to delete its rows")
        if not one.deletes:
            raise AccessDeniedError(
                f"the role may not lock and delete rows of {one.schema}.{one.name}",
                hint=f"{_grant(one.schema, one.name, 'SELECT, UPDATE, DELETE')} UPDATE, of one column at least, is "
                "what PostgreSQL asks for to lock a row before it is deleted.",
            )
        if one.filtered:
            raise _hidden(f"{one.schema}.{one.name}")
    return [Leaf(one.oid, one.schema, one.name, one.blocks, one.by_time) for one in found]


def delete_triggers(session: Session, table: RowTable) -> list[str]:
    """A sentence for each trigger that fires on our deletions."""
    found = session.tuples(_TRIGGERS, (table.oid,))
    return [f"trigger {name} fires on each deletion from {relation}" for name, relation in found]
