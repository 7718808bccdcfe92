"""Insight into a database of the fleet, as plain synchronous calls: ``service.database("pg").get_table_sizes()``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from aurum_orchestration.maintenance.database_report import (
    DatabaseInfo,
    DatabaseInspector,
    DatabaseReport,
    Estimate,
    IndexInfo,
    LockWait,
    LongQuery,
    TableSize,
)
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus, OperationType
from aurum_orchestration.maintenance.planner.databases import GIB_PER_SECOND, START_SECONDS
from aurum_orchestration.maintenance.planner.facts import GIB

if TYPE_CHECKING:
    from aurum_orchestration.history import History

__all__ = ["DatabaseInfo", "MaintenanceUtils"]

ALL = (
    OperationType.VACUUM,
    OperationType.REINDEX,
    OperationType.CLEANUP,
    OperationType.LOGS,
    OperationType.SESSIONS,
    OperationType.VIEWS,
    OperationType.STATS,
    OperationType.BLOAT,
    OperationType.BACKUP,
)
"""The maintenance of a database, in the order it is done in: ``aurum maintenance --all``."""

SQL = frozenset({"postgres", "timescale", "clickhouse", "sqlite"})
"""Types of backends that are databases."""

LARGEST = 20
LONG_SECONDS = 300.0
_RUNS_LOOKED_AT = 1_000
_MOVED: dict[str, Callable[[float, float], float]] = {
    OperationType.VACUUM: lambda tables, indexes: tables + indexes,
    OperationType.REINDEX: lambda tables, indexes: tables + indexes,
    OperationType.BACKUP: lambda tables, _indexes: 2 * tables,
}
"""Bytes read and written by what goes over everything, from those of tables and of indexes; the others take moments."""


class MaintenanceUtils:
    """What one database tells of itself. Writes nothing, connects when first asked."""

    def __init__(
        self,
        backend: str,
        inspector: Callable[[], DatabaseInspector],
        operations: Sequence[str] = (),
        history: Callable[[], History] | None = None,
    ) -> None:
        self._backend, self._make = backend, inspector
        self._operations, self._history = operations, history
        self._made: DatabaseInspector | None = None

    @property
    def _inspector(self) -> DatabaseInspector:
        if self._made is None:
            self._made = self._make()
        return self._made

    def get_database_info(self) -> DatabaseInfo:
        """Which database it is, and who we are there."""
        return self._inspector.info()

    def get_database_size(self) -> int:
        """Bytes that the database takes."""
        return self._inspector.size()

    def get_table_sizes(self, limit: int | None = LARGEST) -> list[TableSize]:
        """The largest tables, the largest first (None: all)."""
        return self._inspector.table_sizes(limit)

    def get_index_info(self) -> list[IndexInfo]:
        """Every index with size and use, the largest first."""
        return self._inspector.indexes()

    def get_unused_indexes(self) -> list[IndexInfo]:
        """Indexes that no query used since statistics began and no constraint needs. None is dropped by itself.

        A replica counts its own scans: look there as well before one is dropped.
        """
        return [one for one in self.get_index_info() if one.scans == 0 and not one.needed and one.valid]

    def get_active_connections(self) -> int:
        """Clients connected now, us included."""
        return self._inspector.connections()

    def get_long_running_queries(self, seconds: float = LONG_SECONDS) -> list[LongQuery]:
        """Sessions whose transaction has been open longer than that, the longest first."""
        return self._inspector.long_running(seconds)

    def check_for_locks(self) -> list[LockWait]:
        """Sessions that wait for a lock, the longest first, each with those that it waits for."""
        return self._inspector.locks()

    def estimate_maintenance_time(self) -> list[Estimate]:
        """Seconds of each operation on the whole database: from this installation's own history, else from bytes."""
        sizes = self.get_table_sizes(None)
        tables, indexes = sum(one.table_bytes for one in sizes), sum(one.index_bytes for one in sizes)
        return [self._recorded(name) or _guessed(name, tables, indexes) for name in self._operations]

    def get_maintenance_report(self) -> DatabaseReport:
        """All of it."""
        indexes = self.get_index_info()
        return DatabaseReport(
            backend=self._backend,
            info=self.get_database_info(),
            bytes=self.get_database_size(),
            connections=self.get_active_connections(),
            tables=self.get_table_sizes(),
            unused_indexes=[one for one in indexes if one.scans == 0 and not one.needed and one.valid],
            invalid_indexes=[one for one in indexes if not one.valid],
            long_running_queries=self.get_long_running_queries(),
            locks=self.check_for_locks(),
            estimates=self.estimate_maintenance_time(),
        )

    def _recorded(self, operation: str) -> Estimate | None:
        if self._history is None:
            return None
        newest: dict[str, float] = {}
        for result in self._history().operations(
            _RUNS_LOOKED_AT,
            tables=[f"{self._backend}.**"],
            operations=[operation],
            statuses=[MaintenanceStatus.COMPLETED],
        ):
            newest.setdefault(result.config.target_table, result.seconds)
        if not newest:
            return None
        return Estimate(operation=operation, seconds=round(sum(newest.values()), 3), basis="history")


def _guessed(operation: str, tables: float, indexes: float) -> Estimate:
    moved = _MOVED[operation](tables, indexes) if operation in _MOVED else 0.0
    return Estimate(operation=operation, seconds=round(START_SECONDS + moved / GIB / GIB_PER_SECOND, 3), basis="bytes")
