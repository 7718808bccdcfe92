"""The indexes of a table or of the database, and which of them are what a killed REINDEX CONCURRENTLY left."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import sql

from aurum_orchestration.maintenance.backends.postgres.connection import Question, Session
from aurum_orchestration.maintenance.backends.postgres.measure_sql import children
from aurum_orchestration.maintenance.backends.postgres.server import ServerFacts

_OF_REL: LiteralString = """
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
       {building} AS building
  FROM rel r
  JOIN pg_index i ON i.indrelid = r.oid
  JOIN pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i'
  JOIN pg_namespace n ON n.oid = c.relnamespace
"""

_BUILDING: LiteralString = """
       EXISTS (SELECT FROM pg_stat_progress_create_index p
                WHERE p.datname = current_database() AND (p.relid = i.indrelid OR p.index_relid = i.indexrelid))
"""

_INDEXES: LiteralString = """
WITH RECURSIVE part(oid, root) AS (
  SELECT oid, oid FROM unnest(%(tables)s::oid[]) AS oid
  UNION
  SELECT i.child, p.root
    FROM part p
    JOIN ({children}) i ON i.parent = p.oid
    JOIN pg_class c ON c.oid = i.child
   WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = '_timescaledb_internal')
),
rel AS (
  SELECT oid, root, false AS toast FROM part
  UNION ALL
  SELECT c.reltoastrelid, p.root, true FROM part p JOIN pg_class c USING (oid) WHERE c.reltoastrelid <> 0
)
{indexes}
 ORDER BY n.nspname, c.relname
"""
_SOME: LiteralString = """
WITH rel AS (
  SELECT oid, %(root)s::oid AS root, relkind = 't' AS toast FROM pg_class WHERE oid = ANY (%(relids)s::oid[])
)
{indexes}
 WHERE i.indexrelid = ANY (%(oids)s::oid[])
"""

_BUILT_BYTES = """
SELECT c.relpages * current_setting('block_size')::float8
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s
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


def indexes_on(session: Session, server: ServerFacts, tables: Sequence[int]) -> list[Index]:
    """Every index of the tables (by oid), of their chunks and columnstores, and of their TOAST tables, by name."""
    return read_indexes(session.tuples(*indexes_question(server, tables)))


def indexes_question(server: ServerFacts, tables: Sequence[int]) -> Question:
    """What :func:`indexes_on` asks, for :meth:`Session.together`."""
    parts = {
        "indexes": sql.SQL(_OF_REL).format(building=sql.SQL(_BUILDING)),
        "children": children(stores=server.tells_columnstore),
    }
    return sql.SQL(_INDEXES).format(**parts), {"tables": list(tables)}


def some_question(oids: Sequence[int], relids: Sequence[int], root: int) -> Question:
    """The same of indexes by oid, on tables ``relids`` of one ``root``, without ``building``: that is dear."""
    some = sql.SQL(_OF_REL).format(building=sql.SQL("false"))
    return sql.SQL(_SOME).format(indexes=some), {"oids": list(oids), "relids": sorted({*relids}), "root": root}


def built_bytes(session: Session, index: Index) -> float:
    """The size of an index that was built just now, as the build has counted it: waits for nobody's lock."""
    found = session.value(_BUILT_BYTES, (index.schema, index.name), again=True)
    return index.bytes if found is None else float(found)


def read_indexes(rows: Sequence[Sequence[Any]]) -> list[Index]:
    """What the rows of :func:`indexes_question` and :func:`some_question` say."""
    return [Index(*row) for row in rows]


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
