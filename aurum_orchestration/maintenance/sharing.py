"""What the rounds of one batch know of the tables: each is measured once, and again only after a change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.factory import MaintenanceFactory
from aurum_orchestration.maintenance.interfaces import MaintenanceResult, MaintenanceStatus, PolicyLookup, TableHealth

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.survey import Listing

TOUCHED = frozenset({MaintenanceStatus.COMPLETED, MaintenanceStatus.FAILED, MaintenanceStatus.CANCELLED})
"""How an operation ended that may have changed its table: a failed one may have committed some of its groups."""


@dataclass
class Shared:
    """Measurements and listings that several rounds use.

    ``policy`` is what the tables are measured and judged by in all of these rounds. ``plain``: it is the
    fleet's own, so that what others measured by that may be learned.
    """

    policy: PolicyLookup
    plain: bool
    listings: dict[Sequence[str], Listing] = field(default_factory=dict)
    _health: dict[TableId, TableHealth] = field(default_factory=dict)

    def missing(self, tables: Sequence[TableId]) -> list[TableId]:
        """Those that are to be measured."""
        return [table for table in tables if table not in self._health]

    def learn(self, measured: Iterable[TableHealth]) -> None:
        """Keep what was measured; a table that could not be is tried again by the next round."""
        self._health.update((health.table, health) for health in measured if health.problem is None)

    def all_of(self, tables: Sequence[TableId], measured: Sequence[TableHealth]) -> list[TableHealth]:
        """Health of the tables, in their order: as just ``measured``, else as it is known."""
        now: Mapping[TableId, TableHealth] = self._health | {health.table: health for health in measured}
        return [now[table] for table in tables]

    def changed_by(self, result: MaintenanceResult) -> None:
        """Forget what an operation may have changed: its table, and the database that the table is in.

        One on a database may have changed all its tables.
        """
        if result.config.dry_run or result.status not in TOUCHED or _only_looks(str(result.config.operation_type)):
            return
        table = TableId.parse(result.config.target_table)
        whole = len(table.parts) == 1
        for known in [one for one in self._health if one.backend == table.backend]:
            if whole or known == table or len(known.parts) == 1:
                del self._health[known]


def _only_looks(operation: str) -> bool:
    made = MaintenanceFactory.operations().get(operation)
    return made is not None and made.only_looks
