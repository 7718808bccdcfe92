"""The history as everything else uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy import Connection

from aurum_orchestration.errors import RequestError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.history import leases, log, outbox, series
from aurum_orchestration.history.codec import storable
from aurum_orchestration.history.connect import Store
from aurum_orchestration.history.records import (
    GROUP_WAITS,
    HealthPoint,
    Lease,
    Notices,
    OutboxSeen,
    Parcel,
    Pruned,
    StoreSeen,
)
from aurum_orchestration.history.schema import HEAD
from aurum_orchestration.maintenance.interfaces import MaintenanceResult
from aurum_orchestration.maintenance.planner.facts import RunFacts
from aurum_orchestration.maintenance.planner.rank import Spent

T = TypeVar("T")


class History:
    """Operation log, planner's facts, health series and leases in one store: a SQLite file or PostgreSQL.

    ``url`` is a SQLAlchemy URL, e.g. ``sqlite:////folder/history.db``. Nothing is opened before first
    use; reading a store that does not exist answers empty and makes nothing. Safe to use from many
    threads, and from many processes on the same store. Everything may raise a HistoryError.
    """

    def __init__(self, url: str) -> None:
        self._store = Store(url)

    def __repr__(self) -> str:
        return f"History({str(self._store)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. Idempotent; a later call opens them again."""
        self._store.close()

    def look(self) -> StoreSeen | None:
        """Which store it is, its schema and its clock; None when nothing was ever written. Changes nothing."""
        seen = self._store.look()
        return None if seen is None else StoreSeen(str(self._store), *seen, current=seen[0] == HEAD)

    def kept(self) -> AbstractContextManager[None]:
        """For many writes in a row: within, a SQLite file stays open between them."""
        return self._store.kept()

    def begin(
        self,
        running: MaintenanceResult,
        *,
        who: str,
        ttl: timedelta,
        tell: Callable[[MaintenanceResult], Notices] | None = None,
    ) -> tuple[Lease, int]:
        """Take the lease of the operation's table, and record that it runs; all or nothing, and lasting.

        What killed processes left as running there is ended as by :meth:`end_abandoned`; how many these were.
        Raises LeaseHeldError as :meth:`acquire`.
        """
        table, id = TableId.parse(running.config.target_table), running.operation_id
        with self._store.writing(lasting=True) as connection:
            lease = leases.acquire(connection, table, holder=who, operation_id=id, ttl=ttl)
            ended = _end_abandoned(connection, table, id, tell)
            log.record(connection, running, who)
        return lease, len(ended)

    def end(self, result: MaintenanceResult, lease: Lease, *, who: str, notices: Notices | None = None) -> None:
        """Record how an operation ended, as :meth:`record`, and give its lease back: both, or neither."""
        with self._store.writing() as connection:
            # in the order of begin: of two that hold one row each, neither waits for the other's
            leases.release(connection, lease)
            _record(connection, result, who, notices)

    def record(self, result: MaintenanceResult, *, who: str, notices: Notices | None = None) -> None:
        """Write how an operation stands or ended, and who runs it (user, host, program).

        Recording the same ``operation_id`` again replaces what was recorded: a running operation's end.
        What is to be told of it is written in the same transaction: both are there, or neither.
        """
        with self._store.writing() as connection:
            _record(connection, result, who, notices)

    def end_abandoned(
        self,
        table: TableId,
        *,
        besides: str,
        holding: bool = True,
        tell: Callable[[MaintenanceResult], Notices] | None = None,
    ) -> int:
        """Record as failed what a killed process left as running on the table; how many operations it were.

        For whoever holds the table's lease: nothing else but its own operation, ``besides``, can still run.
        With ``holding`` false for anybody: nothing is ended while the lease is held. ``tell`` answers what
        is to be told of each.
        """
        if not self._read(lambda connection: bool(log.unended(connection, storable(str(table)), besides)), False):
            return 0
        with self._store.writing() as connection:
            ended = _end_abandoned(connection, table, besides, tell)
            # looked at last: whoever takes the lease from now on records his operation later than was read above
            if ended and not holding and leases.holder(connection, table) is not None:
                connection.rollback()
                return 0
            return len(ended)

    def operations(
        self,
        limit: int | None = 10,
        since: datetime | None = None,
        tables: Sequence[str] = (),
        operations: Sequence[str] = (),
        statuses: Sequence[str] = (),
    ) -> list[MaintenanceResult]:
        """Recorded operations, newest first, at most ``limit`` (None: all).

        ``since`` is an aware moment compared with their start; ``tables`` are globs over table ids.
        """
        moment = None if since is None else _aware(since, "since")
        return self._read(
            lambda connection: log.results(
                connection, limit=limit, since=moment, tables=tables, operation_names=operations, statuses=statuses
            ),
            [],
        )

    def operation(self, operation_id: str) -> MaintenanceResult | None:
        """The recorded operation of that id, None when there is none."""
        return self._read(lambda connection: log.result(connection, operation_id), None)

    def facts(self, tables: Sequence[TableId] | None = None) -> Mapping[tuple[str, str], RunFacts]:
        """What the planner asks of the log, by (table id, operation), for these tables or all, in one query."""
        wanted = None if tables is None else [storable(str(table)) for table in tables]
        return self._read(lambda connection: log.all_facts(connection, wanted), {})

    def spent(self, backend: str, since: datetime) -> Spent:
        """What was done on a backend since an aware moment, as budgets count it."""
        moment = _aware(since, "since")
        return self._read(lambda connection: log.spent(connection, storable(backend), moment), Spent())

    def record_health(self, points: Iterable[HealthPoint]) -> None:
        """Add points to the health series, in one transaction."""
        # before the lock is taken: whoever makes the points may take his time
        given = list(points)
        with self._store.writing() as connection:
            series.record(connection, given)

    def health_series(self, table: TableId, since: datetime | None = None) -> list[HealthPoint]:
        """The points of one table from ``since`` (an aware moment; None: from the start), oldest first."""
        moment = None if since is None else _aware(since, "since")
        return self._read(lambda connection: series.points(connection, table, moment), [])

    def latest_health(self, tables: Sequence[TableId]) -> Mapping[TableId, HealthPoint]:
        """The newest point of each of the tables that has any, in one query."""
        return self._read(lambda connection: series.latest(connection, tables), {})

    def post(self, notices: Notices, *, due_in: timedelta = timedelta(0)) -> None:
        """Put notices into the outbox, without a result to record."""
        if notices.items:
            with self._store.writing() as connection:
                outbox.add(connection, notices, due_in)

    def end_group(self, group: str) -> int:
        """A run or batch is over, so what it has to tell is due now; how many notices that are."""
        if not self._read(lambda connection: outbox.waits(connection, group), False):
            return 0
        with self._store.writing() as connection:
            return outbox.end_group(connection, group)

    def claim_notices(self, destinations: Sequence[str], lease: timedelta) -> Parcel | None:
        """What is due for one of the destinations, for one message; None when nothing is.

        Nobody else gets it until ``lease`` is over, or :meth:`notices_failed` gave it back.
        """
        names = list(destinations)
        if not self._read(lambda connection: outbox.any_due(connection, names), False):
            return None
        with self._store.writing() as connection:
            return outbox.claim(connection, names, lease)

    def notices_sent(self, parcel: Parcel) -> bool:
        """Note that it was sent. False: the claim was over before, and somebody else may send it again."""
        with self._store.writing() as connection:
            return outbox.sent(connection, parcel) > 0

    def notices_failed(self, parcel: Parcel, error: str, again_in: timedelta | None) -> None:
        """Note why it was not sent, without secrets; it is due again in a while, or given up (None)."""
        with self._store.writing() as connection:
            outbox.failed(connection, parcel, error, again_in)

    def outbox(self, destinations: Sequence[str], since: datetime) -> OutboxSeen:
        """What waits to be sent, and what was given up since an aware moment."""
        moment = _aware(since, "since")
        return self._read(
            lambda connection: outbox.seen(connection, destinations, moment), OutboxSeen(0, None, (), 0, None)
        )

    def prune(self, older_than: datetime, *, batch: int = 5000) -> Pruned:
        """Delete operations that started, points measured, and notices written, before the aware moment ``older_than``.

        ``batch`` rows per transaction, so that nobody waits long for the lock. Facts and leases stay, and
        notices that wait to be sent.
        """
        moment = _aware(older_than, "older_than")
        there = self._read(lambda _connection: True, False)
        if not there:
            return Pruned(0, 0)
        return Pruned(
            self._in_batches(lambda connection: log.prune(connection, moment, batch), batch),
            self._in_batches(lambda connection: series.prune(connection, moment, batch), batch),
            self._in_batches(lambda connection: outbox.prune(connection, moment, batch), batch),
        )

    def acquire(self, table: TableId, *, holder: str, operation_id: str, ttl: timedelta) -> Lease:
        """Take the table's lease for ``ttl``. Raises LeaseHeldError naming holder and expiry when it is held.

        ``holder`` is a text people recognise (user, host, process). A lease left by a dead process can
        be taken once it has expired.
        """
        with self._store.writing() as connection:
            return leases.acquire(connection, table, holder=holder, operation_id=operation_id, ttl=ttl)

    def renew(self, lease: Lease) -> Lease:
        """Hold the lease for another ``ttl`` from now. Raises LeaseLostError when it expired or was taken over."""
        with self._store.writing() as connection:
            return leases.renew(connection, lease)

    def release(self, lease: Lease) -> None:
        """Give the lease back; does nothing when it is no longer held."""
        with self._store.writing() as connection:
            leases.release(connection, lease)

    def check(self, lease: Lease) -> None:
        """Raise LeaseLostError unless the lease is held right now, by the store's clock."""
        with self._store.reading() as connection:
            leases.check(connection, lease)

    def holder(self, table: TableId) -> Lease | None:
        """The lease that is held on the table right now, None when there is none."""
        return self._read(lambda connection: leases.holder(connection, table), None)

    def _read(self, ask: Callable[[Connection], T], empty: T) -> T:
        with self._store.reading() as connection:
            return empty if connection is None else ask(connection)

    def _in_batches(self, step: Callable[[Connection], int], batch: int) -> int:
        total = 0
        while True:
            with self._store.writing() as connection:
                deleted = step(connection)
            total += deleted
            if deleted < batch:
                return total


def _record(connection: Connection, result: MaintenanceResult, who: str, notices: Notices | None) -> None:
    log.record(connection, result, who)
    if notices is not None:
        outbox.add(connection, notices, GROUP_WAITS)


def _end_abandoned(
    connection: Connection,
    table: TableId,
    besides: str,
    tell: Callable[[MaintenanceResult], Notices] | None,
) -> list[str]:
    ended = log.end_abandoned(connection, storable(str(table)), besides, datetime.now(UTC))
    for operation_id in ended if tell is not None else ():
        result = log.result(connection, operation_id)
        if result is not None and tell is not None:
            outbox.add(connection, tell(result), GROUP_WAITS)
    return ended


def _aware(moment: datetime, name: str) -> datetime:
    if moment.tzinfo is None:
        raise RequestError(f"{name}={moment.isoformat()} has no time zone", hint="Write it with an offset, e.g. ...Z.")
    return moment
