"""Clocks that disagree: what is young stays, whoever is wrong."""

from __future__ import annotations

import time

import pytest

from aurum_orchestration_tests.integration.cleanup.judges import (
    NOW,
    age_all,
    aged,
    everything,
    plant,
    quarantined,
    snapshot_rows,
)
from aurum_orchestration_tests.integration.upkeep.lakeside import Lakeside, append

DAY = 24 * 60 * 60


def set_clock(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """This machine's clock is so many days ahead; the storage's is right."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + days * DAY)


def test_a_machine_whose_clock_is_ahead_expires_nothing(lake: Lakeside, monkeypatch: pytest.MonkeyPatch) -> None:
    table = lake.table()
    append(table, 5)
    before, rows = everything(table), snapshot_rows(table)
    with monkeypatch.context() as patch:
        set_clock(patch, 30)
        done = lake.run("retention", retention_days=7, retain_last=1)
    assert done.problem is not None
    assert (done.status, done.problem.type, done.problem.transient) == ("failed", "configuration-error", False)
    assert "ahead of that of" in (done.problem.detail or "")
    assert everything(table.refresh()) == before
    assert snapshot_rows(table) == rows
    assert lake.run("retention", retain_last=1, **NOW).status == "completed", "once the clock is right"


def test_a_machine_whose_clock_is_behind_expires_less(lake: Lakeside, monkeypatch: pytest.MonkeyPatch) -> None:
    table = lake.table()
    append(table, 3)
    table = aged(lake, table, 10)
    append(table, 1, start=100)
    set_clock(monkeypatch, -5)
    assert lake.run("retention", retention_days=7, retain_last=1).status == "skipped"
    assert len(table.refresh().metadata.snapshots) == 4


def test_snapshots_from_the_future_are_young(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 3)
    table = aged(lake, table, -10)
    rows = snapshot_rows(table)
    assert lake.run("retention", retention_days=1, retain_last=1).status == "skipped"
    assert snapshot_rows(table.refresh()) == rows


def test_files_from_the_future_are_young(lake: Lakeside) -> None:
    table = lake.table()
    append(table, 1)
    plant(table, "data/from-tomorrow.parquet", days=-2)
    before = everything(table)
    assert lake.run("vacuum").status == "skipped"
    assert everything(table) == before


def test_a_machine_whose_clock_is_ahead_empties_no_quarantine(lake: Lakeside, monkeypatch: pytest.MonkeyPatch) -> None:
    table = lake.table()
    append(table, 1)
    age_all(table)
    plant(table, "data/lost.parquet", days=30)
    assert lake.run("vacuum").metrics["files_quarantined"] == 1
    kept = quarantined(table)
    with monkeypatch.context() as patch:
        set_clock(patch, 60)
        done = lake.run("vacuum")
    assert any("so it stays" in warning for warning in done.warnings)
    assert quarantined(table) == kept
