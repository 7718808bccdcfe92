"""What TimescaleDB knows of hypertables, for all of them in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aurum_orchestration.maintenance.backends.postgres.connection import Sessions
from aurum_orchestration.maintenance.backends.postgres.measure import known
from aurum_orchestration.maintenance.backends.postgres.server import ServerFacts
from aurum_orchestration.maintenance.backends.timescale import compaction, views
from aurum_orchestration.maintenance.interfaces import OperationType, PolicyLookup, TableHealth
from aurum_orchestration.maintenance.operations.compaction import CompactionPolicy

STORED = "stored"
METRICS = (
    STORED,
    "chunks",
    "compressed_chunks",
    "rowstore_chunks",
    "continuous_aggregates",
    "chunk_interval_seconds",
    "native_jobs",
    "native_job_failures",
)

_HYPERTABLES = """
SELECT h.hypertable_schema::text, h.hypertable_name::text,
       s.rows::float8, h.num_chunks::float8, coalesce(c.compressed, 0)::float8,
       CASE WHEN h.compression_enabled THEN coalesce(c.waiting, 0)::float8 END,
       (SELECT count(*) FROM timescaledb_information.continuous_aggregates a
         WHERE a.hypertable_schema = h.hypertable_schema AND a.hypertable_name = h.hypertable_name)::float8,
       extract(epoch FROM d.time_interval)::float8,
       coalesce(j.jobs, 0)::float8, coalesce(j.failing, 0)::float8
  FROM timescaledb_information.hypertables h
  LEFT JOIN (SELECT c.hypertable_schema, c.hypertable_name, count(*) FILTER (WHERE c.is_compressed) AS compressed,
                    count(*) FILTER (WHERE NOT c.is_compressed AND c.range_end <= now() - p.days * interval '1 day')
                      AS waiting
               FROM timescaledb_information.chunks c
               LEFT JOIN unnest(%s::text[], %s::text[], %s::float8[]) p(schema, name, days)
                 ON p.schema = c.hypertable_schema AND p.name = c.hypertable_name
              GROUP BY 1, 2) c
    ON c.hypertable_schema = h.hypertable_schema AND c.hypertable_name = h.hypertable_name
  LEFT JOIN (SELECT h.schema_name, h.table_name, sum(s.numrows_pre_compression) AS rows
               FROM _timescaledb_catalog.compression_chunk_size s
               JOIN _timescaledb_catalog.chunk c ON c.id = s.chunk_id
               JOIN _timescaledb_catalog.hypertable h ON h.id = c.hypertable_id GROUP BY 1, 2) s
    ON s.schema_name = h.hypertable_schema AND s.table_name = h.hypertable_name
  LEFT JOIN timescaledb_information.dimensions d
    ON d.hypertable_schema = h.hypertable_schema AND d.hypertable_name = h.hypertable_name AND d.dimension_number = 1
  LEFT JOIN (SELECT j.hypertable_schema, j.hypertable_name, count(*) AS jobs,
                    count(*) FILTER (WHERE s.last_run_status = 'Failed') AS failing
               FROM timescaledb_information.jobs j
               LEFT JOIN timescaledb_information.job_stats s USING (job_id)
              WHERE j.hypertable_name IS NOT NULL GROUP BY 1, 2) j
    ON j.hypertable_schema = h.hypertable_schema AND j.hypertable_name = h.hypertable_name
"""


def with_chunks(
    sessions: Sessions, server: ServerFacts, healths: Sequence[TableHealth], policy: PolicyLookup
) -> list[TableHealth]:
    """The same healths; a hypertable's with its chunks, its jobs, and what its edition cannot do."""
    with sessions.look("measure") as session:
        rows = session.tuples(_HYPERTABLES, _ages(healths, policy))
    found = {(row[0], row[1]): known(METRICS, row[2:]) for row in rows}
    missing = {} if server.timescale_edition == "tsl" else _APACHE
    return [_added(one, found.get(_name(one)), missing) for one in healths]


_APACHE = {
    OperationType.COMPACTION.value: f"needs the TSL edition: {compaction.NEEDS}",
    OperationType.VIEWS.value: f"needs the TSL edition: {views.NEEDS}",
}


def _ages(healths: Sequence[TableHealth], policy: PolicyLookup) -> tuple[list[str], list[str], list[float | None]]:
    """Schema, name and the age in days that a chunk is converted from, of each table."""
    tables = [one.table for one in healths if len(one.table.parts) == 2]
    rules = [policy(table, OperationType.COMPACTION.value) for table in tables]
    days = [one.chunks_older_than_days if isinstance(one, CompactionPolicy) else None for one in rules]
    return [table.parts[0] for table in tables], [table.name for table in tables], days


def _name(health: TableHealth) -> Any:
    return health.table.parts


def _added(health: TableHealth, metrics: dict[str, float] | None, missing: dict[str, str]) -> TableHealth:
    if metrics is None or health.problem is not None:
        return health
    stored = metrics.pop(STORED, 0.0)
    rows = {"rows": health.metrics["rows"] + stored} if stored and "rows" in health.metrics else {}
    return replace(health, metrics={**health.metrics, **metrics, **rows}, refusals={**missing, **health.refusals})
