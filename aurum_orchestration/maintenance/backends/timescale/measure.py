"""What TimescaleDB knows of hypertables, for all of them in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aurum_orchestration.maintenance.backends.postgres.connection import Sessions
from aurum_orchestration.maintenance.backends.postgres.measure import known
from aurum_orchestration.maintenance.backends.postgres.server import ServerFacts
from aurum_orchestration.maintenance.backends.timescale import compaction, views
from aurum_orchestration.maintenance.interfaces import OperationType, TableHealth

METRICS = ("chunks", "compressed_chunks", "chunk_interval_seconds", "native_jobs", "native_job_failures")

_HYPERTABLES = """
SELECT h.hypertable_schema::text, h.hypertable_name::text,
       h.num_chunks::float8,
       (SELECT count(*) FROM timescaledb_information.chunks c
         WHERE c.hypertable_schema = h.hypertable_schema AND c.hypertable_name = h.hypertable_name
           AND c.is_compressed)::float8,
       extract(epoch FROM d.time_interval)::float8,
       coalesce(j.jobs, 0)::float8, coalesce(j.failing, 0)::float8
  FROM timescaledb_information.hypertables h
  LEFT JOIN timescaledb_information.dimensions d
    ON d.hypertable_schema = h.hypertable_schema AND d.hypertable_name = h.hypertable_name AND d.dimension_number = 1
  LEFT JOIN (SELECT j.hypertable_schema, j.hypertable_name, count(*) AS jobs,
                    count(*) FILTER (WHERE s.last_run_status = 'Failed') AS failing
               FROM timescaledb_information.jobs j
               LEFT JOIN timescaledb_information.job_stats s USING (job_id)
              WHERE j.hypertable_name IS NOT NULL GROUP BY 1, 2) j
    ON j.hypertable_schema = h.hypertable_schema AND j.hypertable_name = h.hypertable_name
"""


def with_chunks(sessions: Sessions, server: ServerFacts, healths: Sequence[TableHealth]) -> list[TableHealth]:
    """The same healths; a hypertable's with its chunks, its jobs, and what its edition cannot do."""
    with sessions.look("measure") as session:
        rows = session.tuples(_HYPERTABLES)
    found = {(row[0], row[1]): known(METRICS, row[2:]) for row in rows}
    missing = {} if server.timescale_edition == "tsl" else _APACHE
    return [_added(one, found.get(_name(one)), missing) for one in healths]


_APACHE = {
    OperationType.COMPACTION.value: f"needs the TSL edition: {compaction.NEEDS}",
    OperationType.VIEWS.value: f"needs the TSL edition: {views.NEEDS}",
}


def _name(health: TableHealth) -> Any:
    return health.table.parts


def _added(health: TableHealth, metrics: dict[str, float] | None, missing: dict[str, str]) -> TableHealth:
    if metrics is None or health.problem is not None:
        return health
    return replace(health, metrics={**health.metrics, **metrics}, refusals={**missing, **health.refusals})
