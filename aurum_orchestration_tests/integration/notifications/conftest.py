"""A lake whose fleet tells real receivers what happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from aurum_orchestration.fleet.notifications import Destination, destinations
from aurum_orchestration.history import History
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.settings import AurumSettings
from aurum_orchestration_tests.lake import build_lake, lake_catalog
from aurum_orchestration_tests.servers.receivers import HttpReceiver, SmtpReceiver, http_receiver, smtp_receiver

TRADES = "lake.market.trades"


@dataclass
class Desk:
    """A lake, its fleet file, and its history."""

    home: Path
    settings: AurumSettings
    environment: pytest.MonkeyPatch

    def tell(self, *rules: dict[str, Any]) -> None:
        """Put rules under ``notifications``, in place of those that are there; their URLs go into the environment."""
        for number, rule in enumerate(rules):
            for position, url in enumerate(rule["urls"]):
                self.environment.setenv(f"URL_{number}_{position}", url)
            rule["urls"] = [f"${{URL_{number}_{position}}}" for position in range(len(rule["urls"]))]
        text = self.settings.fleet.read_text().partition("\nnotifications:")[0]
        self.settings.fleet.write_text(f"{text}\n{yaml.safe_dump({'notifications': list(rules)})}")

    def service(self) -> MaintenanceService:
        return MaintenanceService(self.settings)

    def history(self) -> History:
        return History(self.settings.history_url)

    def destinations(self) -> list[Destination]:
        return list(destinations(self.service().fleet.config.notifications))

    def damage(self, table: str = "trades") -> None:
        """Remove a data file of a table, so that no operation that reads it can succeed."""
        with closing(lake_catalog(self.home)) as catalog:
            task = next(iter(catalog.load_table(f"market.{table}").scan().plan_files()))
        Path(task.file.file_path.removeprefix("file://")).unlink()

    def make_due(self) -> None:
        """Let time pass: whatever waits is due now and claimed by nobody."""
        with self.history() as history, history._store.writing() as connection:
            connection.exec_driver_sql(
                "UPDATE aurum_outbox SET due_at = '2026-01-01 00:00:00.000000', claimed_until = NULL "
                "WHERE due_at IS NOT NULL"
            )

    def rows(self) -> list[dict[str, Any]]:
        with self.history() as history, history._store.reading() as connection:
            if connection is None:
                return []
            return [dict(row._mapping) for row in connection.exec_driver_sql("SELECT * FROM aurum_outbox ORDER BY id")]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    home = tmp_path / "home"
    return Desk(home, AurumSettings(home=home, fleet=build_lake(home)), monkeypatch)


@pytest.fixture
def receiver() -> Iterator[HttpReceiver]:
    with http_receiver() as running:
        yield running


@pytest.fixture
def mailbox() -> Iterator[SmtpReceiver]:
    with smtp_receiver() as running:
        yield running
