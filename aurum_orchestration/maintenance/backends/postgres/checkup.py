"""What ``aurum doctor`` tells of a PostgreSQL database. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aurum_orchestration.maintenance.backends.postgres.compaction.leftovers import (
    LEFT_BEHIND,
    REMOVES_THEM,
    tables_with_leftovers,
)
from aurum_orchestration.maintenance.backends.postgres.connection import Session, Sessions
from aurum_orchestration.maintenance.backends.postgres.horizon import holders, long_transactions
from aurum_orchestration.maintenance.backends.postgres.inspection import locks
from aurum_orchestration.maintenance.backends.postgres.server import NEWEST, ServerFacts
from aurum_orchestration.maintenance.backends.postgres.space import rooms
from aurum_orchestration.maintenance.backends.postgres.vacuum.plan import way_out
from aurum_orchestration.maintenance.findings import Finding, HealthStatus, clock, ok, space, warning
from aurum_orchestration.maintenance.interfaces import DiscoveredTable
from aurum_orchestration.maintenance.planner.words import count

WARN_WRAPAROUND, FAIL_WRAPAROUND = 0.25, 0.6
"""Shares of the way to where the server stops taking writes; autovacuum alone keeps it below 0.1."""

FAR_BACK = 1_000_000
"""Transactions behind from which on a holder of the horizon is told of, however long it has been open."""

_STAYING = {"slot", "standby slot", "prepared transaction"}
"""Kinds of holders that no end of a session takes away."""

_RIGHTS = """
SELECT count(*) FILTER (WHERE NOT pg_has_role(c.relowner, 'USAGE')) AS foreign_tables, count(*) AS tables,
       pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_'
   AND n.nspname NOT IN ('information_schema') AND n.nspname !~ '^_?timescaledb'
"""
_STATE = """
SELECT now() AS now, current_setting('autovacuum')::bool AS autovacuum,
       current_setting('track_counts')::bool AS track_counts,
       greatest(age(d.datfrozenxid), mxid_age(d.datminmxid)) / 2147483647.0 AS wraparound,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
       current_setting('max_connections')::int AS max_connections,
       ARRAY(SELECT c.oid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
              WHERE NOT i.indisvalid AND c.relkind = 'i' ORDER BY 1 LIMIT 6) AS invalid,
       ARRAY(SELECT c.oid::regclass::text FROM pg_class c
              WHERE c.relkind IN ('r', 'm')
                AND EXISTS (SELECT FROM pg_options_to_table(c.reloptions)
                             WHERE option_name = 'autovacuum_enabled' AND NOT option_value::bool)
              ORDER BY 1 LIMIT 6) AS off
  FROM pg_database d WHERE d.datname = current_database()
"""


def checkup(sessions: Sessions, server: ServerFacts, tables: Sequence[DiscoveredTable]) -> list[Finding]:
    """The findings about a database that answers and lists these tables (and itself)."""
    with sessions.look("doctor") as session:
        return [
            ok("reachable", f"database {server.database} answers, with {count(max(0, len(tables) - 1), 'table')}"),
            _version(server),
            *_replica(server),
            *_rights(session, server),
            *_activity(session),
            *_state(session),
            _space(session),
            *_leftovers(session),
        ]


def _version(server: ServerFacts) -> Finding:
    extensions = ", ".join(
        f"{name} {version}" for name, version in sorted(server.extensions.items()) if name != "plpgsql"
    )
    told = f"PostgreSQL {server.version_text}{f' with {extensions}' if extensions else ''}"
    if server.major > NEWEST:
        return warning("version", told, f"Newer than what this was tried on, PostgreSQL {NEWEST}: look for an upgrade.")
    return ok("version", told)


def _replica(server: ServerFacts) -> Iterator[Finding]:
    if server.replica:
        hint = "Name the primary, or several hosts and target_session_attrs: primary. Reports and backups work here."
        yield warning("replica", "it is a replica: what writes is skipped", hint)
    elif server.read_only:
        yield warning("replica", "default_transaction_read_only is on: what writes is skipped")


def _rights(session: Session, server: ServerFacts) -> Iterator[Finding]:
    row = session.row(_RIGHTS)
    hint = "docs/postgres.md has the SQL for a role that can do all of it."
    if row.foreign_tables and not server.maintains_everything:
        owned = row.tables - row.foreign_tables
        told = f"{server.user} owns {owned:,} of {count(row.tables, 'table')}"
        told += " and has no pg_maintain" if server.major >= 17 else ", and before PostgreSQL 17 only owners may"
        yield warning("rights", f"{told}: VACUUM and REINDEX of the others may be refused", hint)
    else:
        yield ok("rights", f"{server.user} may maintain all tables" + (", as superuser" if server.superuser else ""))
    if not row.sees_all:
        told = f"{server.user} cannot see what other sessions do, so blockers are not named"
        yield warning("rights", told, f"GRANT pg_monitor TO {server.user}")


def _activity(session: Session) -> Iterator[Finding]:
    long = long_transactions(session)
    if long:
        yield warning("long transactions", "; ".join(long), "No vacuum removes what they can still see: end them.")
    else:
        yield ok("long transactions", "none")
    held = [one for one in holders(session) if one.xids >= FAR_BACK or (one.kind in _STAYING and not one.passing)]
    if held:
        yield warning("horizon", f"dead rows are held back by {'; '.join(map(str, held[:5]))}", way_out(held[0]))
    waiting = locks(session)
    if waiting:
        first = waiting[0]
        told = f"{count(len(waiting), 'session')} wait for a lock, first pid {first.pid} for {first.seconds:,.0f} s"
        yield warning("locks", f"{told}, behind {'; '.join(first.blockers) or 'nobody that can be seen'}")
    else:
        yield ok("locks", "nobody waits for a lock")


def _state(session: Session) -> Iterator[Finding]:
    row = session.row(_STATE)
    share = float(row.wraparound)
    told = f"the oldest transaction id is at {share:.0%} of where the server stops taking writes"
    if share >= WARN_WRAPAROUND:
        status = HealthStatus.FAILED if share >= FAIL_WRAPAROUND else HealthStatus.WARNING
        hint = "aurum run --operation vacuum --parameter freeze=always, once nothing holds the horizon."
        yield Finding(check="wraparound", status=status, detail=told, hint=hint)
    else:
        yield ok("wraparound", told)
    if row.invalid:
        yield warning(
            "indexes", f"invalid, so written to and never read: {_some(row.invalid)}", "aurum run --operation reindex"
        )
    else:
        yield ok("indexes", "all are valid")
    if not row.autovacuum or not row.track_counts:
        off = "autovacuum" if not row.autovacuum else "track_counts, which autovacuum goes by,"
        yield warning("autovacuum", f"{off} is off on the server", "Switch it on: maintenance adds to it only.")
    elif row.off:
        yield warning("autovacuum", f"switched off for {_some(row.off)}", "Only the planner's vacuum looks after them.")
    else:
        yield ok("autovacuum", "it is on, for every table")
    told = f"{row.connections:,} of {row.max_connections:,} connections are taken"
    full = row.connections > 0.8 * row.max_connections
    yield (
        warning("connections", told, "A pool in session mode before the server helps.")
        if full
        else ok("connections", told)
    )
    yield clock(row.now, "the server's clock")


def _space(session: Session) -> Finding:
    """The disk that a rewrite of one of its tables would go to, where it can be known."""
    catalog = session.row("SELECT 'pg_class'::regclass::oid::bigint AS oid").oid
    room = rooms(session, [catalog])[catalog]
    return ok("space", f"not known: {room.told}") if room.free is None else space(room.free, None, room.told)


def _leftovers(session: Session) -> Iterator[Finding]:
    tables = tables_with_leftovers(session)
    if tables:
        yield warning("pg_repack", f"{LEFT_BEHIND}: {_some(tables)}", REMOVES_THEM)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
