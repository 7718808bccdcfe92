"""Foreign keys that point to rows which are to go: what would go with them, and what would keep them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import sql

from aurum_orchestration.errors import AccessDeniedError, StatementTimeoutError, UnsupportedError
from aurum_orchestration.maintenance.backends.postgres.connection import Session
from aurum_orchestration.maintenance.backends.postgres.rows.relation import RowTable

_LARGE_BLOCKS = 1000
"""From this many blocks on, a table that is scanned once for every deleted row is too large for that."""

_KEYS = """
SELECT k.conname::text AS name, n.nspname::text AS schema, c.relname::text AS child, k.confdeltype::text AS action,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(number, place)
               JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.number ORDER BY place) AS columns,
       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(number, place)
               JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.number ORDER BY place) AS keys,
       (SELECT coalesce(sum(pg_relation_size(p.relid)), 0)::bigint / current_setting('block_size')::bigint
          FROM (SELECT relid FROM pg_partition_tree(k.conrelid) UNION SELECT k.conrelid) p) AS blocks,
       EXISTS (SELECT FROM pg_index i
                WHERE i.indrelid = k.conrelid AND i.indisvalid AND i.indpred IS NULL
                  AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey) AS indexed,
       c.oid = k.confrelid AS itself, row_security_active(c.oid) AS filtered,
       k.confrelid <> %(table)s::oid AS through_parent,
       EXISTS (SELECT FROM pg_constraint d WHERE d.contype = 'f' AND d.confrelid = k.conrelid AND d.confdeltype = 'c'
                  AND d.conrelid <> k.conrelid) AS further
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE k.contype = 'f' AND k.conparentid = 0
   AND k.confrelid IN (SELECT %(table)s::oid UNION SELECT relid FROM pg_partition_ancestors(%(table)s::oid))
 ORDER BY 2, 3, 1
"""
"""Keys to a table; to a partition also those that point to the tables it is a part of."""

_DOES = {"c": "deleted with them", "n": "changed: their key is set to null", "d": "changed: their key gets its default"}


@dataclass(frozen=True, slots=True)
class Referrers:
    """What refers to the old rows: warnings, and how many rows would be deleted or changed with them."""

    warnings: list[str]
    rows: int
    keys: list[dict[str, Any]]


def referrers(session: Session, table: RowTable, old: sql.Composable, *, cascade: bool) -> Referrers:
    """Look at every foreign key to the table, and count the rows that refer to old ones.

    Raises UnsupportedError for rows that keep old ones from being deleted, for rows that would go along though
    ``cascade`` does not allow it, and for a large table without an index on its key.
    """
    warnings: list[str] = []
    found: list[dict[str, Any]] = []
    total = 0
    for key in session.rows(_KEYS, {"table": table.oid}):
        child = f"{key.schema}.{key.child}"
        told = f"foreign key {key.name} of {child} ({', '.join(key.columns)})"
        if not key.indexed:
            _unindexed(told, key, warnings)
        rows = None if key.filtered else _count(session, table, key, old)
        if rows is None:
            if key.action in _DOES and not cascade:
                raise UnsupportedError(
                    f"nobody could count the rows that would be {_DOES[key.action]}, by {told}",
                    hint="GRANT SELECT on that table to the role, with BYPASSRLS where policies hide rows of it, or "
                    "set cascade: true if they may go.",
                )
            warnings.append(f"rows that refer to old ones by {told} could not be counted")
            continue
        found.append({"key": key.name, "table": child, "rows": rows, "action": key.action})
        if not rows:
            continue
        if key.action not in _DOES:
            raise UnsupportedError(
                f"{rows:,} rows of {child} still refer to old rows, by {told}: deleting those would fail",
                hint=f"Delete the old rows of {child} first.",
            )
        if not cascade:
            raise UnsupportedError(
                f"{rows:,} rows of {child} would be {_DOES[key.action]}, by {told}",
                hint="Set cascade: true if that is meant, or move them first.",
            )
        total += rows
        deeper = "; tables that refer to them in turn are not counted" if key.further else ""
        warnings.append(f"{rows:,} rows of {child} are {_DOES[key.action]}, by {told}{deeper}")
    return Referrers(warnings, total, found)


def _unindexed(told: str, key: Any, warnings: list[str]) -> None:
    name = sql.Identifier(key.schema, key.child).as_string(None)
    columns = ", ".join(sql.Identifier(one).as_string(None) for one in key.columns)
    if key.blocks >= _LARGE_BLOCKS:
        raise UnsupportedError(
            f"{told} has no index: each deleted row would scan all {key.blocks:,} blocks of it",
            hint=f"CREATE INDEX CONCURRENTLY ON {name} ({columns});",
        )
    warnings.append(f"{told} has no index, and is scanned for each deleted row: CREATE INDEX ON {name} ({columns});")


def _count(session: Session, table: RowTable, key: Any, old: sql.Composable) -> int | None:
    pairs = zip(key.columns, key.keys, strict=True)
    same = sql.SQL(" AND ").join(
        sql.SQL("child.{} = parent.{}").format(sql.Identifier(mine), sql.Identifier(theirs)) for mine, theirs in pairs
    )
    # rows of the table itself that are old, too, go in the same batches or later ones
    mine_too: sql.Composable = sql.SQL("")
    if key.itself:
        mine_too = sql.SQL(" AND NOT ({} AND coalesce({}, false))").format(
            _within("child", table) if key.through_parent else sql.SQL("true"), _of("child", table, old)
        )
    query = sql.SQL(
        "SELECT count(*) FROM {child} child WHERE EXISTS (SELECT FROM (SELECT * FROM {parent} WHERE {old}) parent "
        "WHERE {same}){mine_too}"
    ).format(
        child=sql.Identifier(key.schema, key.child),
        parent=table.relation,
        old=old,
        same=same,
        mine_too=mine_too,
    )
    try:
        return int(session.value(query))
    except (AccessDeniedError, StatementTimeoutError):
        return None


def _within(alias: str, table: RowTable) -> sql.Composable:
    """Whether a row of another alias lies in the partition itself."""
    return sql.SQL("{}.tableoid IN (SELECT {oid}::oid UNION SELECT relid FROM pg_partition_tree({oid}::oid))").format(
        sql.Identifier(alias), oid=sql.Literal(table.oid)
    )


def _of(alias: str, table: RowTable, old: sql.Composable) -> sql.Composable:
    """The condition about a row of another alias: its column names are bare, so it is asked of that row alone."""
    columns = sql.SQL(", ").join(
        sql.SQL("{}.{}").format(sql.Identifier(alias), sql.Identifier(one.name)) for one in table.columns
    )
    names = sql.SQL(", ").join(sql.Identifier(one.name) for one in table.columns)
    return sql.SQL("(SELECT {} FROM (SELECT {}) one({}))").format(old, columns, names)
