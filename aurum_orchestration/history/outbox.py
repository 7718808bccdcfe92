"""The outbox: what is to be told, written with what it tells of, sent later by whoever comes first.

A row is one notice for one destination. Rows of one group and destination are one message. A row is due
at ``due_at`` and waits until it is sent or given up, which makes ``due_at`` null. Whoever sends claims
the rows for a while, by the store's clock: nobody else takes them until the claim ends, and one whose
sender died is taken again then.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, insert, literal, select, update

from aurum_orchestration.errors import redact
from aurum_orchestration.history.codec import from_text, storable, to_text
from aurum_orchestration.history.records import Notices, OutboxSeen, Parcel
from aurum_orchestration.history.schema import outbox, store_time

_LONGEST_ERROR = 500
_NOW = store_time(literal(0.0))
_FREE = outbox.c.claimed_until.is_(None) | (outbox.c.claimed_until <= _NOW)


def add(connection: Connection, notices: Notices, due_in: timedelta) -> None:
    """Write notices that are due in a while, or when their group has ended."""
    if not notices.items:
        return
    due = store_time(literal(due_in.total_seconds()))
    statement = insert(outbox).values(group_id=storable(notices.group), created_at=_NOW, due_at=due, attempts=0)
    for notice in notices.items:
        connection.execute(
            statement.values(destination=storable(notice.destination), about=to_text(dict(notice.about)))
        )


def end_group(connection: Connection, group: str) -> int:
    """What the group has not tried to send yet is due now; how many notices that are."""
    return connection.execute(
        update(outbox)
        .where(outbox.c.group_id == storable(group), outbox.c.due_at.is_not(None), outbox.c.attempts == 0)
        .values(due_at=_NOW)
    ).rowcount


def waits(connection: Connection, group: str) -> bool:
    """Whether a notice of the group waits. Changes nothing."""
    mine = select(outbox.c.id).where(outbox.c.group_id == storable(group), outbox.c.due_at.is_not(None))
    return connection.execute(mine.limit(1)).first() is not None


def any_due(connection: Connection, destinations: Sequence[str]) -> bool:
    """Whether there is something to claim. Changes nothing."""
    return connection.execute(_due(destinations)).first() is not None


def claim(connection: Connection, destinations: Sequence[str], lease: timedelta) -> Parcel | None:
    """The notices of one group and destination that is due, claimed for ``lease``; None when none is."""
    found = connection.execute(_due(destinations)).first()
    if found is None:
        return None
    token = uuid.uuid4().hex
    rows = connection.execute(
        update(outbox)
        .where(
            outbox.c.group_id == found.group_id,
            outbox.c.destination == found.destination,
            outbox.c.due_at.is_not(None),
            _FREE,
        )
        .values(claim=token, claimed_until=store_time(literal(lease.total_seconds())), attempts=outbox.c.attempts + 1)
        .returning(outbox.c.id, outbox.c.about, outbox.c.attempts, outbox.c.created_at)
    ).all()
    now = connection.execute(select(_NOW)).scalar_one()
    return Parcel(
        claim=token,
        destination=found.destination,
        notices=tuple(from_text(row.about) for row in sorted(rows, key=lambda row: row.id)),
        attempts=max((row.attempts for row in rows), default=0),
        waited=now - min((row.created_at for row in rows), default=now),
    )


def sent(connection: Connection, parcel: Parcel) -> int:
    """Note that the notices are sent; how many were still this claim's."""
    return _end(connection, parcel, sent_at=_NOW, due_at=None, error=None)


def failed(connection: Connection, parcel: Parcel, error: str, again_in: timedelta | None) -> int:
    """Note why they could not be sent; they are due again in a while, or never (None: given up)."""
    due = None if again_in is None else store_time(literal(again_in.total_seconds()))
    return _end(connection, parcel, due_at=due, error=storable(redact(error)[:_LONGEST_ERROR]))


def seen(connection: Connection, destinations: Sequence[str], since: datetime) -> OutboxSeen:
    """What waits, what waits for nobody, and what was given up since a moment."""
    waiting = connection.execute(
        select(func.count(), func.min(outbox.c.created_at)).where(outbox.c.due_at.is_not(None))
    ).one()
    strangers = connection.execute(
        select(outbox.c.destination)
        .where(outbox.c.due_at.is_not(None), outbox.c.destination.not_in(list(destinations)))
        .distinct()
    ).scalars()
    given_up = (outbox.c.due_at.is_(None), outbox.c.sent_at.is_(None), outbox.c.created_at >= since)
    error = connection.execute(
        select(outbox.c.error)
        .where(outbox.c.error.is_not(None), outbox.c.sent_at.is_(None))
        .order_by(outbox.c.id.desc())
        .limit(1)
    ).scalar()
    return OutboxSeen(
        waiting=waiting[0],
        oldest=waiting[1],
        strangers=tuple(sorted(strangers)),
        given_up=connection.execute(select(func.count()).where(*given_up)).scalar_one(),
        error=error,
    )


def prune(connection: Connection, older_than: datetime, batch: int) -> int:
    """Delete at most ``batch`` of the notices from before that are sent or given up; how many it were."""
    old = select(outbox.c.id).where(outbox.c.created_at < older_than, outbox.c.due_at.is_(None))
    return connection.execute(delete(outbox).where(outbox.c.id.in_(old.limit(batch)))).rowcount


def _due(destinations: Sequence[str]) -> Any:
    return (
        select(outbox.c.group_id, outbox.c.destination)
        .where(outbox.c.due_at <= _NOW, _FREE, outbox.c.destination.in_([storable(name) for name in destinations]))
        .order_by(outbox.c.due_at, outbox.c.id)
        .limit(1)
    )


def _end(connection: Connection, parcel: Parcel, **values: Any) -> int:
    return connection.execute(
        update(outbox).where(outbox.c.claim == parcel.claim).values(claim=None, claimed_until=None, **values)
    ).rowcount
