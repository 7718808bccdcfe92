"""The materialized views of a database, what each is made of, and whether it can be refreshed beside its readers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from psycopg import sql

from aurum_orchestration.maintenance.backends.postgres.connection import Session

# what PostgreSQL itself asks of an index for REFRESH CONCURRENTLY: unique, over columns only, over all rows
_VIEWS = """
SELECT c.oid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relispopulated AS populated,
       c.relpages * current_setting('block_size')::float8 AS bytes,
       {right} OR %s AS maintainable, pg_get_userbyid(c.relowner)::text AS owner,
       (SELECT min(x.relname::text) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
         WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid
           AND i.indpred IS NULL AND 0 <> ALL (i.indkey::int2[])) AS usable,
       ARRAY(SELECT x.relname::text || CASE WHEN NOT i.indisvalid THEN ' is invalid'
                                            WHEN i.indpred IS NOT NULL THEN ' is partial'
                                            ELSE ' is over an expression' END
               FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
              WHERE i.indrelid = c.oid AND i.indisunique ORDER BY 1) AS unusable
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'm' AND n.nspname NOT LIKE '\\_timescaledb\\_%%'
 ORDER BY n.nspname, c.relname
"""

_MADE_OF = """
SELECT DISTINCT r.ev_class::bigint AS view, d.refobjid::bigint AS source
  FROM pg_rewrite r
  JOIN pg_class v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm')
  JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                  AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
  JOIN pg_class s ON s.oid = d.refobjid AND s.relkind IN ('v', 'm')
"""


@dataclass(frozen=True, slots=True)
class View:
    """A materialized view.

    ``usable``: a unique index for REFRESH CONCURRENTLY; ``unusable``: the unique ones with why not; ``needs``: the
    views that it is made of, directly or through others.
    """

    oid: int
    schema: str
    name: str
    populated: bool
    bytes: float
    maintainable: bool
    owner: str
    usable: str | None
    unusable: Sequence[str]
    needs: frozenset[int]

    @property
    def identifier(self) -> sql.Identifier:
        """Its name, for psycopg.sql."""
        return sql.Identifier(self.schema, self.name)

    @property
    def only_plain(self) -> str | None:
        """Why it cannot be refreshed CONCURRENTLY, None when it can."""
        if not self.populated:
            return "it has never been populated"
        if self.usable is not None:
            return None
        if self.unusable:
            return f"of its unique indexes {', '.join(self.unusable)}"
        return "it has no unique index"

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def views_of(session: Session, *, maintain: bool, everything: bool) -> list[View]:
    """All materialized views, each after those that it is made of, be it through ordinary views.

    ``maintain``: the server knows the right MAINTAIN; ``everything``: the role may maintain everything.
    """
    right = sql.SQL("has_table_privilege(c.oid, 'MAINTAIN')" if maintain else "pg_has_role(c.relowner, 'USAGE')")
    rows = session.tuples(sql.SQL(_VIEWS).format(right=right), (everything,))
    made_of: dict[int, set[int]] = {row[0]: set() for row in rows}
    for row in session.rows(_MADE_OF):
        made_of.setdefault(row.view, set()).add(row.source)
    needs: dict[int, frozenset[int]] = {}
    for oid in TopologicalSorter(made_of).static_order():
        direct = made_of.get(oid, set())
        needs[oid] = frozenset(direct).union(*(needs[one] for one in direct))
    views = {row[0]: View(*(*row, needs[row[0]])) for row in rows}
    return [views[oid] for oid in needs if oid in views]
