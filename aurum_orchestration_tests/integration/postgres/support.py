"""A small database with churn, and the service on it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.base import BaseMaintenanceBackend
from aurum_orchestration.maintenance.backends.postgres.backend import PostgresMaintenanceBackend
from aurum_orchestration.maintenance.interfaces import (
    MaintenanceResult,
    PlanExecution,
    PlanStep,
    RunContext,
    TableHealth,
)
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.settings import AurumSettings
from aurum_orchestration_tests.servers.postgres_matrix import SETTLES_AFTER

Backend = TypeVar("Backend", bound=BaseMaintenanceBackend)

ROWS = 20_000
TRADES = "pg.public.trades"

CHURN = f"""
CREATE TABLE trades (
    id bigint PRIMARY KEY, curve text NOT NULL, price numeric, at timestamptz NOT NULL, note text
) WITH (autovacuum_enabled = false);
CREATE INDEX trades_curve ON trades (curve);
CREATE INDEX trades_at ON trades (at);
INSERT INTO trades
SELECT g, 'curve-' || g % 50, g * 1.5, timestamptz '2026-01-01' + g * interval '1 minute', repeat('x', 40)
  FROM generate_series(1, {ROWS}) g;
"""
"""A table that nobody but us vacuums, with three indexes."""


@dataclass
class Pg:
    """One database of a real server: ``dsn`` of its superuser, and the service with it as backend ``pg``."""

    dsn: str
    name: str
    home: Path

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        """Statements, each for itself; rows of the last one."""
        with self.connect() as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def script(self, text: str) -> None:
        """Statements separated by semicolons."""
        self.sql(*filter(None, (statement.strip() for statement in text.split(";"))))

    @property
    def dsn_url(self) -> str:
        """The database as SQLAlchemy writes it, for the history store."""
        given = psycopg.conninfo.conninfo_to_dict(self.dsn)
        return f"postgresql+psycopg://{given['user']}@{given['host']}:{given['port']}/{given['dbname']}"

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        """A connection in autocommit."""
        return psycopg.connect(self.dsn, autocommit=True, **options)

    @contextmanager
    def transaction(self, *statements: str, isolation: str = "REPEATABLE READ") -> Iterator[int]:
        """A transaction of somebody else that stays open; gives its pid."""
        with self.connect() as other:
            other.execute(f"BEGIN ISOLATION LEVEL {isolation}")
            for statement in statements:
                other.execute(statement)
            yield other.info.backend_pid

    def checksum(self, table: str = "trades") -> tuple[Any, ...]:
        """Count and content of a table."""
        return self.sql(f"SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0) FROM {table} t")[0]

    @cached_property
    def major(self) -> int:
        """The major version of the server."""
        with self.connect() as connection:
            return connection.info.server_version // 10_000

    @property
    def only(self) -> str:
        """What comes before the name in VACUUM and ANALYZE of one table: from PostgreSQL 18 on they take children."""
        return "ONLY " if self.major >= 18 else ""

    def settle(self) -> None:
        """Wait until the statistics tell what was done before."""
        if self.major < 15:
            time.sleep(SETTLES_AFTER)

    def backend(self, **config: Any) -> PostgresMaintenanceBackend:
        """A backend of its own; whoever asks for it disconnects it."""
        self.settle()
        return PostgresMaintenanceBackend({"dsn": self.dsn, **config}, name="pg")

    def health(self, *tables: str) -> list[TableHealth]:
        """The tables as they are measured now."""
        with opened(self.backend()) as backend:
            return backend.measure([TableId.parse(table) for table in tables], lambda *_: None)  # type: ignore[arg-type]

    def settings(self, extra: str = "") -> AurumSettings:
        """Settings whose fleet has this database as ``pg``; ``extra`` are lines of YAML below it."""
        self.settle()
        self.home.mkdir(exist_ok=True)
        fleet = self.home / "fleet.yaml"
        fleet.write_text(f'version: 1\nbackends:\n  pg:\n    type: postgres\n    dsn: "{self.dsn}"\n{extra}')
        return AurumSettings(home=self.home, fleet=fleet, history_url=f"sqlite:///{self.home}/history.db")

    def maintain(
        self, operation: str, tables: Sequence[str] = (TRADES,), *, dry_run: bool = False, extra: str = "", **given: Any
    ) -> list[MaintenanceResult]:
        """One round of an operation, as ``aurum run --operation`` does it."""

        async def go() -> list[MaintenanceResult]:
            async with MaintenanceService(self.settings(extra)) as service:
                return await service.maintain(list(tables), [operation], dry_run, parameters=given)

        return asyncio.run(go())

    def run(self, operation: str, table: str = TRADES, **options: Any) -> MaintenanceResult:
        """The result of an operation on one table."""
        (result,) = self.maintain(operation, [table], **options)
        return result


def steps_of(result: MaintenanceResult) -> list[PlanStep]:
    """The steps that a result tells of."""
    return result.steps or []


@contextmanager
def opened(backend: Backend) -> Iterator[Backend]:
    """The backend, disconnected at the end."""
    try:
        yield backend
    finally:
        asyncio.run(backend.disconnect())


def carry_out(execution: PlanExecution, run: RunContext) -> None:
    """Every unit of an execution, without lease and history."""
    for unit in execution.units():
        unit.stage(run)
        unit.commit(run)


def a_run(name: str = "test") -> RunContext:
    """A run that nobody cancels, unless by its event."""
    return RunContext(operation_id=name, cancelled=threading.Event())
