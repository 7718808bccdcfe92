"""What the history hands out besides results: leases, points of a health series, counts of what was pruned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from aurum_orchestration.fleet.table_id import TableId


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to maintain one table until ``expires_at`` (the store's clock), for one operation.

    ``token`` is the fencing token: every lease of a table has a higher one than all leases before it,
    also after releases and expiries. ``ttl`` is how long a renewal extends it.
    """

    table: TableId
    token: int
    holder: str
    operation_id: str
    expires_at: datetime
    ttl: timedelta


@dataclass(frozen=True, slots=True)
class HealthPoint:
    """The numbers of one table at one moment, as :class:`TableHealth` measured them."""

    table: TableId
    at: datetime
    state_token: str
    debt_score: float
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows a prune deleted from the operation log, the health series and the outbox."""

    operations: int
    health: int
    notices: int = 0


@dataclass(frozen=True, slots=True)
class StoreSeen:
    """A store that was looked at: its URL without secrets, its schema's revision, and the time by its clock."""

    store: str
    revision: str
    clock: datetime
    current: bool


GROUP_WAITS = timedelta(minutes=10)
"""How long a notice waits for the end of its group at most; then its run is taken for dead, or for a long one."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell: ``about`` holds texts by name, ``destination`` is the name of a URL of fleet.yaml."""

    destination: str
    about: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Notices:
    """Notices of one group: what a run or batch has to tell to one destination becomes one message."""

    group: str
    items: Sequence[Notice] = ()


@dataclass(frozen=True, slots=True)
class Parcel:
    """Notices for one message, claimed by whoever sends it. ``waited``: since the first of them was written."""

    claim: str
    destination: str
    notices: Sequence[Mapping[str, str]]
    attempts: int
    waited: timedelta


@dataclass(frozen=True, slots=True)
class OutboxSeen:
    """What the outbox holds; ``strangers`` are destinations that nobody here knows, ``error`` the newest one."""

    waiting: int
    oldest: datetime | None
    strangers: Sequence[str]
    given_up: int
    error: str | None
