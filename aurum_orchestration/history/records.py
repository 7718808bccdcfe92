"""What the history hands out besides results: leases, points of a health series, counts of what was pruned."""

from __future__ import annotations

from collections.abc import Mapping
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
    """How many rows a prune deleted from the operation log and from the health series."""

    operations: int
    health: int


@dataclass(frozen=True, slots=True)
class StoreSeen:
    """A store that was looked at: its URL without secrets, its schema's revision, and the time by its clock."""

    store: str
    revision: str
    clock: datetime
    current: bool
