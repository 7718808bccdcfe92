"""What a killed pg_repack leaves: a trigger on the table, its log and copy in the schema repack, and a type.

The table itself is always whole: the copy replaces it in one transaction. The trigger goes on writing the log, though.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import sql

from aurum_orchestration.errors import LeaseHeldError
from aurum_orchestration.maintenance.backends.postgres.advisory import release
from aurum_orchestration.maintenance.backends.postgres.connection import Session
from aurum_orchestration.maintenance.backends.postgres.table import PgTable

_LOCK_CLASS = 16185446
"""First key of the advisory lock that pg_repack holds while it works on a table; the second is oid - 2^31."""

_FOUND = """
SELECT 'trigger' AS kind, t.tgname::text AS name FROM pg_trigger t
  JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE t.tgrelid = %(oid)s::oid AND n.nspname = 'repack' AND p.proname = 'repack_trigger'
UNION ALL
SELECT 'table', c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'repack' AND c.relkind = 'r' AND c.relname IN ('log_' || %(oid)s, 'table_' || %(oid)s)
UNION ALL
SELECT 'type', t.typname::text FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
 WHERE n.nspname = 'repack' AND t.typname = 'pk_' || %(oid)s
"""

_TABLES = """
SELECT DISTINCT relid::regclass::text
  FROM (SELECT t.tgrelid AS relid FROM pg_trigger t
          JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE n.nspname = 'repack' AND p.proname = 'repack_trigger'
         UNION
        SELECT o.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_class o ON c.relname IN ('log_' || o.oid, 'table_' || o.oid)
         WHERE n.nspname = 'repack' AND c.relkind = 'r' AND o.relkind = 'r') found
 WHERE NOT EXISTS (SELECT FROM pg_locks l
                    WHERE l.locktype = 'advisory' AND l.classid = %s::oid AND l.objsubid = 2
                      AND l.objid = ((relid::bigint + 2147483648) %% 4294967296)::oid
                      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
 ORDER BY 1
"""

LEFT_BEHIND = "a killed pg_repack left its trigger, log or copy, into which every write goes, too"
REMOVES_THEM = "aurum run --operation compaction --table ... --parameter online_rewrite=true removes them."

_HOLDER = """
SELECT a.pid, a.usename::text AS "user" FROM pg_locks l JOIN pg_stat_activity a USING (pid)
 WHERE l.locktype = 'advisory' AND l.classid = %s::oid AND l.objid = %s::oid AND l.objsubid = 2 AND l.granted
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def leftovers(session: Session, table: PgTable) -> list[sql.Composed]:
    """The statements that remove what there is, in the order that they need."""
    statements = []
    for row in session.rows(_FOUND, {"oid": table.oid}):
        if row.kind == "trigger":
            statement = sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(sql.Identifier(row.name), table.identifier)
        else:
            how = "DROP TABLE IF EXISTS {}" if row.kind == "table" else "DROP TYPE IF EXISTS {}"
            statement = sql.SQL(how).format(sql.Identifier("repack", row.name))
        statements.append(statement)
    return statements


def tables_with_leftovers(session: Session) -> list[str]:
    """Every table of the database that has some, and no pg_repack at work on it."""
    return [row[0] for row in session.tuples(_TABLES, (_LOCK_CLASS,))]


def at_work(session: Session, table: PgTable) -> str | None:
    """Who runs pg_repack on the table now."""
    row = session.row(_HOLDER, (_LOCK_CLASS, (table.oid + 2**31) % 2**32))
    return f"pid {row.pid}, user {row.user}" if row else None


@contextmanager
def none_at_work(session: Session, table: PgTable) -> Iterator[None]:
    """Keep pg_repack away from the table. Raises LeaseHeldError when one is at work."""
    key = (_LOCK_CLASS, table.oid - 2**31)
    if not session.value("SELECT pg_try_advisory_lock(%s, %s)", key):
        raise LeaseHeldError(f"a pg_repack is at work: {at_work(session, table)}", table=str(table.id))
    try:
        yield
    finally:
        release(session, key)


def remove(session: Session, table: PgTable) -> int:
    """Remove everything at once or nothing; how much there was. Raises LeaseHeldError, LockTimeoutError."""
    with none_at_work(session, table):
        statements = leftovers(session, table)
        with session.transaction():
            for statement in statements:
                session.execute(statement)
    return len(statements)
