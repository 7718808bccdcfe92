"""The indexes of a table or of the database, and which of them are what a killed REINDEX CONCURRENTLY left."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from aurum_orchestration.maintenance.backends.postgres.connection import Session

_INDEXES = """
WITH RECURSIVE part(oid, root) AS (
  SELECT oid, oid FROM unnest(%(tables)s::oid[]) AS oid
  UNION
  SELECT i.inhrelid, p.root
    FROM part p
    JOIN pg_inherits i ON i.inhparent = p.oid
    JOIN pg_class c ON c.oid = i.inhrelid
   WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = '_timescaledb_internal')
),
rel AS (
  SELECT oid, root, false AS toast FROM part
  UNION ALL
  SELECT c.reltoastrelid, p.root, true FROM part p JOIN pg_class c USING (oid) WHERE c.reltoastrelid <> 0
)
SELECT i.indexrelid::bigint AS oid, i.indrelid::bigint AS relid, r.root::bigint AS root, n.nspname::text AS schema,
       c.relname::text AS name, r.toast, i.indisvalid AND i.indisready AND i.indislive AS valid,
       i.indisexclusion AS exclusion,
       CASE WHEN EXISTS (SELECT FROM pg_locks l
                          WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted
                            AND l.relation IN (i.indexrelid, i.indrelid)
                            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
            THEN c.relpages * current_setting('block_size')::float8
            ELSE coalesce(pg_relation_size(i.indexrelid), 0)::float8 END AS bytes,
       pg_has_role(current_user, c.relowner, 'USAGE') AS owned,
       pg_get_userbyid(c.relowner)::text AS owner,
       concat_ws(' ', c.relam, i.indkey, i.indnkeyatts, i.indclass, i.indcollation, i.indoption,
                 pg_get_expr(i.indexprs, i.indrelid), '|', pg_get_expr(i.indpred, i.indrelid)) AS definition,
       EXISTS (SELECT FROM pg_stat_progress_create_index p
                WHERE p.datname = current_database() AND (p.relid = i.indrelid OR p.index_relid = i.indexrelid))
         AS building
  FROM rel r
  JOIN pg_index i ON i.indrelid = r.oid
  JOIN pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i'
  JOIN pg_namespace n ON n.oid = c.relnamespace
 ORDER BY n.nspname, c.relname
"""

_LEFT = re.compile(r"_cc(new|old)\d*$")


@dataclass(frozen=True, slots=True)
class Index:
    """An index as the catalog has it.

    ``relid`` is the table it is on (with ``toast`` a TOAST table), ``root`` the table asked for; ``building``:
    somebody creates an index on that table now. Equal ``definition`` means the same entries in the same order.
    """

    oid: int
    relid: int
    root: int
    schema: str
    name: str
    toast: bool
    valid: bool
    exclusion: bool
    bytes: float
    owned: bool
    owner: str
    definition: str
    building: bool

    @property
    def identifier(self) -> sql.Identifier:
        """Its name, for psycopg.sql."""
        return sql.Identifier(self.schema, self.name)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def indexes_on(session: Session, tables: Sequence[int]) -> list[Index]:
    """Every index of the tables (by oid), of their chunks and of their TOAST tables, by name."""
    return [Index(*row) for row in session.tuples(_INDEXES, {"tables": list(tables)})]


def leftovers(indexes: Sequence[Index]) -> list[Index]:
    """Those that a killed REINDEX CONCURRENTLY left: dropping them loses nothing.

    The name alone says little, a valid index may bear it. They are invalid, and stand beside an index of the same
    definition whose name they were made from.
    """
    return [
        one
        for one in indexes
        if not one.valid and not one.building and _LEFT.search(one.name) and any(_made_from(one, i) for i in indexes)
    ]


def _made_from(left: Index, other: Index) -> bool:
    stem = _LEFT.sub("", left.name)  # cut off where the whole would be too long
    same = left.relid == other.relid and left.oid != other.oid and left.definition == other.definition
    return same and (other.name == stem or (len(stem) > 50 and other.name.startswith(stem)))
