"""TimescaleDB's own background jobs, for ``aurum doctor``."""

from __future__ import annotations

from aurum_orchestration.errors import AurumError
from aurum_orchestration.maintenance.backends.postgres.connection import Sessions
from aurum_orchestration.maintenance.backends.postgres.server import ServerFacts
from aurum_orchestration.maintenance.findings import Finding, failure, ok, warning

_EDITIONS = {
    "tsl": "the TSL edition",
    "apache": "the Apache edition: no columnstore, merge, reorder and continuous aggregates",
}

_FAILING = """
SELECT s.job_id, j.proc_name::text AS name, s.total_failures AS failures,
       (SELECT e.err_message FROM timescaledb_information.job_errors e
         WHERE e.job_id = s.job_id ORDER BY e.finish_time DESC LIMIT 1) AS message
  FROM timescaledb_information.job_stats s JOIN timescaledb_information.jobs j USING (job_id)
 WHERE s.last_run_status = 'Failed' AND NOT (j.proc_name = 'policy_job_stat_history_retention' AND %s)
 ORDER BY s.job_id
"""
# this one of its own cannot succeed on the Apache edition, and matters to nobody


def findings(sessions: Sessions, server: ServerFacts) -> list[Finding]:
    """The edition, and a warning for each job whose last run failed."""
    edition = _EDITIONS[server.timescale_edition or "apache"]
    told = [ok("timescaledb", f"TimescaleDB {server.extensions['timescaledb']}, {edition}")]
    try:
        with sessions.look("doctor") as session:
            failing = session.rows(_FAILING, (server.timescale_edition == "apache",))
    except AurumError as error:
        return [*told, failure("native jobs", error)]
    if not failing:
        return [*told, ok("native jobs", "the last run of no job of TimescaleDB's failed")]
    return told + [
        warning(
            "native jobs",
            f"job {job.job_id} ({job.name}) failed {job.failures:,} times, at last: {job.message or 'no message'}",
            "SELECT * FROM timescaledb_information.job_errors tells more.",
        )
        for job in failing
    ]
