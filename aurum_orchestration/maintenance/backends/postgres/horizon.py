"""Who keeps dead rows from being removed, and what else stands in a maintenance's way.

A dead row can go once nobody can see it any more. The oldest that somebody can see is the xmin horizon of the
database; it is held by open transactions, prepared ones, replication slots and standbys that send feedback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aurum_orchestration.maintenance.backends.postgres.connection import Question, Session

LONG_SECONDS = 300
"""Transactions and queries that are older than this are warned of before work starts."""

XIDS_OF_FEEDBACK = 10_000
"""What an active standby is behind between two of its messages: nothing on it need be open for that."""

_HOLDERS = """
SELECT * FROM (
  SELECT CASE WHEN backend_type = 'walsender' THEN 'standby' ELSE 'session' END AS kind,
         pid::text AS name, usename::text AS "user", application_name AS application, state,
         greatest(age(backend_xmin), age(backend_xid)) AS xids, xact_start AS since
    FROM pg_stat_activity
   WHERE (datname = current_database() OR backend_type = 'walsender')
     AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND pid <> pg_backend_pid()
     AND coalesce(query, '') !~ '^autovacuum:' AND application_name !~ '^aurum:vacuum:'
  UNION ALL
  SELECT CASE slot_type WHEN 'physical' THEN 'standby slot' ELSE 'slot' END, slot_name::text, NULL,
         nullif(concat_ws(' at ', nullif(r.application_name, ''), host(r.client_addr)), ''),
         CASE WHEN active THEN 'active' ELSE 'inactive' END, age(xmin), NULL
    FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
   WHERE xmin IS NOT NULL
  UNION ALL
  SELECT 'prepared transaction', gid, owner::text, NULL, NULL, age(transaction), prepared
    FROM pg_prepared_xacts WHERE database = current_database()
) holders ORDER BY xids DESC NULLS LAST
"""
# VACUUM itself holds nothing back: its xmin is ignored by other vacuums

LONG = """
SELECT pid, usename::text AS "user", application_name AS application, state,
       extract(epoch FROM now() - xact_start)::float8 AS seconds
  FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
   AND xact_start < now() - make_interval(secs => %s)
 ORDER BY xact_start
 LIMIT 5
"""
"""Transactions that are older than so many seconds (the parameter)."""

_LOCKS = """
SELECT a.pid, a.usename::text AS "user", a.application_name AS application, l.mode, l.granted, a.backend_type AS worker,
       left(a.query, 80) AS query
  FROM pg_locks l JOIN pg_stat_activity a USING (pid)
 WHERE l.locktype = 'relation' AND l.relation = ANY (%s::oid[]) AND l.pid <> pg_backend_pid()
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                  'AccessExclusiveLock')
 ORDER BY l.granted DESC
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the horizon: what kind of thing, its name, and how old what it can see is."""

    kind: str
    name: str
    user: str | None
    application: str | None
    state: str | None
    xids: int
    since: datetime | None

    def __str__(self) -> str:
        named = f"pid {self.name}" if self.kind in {"session", "standby"} else repr(self.name)
        told = [f"user {self.user}"] if self.user else []
        told += [self.application] if self.application else []
        told += [self.state] if self.state else []
        if self.since is not None:
            told.append(f"open for {self.seconds:,.0f} s")
        return f"{self.kind} {named} ({', '.join([*told, f'{self.xids:,} transactions back'])})"

    @property
    def passing(self) -> bool:
        """Whether it is the distance that a standby with feedback always has."""
        return self.kind == "standby slot" and self.state == "active" and self.xids < XIDS_OF_FEEDBACK

    @property
    def seconds(self) -> float:
        """Seconds that it has been open, 0 where the server does not tell."""
        return max(0.0, (datetime.now(UTC) - self.since).total_seconds()) if self.since else 0.0


def holders(session: Session) -> list[Holder]:
    """Who holds the horizon of the database, the one furthest back first."""
    return _holders(session.tuples(_HOLDERS))


def _holders(rows: Sequence[Any]) -> list[Holder]:
    return [Holder(*row) for row in rows if row[5] is not None]


def long_transactions(session: Session, seconds: float = LONG_SECONDS) -> list[str]:
    """Sentences about transactions older than that."""
    return told_long(session.rows(LONG, (seconds,)))


def told_long(rows: Sequence[Any]) -> list[str]:
    """The same of the rows of :data:`LONG`."""
    return [
        f"pid {row.pid} (user {row.user}{f', {row.application}' if row.application else ''}, {row.state}) has had a "
        f"transaction open for {row.seconds:,.0f} s"
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class Locker:
    """Another session's lock on a table that keeps maintenance away from it, or waits for one."""

    pid: int
    user: str | None
    application: str | None
    mode: str
    granted: bool
    worker: str
    query: str

    @property
    def autovacuum(self) -> bool:
        """Whether it is an autovacuum of the table."""
        return self.worker == "autovacuum worker"

    @property
    def wraparound(self) -> bool:
        """Whether it is the autovacuum that nobody can put off."""
        return self.autovacuum and "to prevent wraparound" in self.query

    def __str__(self) -> str:
        who = f"pid {self.pid}, {self.worker}" + (f", user {self.user}" if self.user else "")
        return f"{who}{f', {self.application}' if self.application else ''} ({self.query})"


def in_the_way(session: Session, oid: int, *more: Question) -> tuple[list[Locker], list[Holder], list[list[Any]]]:
    """:func:`lockers` and :func:`holders`, and the rows of more statements, in one round trip."""
    locks, held, *answers = session.together(lockers_question(oid), (_HOLDERS, None), *more)
    return read_lockers(locks), _holders(held), answers


def lockers(session: Session, oid: int) -> list[Locker]:
    """Who has, or waits for, a lock on the table that conflicts with VACUUM and with CONCURRENTLY."""
    return read_lockers(session.tuples(*lockers_question(oid)))


def lockers_question(*oids: int) -> Question:
    """What :func:`lockers` asks, of one or more tables, for :meth:`Session.together`."""
    return _LOCKS, (list(oids),)


def read_lockers(rows: Sequence[Sequence[Any]]) -> list[Locker]:
    """What the rows of :func:`lockers_question` say."""
    return [Locker(*row) for row in rows]
