"""The report: the largest tables, how indexes are used, which are not, which are there twice, and the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import sql

from aurum_orchestration.maintenance.backends.postgres.connection import Session

_INDEXES = """
SELECT i.indexrelid::bigint AS oid, i.indrelid::bigint AS relid, tn.nspname::text AS schema, t.relname::text AS table,
       n.nspname::text AS index_schema, c.relname::text AS name,
       c.relpages * current_setting('block_size')::float8 AS bytes,
       coalesce(pg_stat_get_numscans(i.indexrelid), 0)::float8 AS scans,
       coalesce(pg_stat_get_tuples_returned(i.indexrelid), 0)::float8 AS entries_read,
       i.indisvalid AS valid,
       i.indisunique OR i.indisprimary OR i.indisexclusion OR i.indisreplident OR i.indisclustered AS needed,
       EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')) AS own,
       concat_ws(' ', c.relam, i.indkey, i.indnkeyatts, i.indclass, i.indcollation, i.indoption,
                 i.indisunique, i.indisexclusion, i.indnullsnotdistinct_or_false,
                 pg_get_expr(i.indexprs, i.indrelid), '|', pg_get_expr(i.indpred, i.indrelid)) AS definition
  FROM (SELECT *, coalesce((to_jsonb(pg_index) ->> 'indnullsnotdistinct')::bool, false)
               AS indnullsnotdistinct_or_false FROM pg_index) i
  JOIN pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i'
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_class t ON t.oid = i.indrelid
  JOIN pg_namespace tn ON tn.oid = t.relnamespace
 WHERE i.indrelid = ANY (%s::oid[])
 ORDER BY c.relpages DESC, 5, 6
"""
# indnullsnotdistinct is there from PostgreSQL 15 on

_SCANS = """
SELECT c.oid::bigint AS oid, coalesce(pg_stat_get_numscans(c.oid), 0)::float8 AS sequential_scans,
       coalesce(pg_stat_get_tuples_returned(c.oid), 0)::float8 AS rows_read_by_them,
       coalesce((SELECT sum(pg_stat_get_numscans(i.indexrelid)) FROM pg_index i WHERE i.indrelid = c.oid), 0)::float8
         AS index_scans,
       pg_stat_get_blocks_hit(c.oid) / nullif(pg_stat_get_blocks_fetched(c.oid), 0)::float8 AS cache_hit_ratio
  FROM pg_class c WHERE c.oid = ANY (%s::oid[])
"""

_SINCE = """
SELECT stats_reset, round((blks_hit / nullif(blks_hit + blks_read, 0)::numeric), 4)::float8 AS cache_hit_ratio,
       pg_database_size(datname)::float8 AS bytes
  FROM pg_stat_database WHERE datname = current_database()
"""


def usage_of(session: Session, tables: Sequence[int]) -> dict[int, dict[str, float]]:
    """By table (oid): how it was read since statistics began, and the share found in shared buffers."""
    found: dict[int, dict[str, float]] = {}
    for row in session.rows(_SCANS, (list(tables),)):
        all_scans = row.sequential_scans + row.index_scans
        told = {
            "sequential_scans": row.sequential_scans,
            "rows_read_by_them": row.rows_read_by_them,
            "index_scans": row.index_scans,
            "index_usage": round(row.index_scans / all_scans, 4) if all_scans else None,
            "cache_hit_ratio": None if row.cache_hit_ratio is None else round(row.cache_hit_ratio, 4),
        }
        found[row.oid] = {name: value for name, value in told.items() if value is not None}
    return found


def index_report(session: Session, tables: Sequence[int], top: int) -> dict[str, Any]:
    """The ``top`` largest indexes with their use, all unused ones, all twins, and the bytes of both."""
    rows = session.rows(_INDEXES, (list(tables),))
    unused = [row for row in rows if row.valid and not row.needed and not row.scans]
    twins = _twins(rows)
    return {
        "indexes": [
            {**_named(row), "bytes": row.bytes, "scans": row.scans, "entries_read": row.entries_read}
            for row in rows[:top]
        ],
        "unused_indexes": [{**_named(row), "bytes": row.bytes} for row in unused],
        "duplicate_indexes": [
            {**_named(row), "bytes": row.bytes, "scans": row.scans, "same_as": _name(kept)} for row, kept in twins
        ],
        "unused_index_bytes": sum(row.bytes for row in unused),
        "duplicate_index_bytes": sum(row.bytes for row, _ in twins),
    }


def since(session: Session) -> tuple[str | None, float | None, float]:
    """When statistics began, the share of blocks found in shared buffers since, and the database's bytes."""
    row = session.row(_SINCE)
    return (row.stats_reset.isoformat() if row.stats_reset else None), row.cache_hit_ratio, row.bytes


def _twins(rows: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Each index that another of the same definition makes needless, with that other.

    That is the one of a constraint, else the one that is used most.
    """
    groups: dict[tuple[int, str], list[Any]] = {}
    for row in rows:
        if row.valid:
            groups.setdefault((row.relid, row.definition), []).append(row)
    found = []
    for group in groups.values():
        kept, *others = sorted(group, key=lambda row: (not row.own, not row.needed, -row.scans, row.name))
        found += [(row, kept) for row in others]
    return sorted(found, key=lambda pair: -pair[0].bytes)


def _named(row: Any) -> dict[str, str]:
    return {"index": _name(row), "table": sql.Identifier(row.schema, row.table).as_string(None)}


def _name(row: Any) -> str:
    return sql.Identifier(row.index_schema, row.name).as_string(None)
