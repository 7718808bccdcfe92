"""Which tables a database has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from aurum_orchestration.fleet.fleet import DATABASE
from aurum_orchestration.fleet.table_id import TableId, discovered_by
from aurum_orchestration.maintenance.backends.postgres.connection import Session, Sessions
from aurum_orchestration.maintenance.backends.postgres.server import ServerFacts
from aurum_orchestration.maintenance.backends.postgres.table import KINDS
from aurum_orchestration.maintenance.interfaces import DiscoveredTable

_TABLES = """
SELECT n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS relkind,
       coalesce(obj_description(c.oid, 'pg_class'), '') AS comment,
       ARRAY(SELECT ARRAY[a.attname::text, format_type(a.atttypid, a.atttypmod)]
               FROM pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
              ORDER BY a.attnum) AS columns
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
   AND n.nspname NOT LIKE '\\_timescaledb\\_%' AND n.nspname NOT LIKE 'timescaledb\\_%'
   AND NOT EXISTS (SELECT FROM pg_depend d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY 1, 2
"""
"""All but temporary tables, those of the system and those that belong to an extension."""

_HYPERTABLES = "SELECT hypertable_schema::text, hypertable_name::text FROM timescaledb_information.hypertables"

_DATABASE = """
SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = current_database()
"""


def list_tables(
    backend: str, sessions: Sessions, server: ServerFacts, patterns: Sequence[str]
) -> list[DiscoveredTable]:
    """The database first, then its tables by name; of the tables those that ``discover`` covers."""
    with sessions.look("discover") as session:
        comment = session.value(_DATABASE)
        hyper = hypertables(session, server)
        rows = session.rows(_TABLES)
    found = [DiscoveredTable(TableId(backend, (server.database,)), DATABASE, comment=comment or "")]
    for row in rows:
        table = TableId(backend, (row.schema, row.name))
        if discovered_by(patterns, table):
            kind = "hypertable" if (row.schema, row.name) in hyper else KINDS[row.relkind]
            columns = tuple(cast(tuple[str, str], tuple(column)) for column in row.columns)
            found.append(DiscoveredTable(table, kind, comment=row.comment, columns=columns))
    return found


def hypertables(session: Session, server: ServerFacts) -> set[tuple[str, str]]:
    """Schema and name of TimescaleDB's hypertables."""
    if "timescaledb" not in server.extensions:
        return set()
    return {(row[0], row[1]) for row in session.rows(_HYPERTABLES)}
