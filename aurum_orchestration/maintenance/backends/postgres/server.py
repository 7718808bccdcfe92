"""What kind of server it is, who we are there, and what that rules out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.fleet.postgres import PostgresBackendConfig
from aurum_orchestration.maintenance.backends.postgres.errors import as_typed

OLDEST, NEWEST = 14, 18
"""Major versions that the tests run on. Older ones are refused."""

_POOLER_TRIES = 3

_FACTS = """
SELECT current_setting('server_version_num')::int AS version,
       current_setting('server_version') AS version_text,
       current_database() AS database,
       (SELECT oid FROM pg_database WHERE datname = current_database())::bigint AS database_oid,
       current_user::text AS "user",
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
       ARRAY(SELECT rolname::text FROM pg_roles
              WHERE rolname LIKE 'pg\\_%' AND pg_has_role(current_user, oid, 'USAGE')) AS roles,
       pg_is_in_recovery() AS replica,
       current_setting('default_transaction_read_only')::bool AS read_only,
       (SELECT coalesce(jsonb_object_agg(extname, extversion), '{}') FROM pg_extension) AS extensions,
       current_setting('timescaledb.license', true) AS timescale_license,
       current_setting('autovacuum')::bool AS autovacuum,
       current_setting('autovacuum_freeze_max_age')::bigint AS freeze_max_age,
       (SELECT bool_and(has_column_privilege('pg_catalog.pg_statistic', name, 'SELECT'))
          FROM unnest(ARRAY['starelid', 'staattnum', 'stainherit', 'stanullfrac', 'stawidth', 'stadistinct']) name)
         AS reads_statistics,
       pg_backend_pid() AS pid
"""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """One database of a server, as the role sees it.

    ``version`` is PostgreSQL's number, e.g. 170002; ``roles`` the predefined roles that we have the rights of;
    ``timescale_license`` is ``apache``, ``timescale`` or None without TimescaleDB; ``reads_statistics``: widths of
    columns come from pg_statistic itself; ``pooler``: something stands between us and the server.
    """

    version: int
    version_text: str
    database: str
    database_oid: int
    user: str
    superuser: bool
    roles: frozenset[str]
    replica: bool
    read_only: bool
    extensions: Mapping[str, str]
    timescale_license: str | None
    autovacuum: bool
    freeze_max_age: int
    reads_statistics: bool
    pooler: bool

    @property
    def major(self) -> int:
        """The major version, e.g. 17."""
        return self.version // 10_000

    @property
    def timescale_edition(self) -> str | None:
        """``tsl`` or ``apache``; None without TimescaleDB."""
        if "timescaledb" not in self.extensions:
            return None
        return "tsl" if self.timescale_license == "timescale" else "apache"

    @property
    def tells_columnstore(self) -> bool:
        """Whether TimescaleDB's catalog tells which table holds a chunk's rows in the columnstore: from 2.19 on."""
        version = [int(part) for part in re.findall(r"\d+", self.extensions.get("timescaledb", ""))]
        return version >= [2, 19]

    @property
    def maintains_everything(self) -> bool:
        """Whether the role may vacuum, analyze and reindex every table: superuser or pg_maintain (from 17 on)."""
        return self.superuser or "pg_maintain" in self.roles

    def why_no_writes(self, operation: str) -> str | None:
        """Why an operation that writes cannot run on this server; None where it can."""
        if self.replica:
            return f"the server is a replica, {operation} has to run on its primary"
        if self.read_only:
            return f"default_transaction_read_only is on, so {operation} cannot write"
        return None

    def refuse_writes(self, operation: str) -> None:
        """Raise UnsupportedError when this server takes none."""
        reason = self.why_no_writes(operation)
        if reason is not None:
            hint = "Name the primary in fleet.yaml, or give several hosts and target_session_attrs: primary."
            raise UnsupportedError(reason, operation=operation, hint=hint if self.replica else None)


def detect(config: PostgresBackendConfig, options: Mapping[str, Any]) -> ServerFacts:
    """Look at the server over a connection of its own, which changes no setting.

    Raises UnsupportedError for a version that is too old and for a pooler in transaction mode,
    BackendUnavailableError and AccessDeniedError when it cannot be reached.
    """
    conninfo = config.conninfo()
    try:
        with psycopg.connect(conninfo, **options) as connection:
            with connection.cursor(row_factory=dict_row) as cursor:
                found = cursor.execute(_FACTS).fetchone() or {}
            pid = found.pop("pid")
            pooler = pid != connection.info.backend_pid  # a pooler makes up its own
            if found["version"] < OLDEST * 10_000:
                raise UnsupportedError(
                    f"PostgreSQL {found['version_text']} is too old, {OLDEST} is the oldest that works",
                    hint="Upgrade the server: versions before it get no security fixes any more.",
                )
            if pooler:
                _refuse_transaction_mode(connection, conninfo, options)
    except psycopg.Error as error:
        raise as_typed(error, doing="cannot connect") from error
    roles = frozenset(found.pop("roles"))
    return ServerFacts(**found, roles=roles, pooler=pooler)


def _refuse_transaction_mode(connection: psycopg.Connection[Any], conninfo: str, options: Mapping[str, Any]) -> None:
    """In session mode each client has a process of the server to itself, from its first statement to its last."""
    with psycopg.connect(conninfo, **options) as other:
        seen: dict[psycopg.Connection[Any], set[Any]] = {connection: set(), other: set()}
        # one of them twice in a row: a pooler that takes its processes in turn would keep them apart otherwise
        for one in (connection, other, connection, connection, other, other) * _POOLER_TRIES:
            seen[one].add(one.execute("SELECT pg_backend_pid()").fetchone())
    if any(len(pids) > 1 for pids in seen.values()) or seen[connection] & seen[other]:
        raise UnsupportedError(
            "a pooler in transaction mode stands before the server: timeouts and other settings, the advisory lock "
            "that keeps runs apart, and CONCURRENTLY in several statements need sessions of their own",
            hint="Name the server itself, or a pool in session mode, in the backend's connection.",
        )
