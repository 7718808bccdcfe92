"""What the database maintains by itself: TimescaleDB's policies and pg_partman. It is left to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from psycopg import sql

from aurum_orchestration.errors import AccessDeniedError, UnsupportedError
from aurum_orchestration.maintenance.backends.postgres.connection import Session, Sessions
from aurum_orchestration.maintenance.backends.postgres.server import ServerFacts
from aurum_orchestration.maintenance.backends.postgres.table import Database, PgTable
from aurum_orchestration.maintenance.interfaces import OperationType, TableHealth

Driven = dict[tuple[str, str], dict[str, str]]
"""Schema and name of a table (or view) -> operation -> who does it already."""

_JOBS = """
SELECT coalesce(a.view_schema, j.hypertable_schema)::text AS schema,
       coalesce(a.view_name, j.hypertable_name)::text AS name, j.job_id, j.proc_name::text AS policy, j.config
  FROM timescaledb_information.jobs j
  LEFT JOIN timescaledb_information.continuous_aggregates a
    ON a.materialization_hypertable_schema = j.hypertable_schema
   AND a.materialization_hypertable_name = j.hypertable_name
 WHERE j.scheduled AND j.hypertable_name IS NOT NULL AND j.proc_name LIKE 'policy\\_%'
"""
"""Before 2.20 a job of a continuous aggregate names the hypertable behind it, from then on the view."""

_POLICIES = {
    "policy_retention": (OperationType.RETENTION, "drop_after"),
    "policy_compression": (OperationType.COMPACTION, "compress_after"),
    "policy_compaction": (OperationType.COMPACTION, "inactive_for"),
    "policy_reorder": (OperationType.COMPACTION, "index_name"),
    "policy_refresh_continuous_aggregate": (OperationType.VIEWS, "start_offset"),
}
"""TimescaleDB's procedure -> what it does in our words, and the part of its configuration that is told."""

_PARTMAN_SCHEMA = """
SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_partman'
"""
_PART_CONFIG = """
SELECT split_part(parent_table, '.', 1) AS schema, substr(parent_table, strpos(parent_table, '.') + 1) AS name,
       retention, automatic_maintenance AS automatic, premake
  FROM {} WHERE NOT coalesce(undo_in_progress, false)
"""


def driven(session: Session, server: ServerFacts) -> Driven:
    """Which operations on which tables the database does by itself, and who there does it."""
    found: Driven = {}
    if "timescaledb" in server.extensions:
        for job in session.rows(_JOBS):
            if job.policy in _POLICIES:
                operation, key = _POLICIES[job.policy]
                told = f"TimescaleDB's {job.policy} (job {job.job_id}{_setting(job.config, key)}) does it"
                found.setdefault((job.schema, job.name), {})[operation.value] = told
    if "pg_partman" in server.extensions:
        for row in _part_config(session):
            operations = found.setdefault((row.schema, row.name), {})
            if row.retention is not None:
                told = f"pg_partman does it (retention {row.retention} in part_config)"
                operations[OperationType.RETENTION.value] = told
            if row.automatic == "on":
                told = f"pg_partman does it (premake {row.premake} in part_config)"
                operations[OperationType.PARTITION_EVOLUTION.value] = told
    return found


def _setting(config: Mapping[str, Any] | None, key: str) -> str:
    value = (config or {}).get(key)
    return f", {key} {value}" if value is not None else ""


def _part_config(session: Session) -> list[Any]:
    table = sql.Identifier(session.value(_PARTMAN_SCHEMA), "part_config")
    try:
        return session.rows(sql.SQL(_PART_CONFIG).format(table))
    except AccessDeniedError:  # what the role may not see, it does not maintain either
        return []


def refuse_driven(target: Database, operation: str) -> None:
    """Raise UnsupportedError when the database does the operation on the target by itself."""
    if not isinstance(target, PgTable) or not _has_own(target.server):
        return
    with target.look() as session:
        told = driven(session, target.server).get((target.relation.schema, target.relation.name), {}).get(operation)
    if told is not None:
        raise UnsupportedError(told, operation=operation, hint="Take the native policy away to have it done from here.")


def with_driven(sessions: Sessions, server: ServerFacts, healths: Sequence[TableHealth]) -> list[TableHealth]:
    """The same healths, with what the database does by itself among their refusals."""
    if not _has_own(server):
        return list(healths)
    with sessions.look("measure") as session:
        found = driven(session, server)
    return [
        replace(one, refusals={**one.refusals, **found[one.table.parts]}) if one.table.parts in found else one
        for one in healths
    ]


def _has_own(server: ServerFacts) -> bool:
    return bool({"timescaledb", "pg_partman"} & server.extensions.keys())
