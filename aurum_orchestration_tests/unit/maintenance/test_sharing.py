"""What an operation's result makes of the measurements that several rounds share."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.interfaces import (
    MaintenanceConfig,
    MaintenanceResult,
    MaintenanceStatus,
    TableHealth,
)
from aurum_orchestration.maintenance.operations.bloat import BloatPolicy
from aurum_orchestration.maintenance.sharing import Shared

NOW = datetime(2026, 11, 21, tzinfo=UTC)
KNOWN = [TableId.parse(name) for name in ("pg.shop", "pg.public.a", "pg.public.b", "lake.n.t")]


def left_after(target: str, status: str = "completed", operation: str = "vacuum", *, dry_run: bool = False) -> set[str]:
    """Which tables are still known after an operation."""
    shared = Shared(lambda _table, _operation: BloatPolicy(), plain=True)
    shared.learn(TableHealth(table, table.backend, "1", NOW) for table in KNOWN)
    config = MaintenanceConfig(operation_type=operation, target_table=target, dry_run=dry_run)
    made = MaintenanceResult(
        config=config, backend="x", status=MaintenanceStatus(status), started_at=NOW, finished_at=NOW
    )
    shared.changed_by(made)
    return set(map(str, KNOWN)) - set(map(str, shared.missing(KNOWN)))


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_a_table_that_an_operation_touched_and_its_database_are_measured_again(status: str) -> None:
    assert left_after("pg.public.a", status) == {"pg.public.b", "lake.n.t"}
    assert left_after("lake.n.t", status) == {"pg.shop", "pg.public.a", "pg.public.b"}


def test_an_operation_on_a_database_may_have_changed_all_its_tables() -> None:
    assert left_after("pg.shop") == {"lake.n.t"}


def test_what_only_looked_changed_nothing() -> None:
    everything = set(map(str, KNOWN))
    assert left_after("pg.public.a", "skipped") == everything
    assert left_after("pg.public.a", dry_run=True) == everything
    assert left_after("pg.public.a", operation="bloat") == everything
