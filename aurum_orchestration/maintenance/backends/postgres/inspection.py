"""What a PostgreSQL database tells of itself: sizes, indexes, sessions, locks."""

from __future__ import annotations

from aurum_orchestration.errors import redact
from aurum_orchestration.maintenance.backends.postgres.connection import Session, Sessions
from aurum_orchestration.maintenance.backends.postgres.server import ServerFacts
from aurum_orchestration.maintenance.database_report import (
    DatabaseInfo,
    IndexInfo,
    LockWait,
    LongQuery,
    TableSize,
)

_SIZES = """
WITH held AS MATERIALIZED (
  SELECT relation AS oid FROM pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock'
), page AS (
  SELECT current_setting('block_size')::bigint AS bytes
), sized AS (
  SELECT n.nspname, c.relname, nullif(greatest(c.reltuples, -1), -1)::bigint AS rows,
         CASE WHEN c.oid IN (SELECT oid FROM held)
              THEN (c.relpages + coalesce((SELECT t.relpages FROM pg_class t WHERE t.oid = c.reltoastrelid), 0))
                   * page.bytes
              ELSE pg_table_size(c.oid) END AS table_bytes,
         CASE WHEN c.oid IN (SELECT oid FROM held)
              THEN (SELECT coalesce(sum(x.relpages), 0) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                     WHERE i.indrelid = c.oid) * page.bytes
              ELSE pg_indexes_size(c.oid) END AS index_bytes
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN page
   WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
     AND n.nspname !~ '^pg_toast'
)
SELECT format('%%I.%%I', nspname, relname) AS name, (table_bytes + index_bytes)::bigint AS total,
       table_bytes::bigint, index_bytes::bigint, rows
  FROM sized ORDER BY total DESC, 1 LIMIT %s
"""
"""To ask for a size waits for whoever holds the table exclusively: of such the size at the last VACUUM is told."""

_INDEXES = """
WITH held AS MATERIALIZED (
  SELECT relation AS oid FROM pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock'
)
SELECT format('%I.%I', n.nspname, x.relname) AS name, format('%I.%I', n.nspname, t.relname) AS table_name,
       CASE WHEN x.oid IN (SELECT oid FROM held) THEN x.relpages * current_setting('block_size')::bigint
            ELSE pg_relation_size(x.oid) END AS bytes,
       pg_stat_get_numscans(x.oid) AS scans, i.indisunique, i.indisvalid,
       i.indisunique OR i.indisreplident OR i.indisexclusion OR x.relispartition
         OR EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = x.oid) AS needed,
       CASE WHEN t.oid NOT IN (SELECT oid FROM held) THEN pg_get_indexdef(x.oid) END AS definition
  FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
  JOIN pg_namespace n ON n.oid = x.relnamespace
 WHERE x.relkind = 'i' AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_toast'
 ORDER BY bytes DESC, 1
"""
_LONG = """
SELECT pid, usename::text, application_name, state, extract(epoch FROM now() - xact_start)::float8,
       left(coalesce(query, ''), 300)
  FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
   AND xact_start < now() - make_interval(secs => %s)
 ORDER BY xact_start
"""
_LOCKS = """
SELECT w.pid, w.usename::text AS "user", l.relation::regclass::text AS relation, l.mode,
       extract(epoch FROM clock_timestamp() - coalesce(l.waitstart, w.query_start))::float8 AS seconds,
       pg_blocking_pids(w.pid) AS blocked_by,
       ARRAY(SELECT format('pid %s (user %s, %s, %s)', b.pid, b.usename,
                           coalesce(nullif(b.application_name, ''), '-'), b.state)
               FROM pg_stat_activity b WHERE b.pid = ANY (pg_blocking_pids(w.pid)) ORDER BY b.pid) AS blockers
  FROM pg_locks l JOIN pg_stat_activity w USING (pid)
 WHERE NOT l.granted AND w.datname = current_database()
 ORDER BY seconds DESC
"""


class PostgresInspector:
    """One database of a server."""

    def __init__(self, sessions: Sessions, server: ServerFacts) -> None:
        self._sessions, self._server = sessions, server

    def info(self) -> DatabaseInfo:
        """Which database it is."""
        with self._sessions.look("report") as session:
            host = session.connection.info.host
        return DatabaseInfo(
            database_type="postgresql",
            engine=f"PostgreSQL {self._server.version_text}",
            name=self._server.database,
            host=host or None,
            user=self._server.user,
        )

    def size(self) -> int:
        """Bytes that it takes."""
        with self._sessions.look("report") as session:
            return int(session.value("SELECT pg_database_size(current_database())"))

    def table_sizes(self, limit: int | None) -> list[TableSize]:
        """Tables and materialized views, the largest first; partitions and chunks by themselves."""
        with self._sessions.look("report") as session:
            rows = session.tuples(_SIZES, (limit,))
        return [
            TableSize(table=one[0], total_bytes=one[1], table_bytes=one[2], index_bytes=one[3], rows=one[4])
            for one in rows
        ]

    def indexes(self) -> list[IndexInfo]:
        """All indexes, the largest first."""
        with self._sessions.look("report") as session:
            rows = session.rows(_INDEXES)
        return [
            IndexInfo(
                index=row.name,
                table=row.table_name,
                bytes=row.bytes,
                scans=row.scans,
                unique=row.indisunique,
                needed=row.needed,
                valid=row.indisvalid,
                definition=row.definition,
            )
            for row in rows
        ]

    def connections(self) -> int:
        """Clients connected to the database, us included."""
        with self._sessions.look("report") as session:
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = %s"
            return int(session.value(query, ("client backend",)))

    def long_running(self, seconds: float) -> list[LongQuery]:
        """Sessions whose transaction has been open longer than that. Queries are told without their secrets."""
        with self._sessions.look("report") as session:
            rows = session.tuples(_LONG, (seconds,))
        return [
            LongQuery(pid=one[0], user=one[1], application=one[2], state=one[3], seconds=one[4], query=redact(one[5]))
            for one in rows
        ]

    def locks(self) -> list[LockWait]:
        """Who waits for whom."""
        with self._sessions.look("report") as session:
            return locks(session)


def locks(session: Session) -> list[LockWait]:
    """Sessions of the database that wait for a lock, the longest first, with who holds it."""
    return [
        LockWait(
            pid=row.pid,
            user=row.user,
            relation=row.relation,
            mode=row.mode,
            seconds=max(0.0, row.seconds or 0.0),
            blocked_by=row.blocked_by,
            blockers=row.blockers,
        )
        for row in session.rows(_LOCKS)
    ]
