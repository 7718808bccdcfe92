"""Continuous aggregates of a hypertable, those made of them, and whose view of its rows is not up to date."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from psycopg import sql

from aurum_orchestration.maintenance.backends.postgres.connection import Session
from aurum_orchestration.maintenance.backends.postgres.table import PgTable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_AGGREGATES = """
WITH RECURSIVE found AS (
  SELECT a.*, 1 AS depth FROM timescaledb_information.continuous_aggregates a
   WHERE hypertable_schema = %s AND hypertable_name = %s
  UNION ALL
  SELECT a.*, f.depth + 1 FROM found f JOIN timescaledb_information.continuous_aggregates a
    ON a.hypertable_schema = f.materialization_hypertable_schema
   AND a.hypertable_name = f.materialization_hypertable_name
)
SELECT f.view_schema::text, f.view_name::text, f.materialization_hypertable_schema::text,
       f.materialization_hypertable_name::text, d.column_name::text
  FROM found f
  JOIN timescaledb_information.dimensions d
    ON d.hypertable_schema = f.materialization_hypertable_schema
   AND d.hypertable_name = f.materialization_hypertable_name AND d.dimension_number = 1
 ORDER BY f.depth, 1, 2
"""

_LACKING = """
SELECT a.user_view_schema::text, a.user_view_name::text
  FROM _timescaledb_catalog.continuous_agg a
  JOIN _timescaledb_catalog.hypertable h ON h.id = a.raw_hypertable_id
 WHERE h.schema_name = %(schema)s AND h.table_name = %(name)s
   AND (EXISTS (SELECT FROM _timescaledb_catalog.continuous_aggs_hypertable_invalidation_log l
                 WHERE l.hypertable_id = h.id
                   AND l.lowest_modified_value < %(end)s AND l.greatest_modified_value >= %(start)s)
     OR EXISTS (SELECT FROM _timescaledb_catalog.continuous_aggs_materialization_invalidation_log l
                 WHERE l.materialization_id = a.mat_hypertable_id
                   AND l.lowest_modified_value < %(end)s AND l.greatest_modified_value >= %(start)s))
"""
"""The logs have, in microseconds since 1970, what was changed since, or was never taken in."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A continuous aggregate: its view, and the hypertable that holds what it has, with its column of time."""

    schema: str
    name: str
    store_schema: str
    store_name: str
    column: str

    @property
    def identifier(self) -> sql.Identifier:
        """The view's name, for psycopg.sql."""
        return sql.Identifier(self.schema, self.name)

    def has_before(self, session: Session, moment: str) -> bool:
        """Whether it has anything of a time before this one."""
        query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {} < {})").format(
            sql.Identifier(self.store_schema, self.store_name), sql.Identifier(self.column), sql.Literal(moment)
        )
        return bool(session.value(query))

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def aggregates_of(session: Session, table: PgTable) -> list[Aggregate]:
    """Those of the hypertable, and those made of them, each after what it is made of."""
    rows = session.tuples(_AGGREGATES, (table.relation.schema, table.relation.name))
    return [Aggregate(*row) for row in rows]


def lacking(session: Session, table: PgTable, start: datetime, end: datetime) -> set[tuple[str, str]]:
    """Schema and name of those that have not taken in all rows of the hypertable between the two times."""
    bounds = {"start": _internal(start), "end": _internal(end)}
    rows = session.tuples(_LACKING, {"schema": table.relation.schema, "name": table.relation.name, **bounds})
    return {(schema, name) for schema, name in rows}


def _internal(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
