"""Leases: at most one maintenance per table, between threads, processes and machines that share the store.

All times are the store's clock, so machines whose clocks differ agree on who holds what. The row of a
table is never deleted: its token only grows, through releases and expiries, and whoever kept an old
lease can tell.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import Any

from sqlalchemy import Connection, Float, Row, bindparam, literal, select, update

from aurum_orchestration.errors import LeaseHeldError, LeaseLostError, RequestError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.history.codec import storable
from aurum_orchestration.history.records import Lease
from aurum_orchestration.history.schema import leases, store_time
from aurum_orchestration.history.sql import upsert

_LONGEST = timedelta(days=366)
_NOW = store_time(literal(0.0))
_HELD = leases.c.expires_at > _NOW
_UNTIL = store_time(bindparam("ttl", type_=Float))
_MINE = leases.c.table_id == bindparam("table"), leases.c.token == bindparam("mine")
_RENEW = update(leases).where(*_MINE, _HELD).values(expires_at=_UNTIL).returning(leases.c.expires_at)
_RELEASE = update(leases).where(*_MINE).values(expires_at=None)


def acquire(connection: Connection, table: TableId, *, holder: str, operation_id: str, ttl: timedelta) -> Lease:
    """Take the table's lease with the next token. Raises LeaseHeldError when it is held, by whomever."""
    if not timedelta(0) < ttl <= _LONGEST:
        raise RequestError(f"a lease lasts more than nothing and at most {_LONGEST.days} days, not {ttl}")
    taken = {
        "table": storable(str(table)),
        "holder": storable(holder),
        "operation_id": storable(operation_id),
        "ttl": ttl.total_seconds(),
    }
    row = connection.execute(_take(connection.dialect.name), taken).one_or_none()
    if row is None:
        raise LeaseHeldError(f"{table}: {_holding(_row(connection, table))}", table=str(table))
    return Lease(table, row.token, holder, operation_id, row.expires_at, ttl)


def renew(connection: Connection, lease: Lease) -> Lease:
    """The lease, held for another ``ttl`` from now. Raises LeaseLostError when it is no longer held."""
    row = connection.execute(_RENEW, {**_mine(lease), "ttl": lease.ttl.total_seconds()}).one_or_none()
    if row is None:
        raise _lost(lease, _row(connection, lease.table))
    return Lease(lease.table, lease.token, lease.holder, lease.operation_id, row.expires_at, lease.ttl)


def release(connection: Connection, lease: Lease) -> None:
    """Give the lease back. Does nothing when it is not held any more."""
    connection.execute(_RELEASE, _mine(lease))


def check(connection: Connection | None, lease: Lease) -> None:
    """Raise LeaseLostError unless the lease is held right now."""
    row = None if connection is None else _row(connection, lease.table)
    if row is None or row.token != lease.token or not row.held:
        raise _lost(lease, row)


def holder(connection: Connection, table: TableId) -> Lease | None:
    """The lease that is held on the table right now, whoever holds it."""
    row = _row(connection, table)
    if row is None or not row.held:
        return None
    return Lease(table, row.token, row.holder, row.operation_id, row.expires_at, timedelta(seconds=row.ttl_seconds))


@cache
def _take(dialect: str) -> Any:
    taken: dict[str, Any] = {
        "holder": bindparam("holder"),
        "operation_id": bindparam("operation_id"),
        "ttl_seconds": bindparam("ttl"),
        "acquired_at": _NOW,
        "expires_at": _UNTIL,
    }
    return upsert(
        dialect,
        leases,
        {"table_id": bindparam("table"), "token": 1, **taken},
        key=["table_id"],
        change={"token": leases.c.token + 1, **taken},
        where=leases.c.expires_at.is_(None) | (leases.c.expires_at <= _NOW),
    ).returning(leases.c.token, leases.c.expires_at)


def _mine(lease: Lease) -> dict[str, Any]:
    return {"table": storable(str(lease.table)), "mine": lease.token}


def _row(connection: Connection, table: TableId) -> Row[Any] | None:
    return connection.execute(
        select(leases, _HELD.label("held")).where(leases.c.table_id == storable(str(table)))
    ).one_or_none()


def _holding(row: Row[Any] | None) -> str:
    if row is None or row.expires_at is None:
        return "nobody holds the lease"
    return f"lease held by {row.holder} for operation {row.operation_id} until {row.expires_at.isoformat()}"


def _lost(lease: Lease, row: Row[Any] | None) -> LeaseLostError:
    if row is not None and row.token != lease.token:
        fate = f"was taken over with token {row.token}; {_holding(row)}"
    elif row is not None and row.expires_at is not None:
        fate = f"expired at {row.expires_at.isoformat()}"
    else:
        fate = "was released"
    return LeaseLostError(
        f"{lease.table}: the lease of {lease.holder} with token {lease.token} {fate}", table=str(lease.table)
    )
