"""One maintenance at a time per table, on the server itself: an advisory lock that ends with its session.

The lease in the history store keeps runs apart that share a history; this keeps apart those that do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from aurum_orchestration.errors import LeaseHeldError
from aurum_orchestration.maintenance.backends.postgres.connection import Session

CLASS = 0x4155524D
"""The first key of all our locks ("AURM"); the second is the table's oid, or the database's."""

_HOLDER = """
SELECT a.pid, a.usename, a.application_name, a.client_addr::text AS client, a.backend_start
  FROM pg_locks l JOIN pg_stat_activity a USING (pid)
 WHERE l.locktype = 'advisory' AND l.classid = %s::oid AND l.objid = %s::oid AND l.objsubid = 2 AND l.granted
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@contextmanager
def reserved(session: Session, oid: int, table: str) -> Iterator[None]:
    """Hold the lock of a table (or database) on this session. Raises LeaseHeldError naming who has it."""
    key = oid - 2**32 if oid >= 2**31 else oid  # the lock's key is signed, an oid is not
    if not session.value("SELECT pg_try_advisory_lock(%s, %s)", (CLASS, key), again=True):
        holder = session.row(_HOLDER, (CLASS, oid))
        who = (
            "another session"
            if holder is None
            else (
                f"{holder.application_name or 'a session'} (pid {holder.pid}, user {holder.usename}"
                f"{f', from {holder.client}' if holder.client else ''})"
            )
        )
        raise LeaseHeldError(f"{who} holds the lock for maintenance on the server", table=table)
    try:
        yield
    finally:
        release(session, (CLASS, key))


def release(session: Session, key: tuple[int, int]) -> None:
    """Give a lock back. Where that fails (a run's cancellation may hit it) the session ends, and the lock with it.

    What ended the session is told elsewhere.
    """
    try:
        if not session.connection.closed:
            session.connection.execute("SELECT pg_advisory_unlock(%s, %s)", key)
    except psycopg.OperationalError:
        session.connection.close()
