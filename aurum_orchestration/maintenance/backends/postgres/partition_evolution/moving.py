"""Rows leave the default partition for one of their own: what a foreign key would do to those that refer to them.

For the server such a row is deleted, and comes back only when its new partition is attached. Until then keys act.
"""

from __future__ import annotations

from psycopg import sql

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.maintenance.backends.postgres.connection import Session
from aurum_orchestration.maintenance.backends.postgres.partitions import Partition
from aurum_orchestration.maintenance.backends.postgres.rows.ledger import Ledger
from aurum_orchestration.maintenance.backends.postgres.rows.references import referrers
from aurum_orchestration.maintenance.backends.postgres.rows.relation import Leaf, RowTable, delete_triggers


def require_movable(session: Session, table: RowTable, default: Partition, moved: sql.Composable) -> Ledger:
    """The ledger that proves that nothing else went with the rows of a condition.

    Raises UnsupportedError when others refer to them, or when others could and nobody would tell.
    """
    ledger = Ledger.of(session, table, [_leaf(default)], cascade=False)
    try:
        keys = referrers(session, table, moved, cascade=False).keys
    except UnsupportedError as refused:
        raise UnsupportedError(
            f"its rows cannot leave {default.shown}: {refused.detail}",
            hint="Move the rows that refer to them first, or drop the foreign key while the partition is made.",
        ) from refused
    if keys and ledger.warning is not None:
        raise UnsupportedError(f"its rows cannot leave {default.shown}, which foreign keys point to: {ledger.warning}")
    return ledger


def trigger_warnings(session: Session, table: RowTable, default: Partition) -> list[str]:
    """A sentence for each trigger that takes the move for a deletion."""
    return [f"{told}, also when rows leave {default.shown}" for told in delete_triggers(session, table)]


def _leaf(default: Partition) -> Leaf:
    return Leaf(default.oid, default.schema, default.name, blocks=0, by_time=False)
