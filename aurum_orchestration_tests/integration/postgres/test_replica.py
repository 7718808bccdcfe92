"""A physical standby of a real server: it is read from, nothing is written, and its queries hold the primary's rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aurum_orchestration.maintenance.backends.postgres.backend import HANDLERS
from aurum_orchestration.maintenance.interfaces import MaintenanceResult
from aurum_orchestration_tests.engines import embedded_postgres, standby_of
from aurum_orchestration_tests.integration.postgres.support import CHURN, ROWS, TRADES, Pg, opened
from aurum_orchestration_tests.integration.postgres.test_insight import utils

GROUPS = "".join(
    f"    {name}:\n      - {{title: Trades, table: public.trades, {column}: at}}\n"
    for name, column in {"cleanup": "time_column", "logs": "time_column", "sessions": "expiry_column"}.items()
)
READS = {"backup", "bloat", "stats"}
EVENTS = "pg.public.events"
MORE = """
CREATE TABLE events (id bigint, at timestamptz NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE events_2025_01 PARTITION OF events FOR VALUES FROM ('2025-01-01 00:00+00') TO ('2025-02-01 00:00+00');
INSERT INTO events VALUES (1, '2025-01-05');
CREATE MATERIALIZED VIEW curves AS SELECT curve, count(*) AS n FROM trades GROUP BY 1;
"""
GIVEN: dict[str, dict[str, Any]] = {
    "reindex": {"scope": "table"},
    "views": {"allow_plain": True},
    "compaction": {"online_rewrite": True},
    "retention": {"time_column": "at", "row_days": 30},
    "stats": {"analyze": "none"},
}
"""What gives each operation something to do."""
DEADLINE = 60.0


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[str, str]]:
    """URLs of a primary, and of its standby."""
    with embedded_postgres() as primary, standby_of(primary) as standby:
        yield primary, standby


@pytest.fixture
def primary(servers: tuple[str, str], tmp_path: Path) -> Pg:
    """The primary's database, with the table of trades half of whose rows are dead."""
    made = Pg(servers[0].replace("+psycopg", ""), "postgres", tmp_path / "primary")
    made.script(f"DROP TABLE IF EXISTS trades, events CASCADE; {CHURN} {MORE} ANALYZE trades")
    made.sql("DELETE FROM trades WHERE id % 2 = 0")
    return made


@pytest.fixture
def standby(servers: tuple[str, str], primary: Pg, tmp_path: Path) -> Pg:
    """The standby's, as soon as it has what the primary has."""
    made = Pg(servers[1].replace("+psycopg", ""), "postgres", tmp_path / "standby")
    [(written,)] = primary.sql("SELECT pg_current_wal_lsn()::text")
    wait(made, f"SELECT pg_last_wal_replay_lsn() >= '{written}'")
    return made


def wait(on: Pg, condition: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while on.sql(condition) != [(True,)]:
        assert time.monotonic() < deadline, condition
        time.sleep(0.05)


def ask(on: Pg, operation: str, **given: Any) -> MaintenanceResult:
    table = f"pg.{on.name}"
    if operation in {"vacuum", "reindex", "compaction"}:
        table = TRADES
    elif operation in {"retention", "partition_evolution"}:
        table = EVENTS
    return on.run(operation, table, extra=GROUPS, **given)


@pytest.mark.thorough
def test_a_standby_is_read_and_every_write_is_refused_with_the_reason(primary: Pg, standby: Pg, tmp_path: Path) -> None:
    given = {**GIVEN, "backup": {"path": str(tmp_path / "backups")}}
    done = {name: ask(standby, name, **given.get(name, {})) for name in HANDLERS}
    assert {name: one.problem for name, one in done.items()} == dict.fromkeys(HANDLERS)
    assert {name for name, one in done.items() if one.status == "completed"} == READS
    refused = {name: one.reason for name, one in done.items() if name not in READS}
    assert {name: reason for name, reason in refused.items() if "is a replica" not in reason} == {}
    assert {one.status for name, one in done.items() if name in refused} == {"skipped"}
    assert standby.checksum() == primary.checksum()
    assert list((tmp_path / "backups").glob("*.dump"))

    health, *_ = standby.health(TRADES)
    assert health.problem is None
    assert health.metrics["rows"] == ROWS
    with utils(standby.settings()) as told:
        assert "public.trades" in [one.table for one in told.get_table_sizes()]
        assert told.get_maintenance_report()
    with opened(standby.backend()) as backend:
        found = {one.check: one for one in backend.checkup(backend.discover([]))}
    assert found["replica"].status == "warning"
    assert "primary" in (found["replica"].hint or "")


def test_a_vacuum_on_the_primary_names_the_standby_that_holds_its_rows(primary: Pg, standby: Pg) -> None:
    assert "is a replica" in standby.run("vacuum").reason
    with standby.transaction("SELECT count(*) FROM trades"):
        primary.sql("DELETE FROM trades")
        wait(primary, "SELECT xmin IS NOT NULL FROM pg_replication_slots")
        held = primary.run("vacuum")
    # rows that were dead before the standby looked may go
    told = " ".join([held.reason, *held.warnings])
    assert "standby slot 'standby' (walreceiver at 127.0.0.1, active" in told
    assert "hot_standby_feedback" in told
    [(now,)] = primary.sql("SELECT pg_current_xact_id()::xid")
    wait(primary, f"SELECT age(xmin) <= age('{now}'::xid) FROM pg_replication_slots")
    freed = primary.run("vacuum")
    assert freed.status == "completed"
    assert freed.warnings == []
    assert freed.metrics["dead_tuples_left"] == 0
    with opened(primary.backend()) as backend:
        assert {one.status for one in backend.checkup([]) if one.check == "horizon"} <= {"ok"}
