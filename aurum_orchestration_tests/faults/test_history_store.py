"""A history store that cannot be used: nothing is changed on any table, and the problem says whether waiting helps."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from aurum_orchestration.history import History
from aurum_orchestration.history.schema import VERSION_TABLE
from aurum_orchestration_tests.command import aurum
from aurum_orchestration_tests.lake import build_lake, lake_catalog

TABLE = "lake.market.trades"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lake whose history was used once, on a disk of its own where this process may mount one."""
    home = tmp_path / "home"
    monkeypatch.setenv("AURUM_HOME", str(home))
    monkeypatch.setenv("AURUM_FLEET", str(build_lake(home)))
    monkeypatch.setenv("AURUM_HISTORY_URL", f"sqlite:///{home}/store/history.db?timeout=0.05")
    return home


def use_once(home: Path) -> Path:
    with History(f"sqlite:///{home}/store/history.db") as history:
        history.record_health([])
    return home / "store" / "history.db"


def compact() -> dict[str, Any]:
    (result,) = aurum("run", "--operation", "compaction", "--table", TABLE, "--output", "json").json
    return dict(result)


def snapshots(home: Path) -> int:
    with closing(lake_catalog(home)) as catalog:
        return len(catalog.load_table("market.trades").metadata.snapshots)


def newer(file: Path) -> None:
    with closing(sqlite3.connect(file)) as store, store:
        store.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9042'")


def garbage(file: Path) -> None:
    file.write_bytes(b"this is no database " * 400)


@pytest.mark.parametrize(("spoil", "told"), [(newer, "9042"), (garbage, "not a database")])
def test_a_store_that_cannot_be_used_is_permanent_and_left_alone(
    home: Path, spoil: Callable[[Path], None], told: str
) -> None:
    spoil(file := use_once(home))
    kept, before = file.read_bytes(), snapshots(home)
    result = compact()
    problem = result["problem"]
    assert (result["status"], problem["type"], problem["transient"]) == ("failed", "history-unusable", False)
    assert told in problem["detail"]
    assert problem["hint"]
    assert (file.read_bytes(), snapshots(home)) == (kept, before)
    assert aurum("status", "--output", "json").code == 0


def test_a_store_that_is_locked_stops_nothing_but_changes(home: Path) -> None:
    file, before = use_once(home), snapshots(home)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    result = compact()
    other.close()
    problem = result["problem"]
    assert (result["status"], problem["type"], problem["transient"]) == ("failed", "history-unavailable", True)
    assert "is locked" in problem["detail"]
    assert snapshots(home) == before
    assert compact()["status"] == "completed"


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    store = home / "store"
    store.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(store)]
    try:
        mounted = subprocess.run(mounting, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("this process may not mount a disk")
    yield store
    subprocess.run(["umount", "-l", str(store)], check=True)


def test_a_store_on_a_full_disk(home: Path, small_disk: Path) -> None:
    use_once(home)
    before = snapshots(home)
    with (small_disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(b"x" * 4096)
    result = compact()
    problem = result["problem"]
    assert (result["status"], problem["type"], problem["transient"]) == ("failed", "history-unavailable", True)
    assert "Free space" in problem["hint"]
    assert snapshots(home) == before
    (small_disk / "filler").unlink()
    assert compact()["status"] == "completed"


def test_a_store_of_an_older_version_is_brought_up_to_date_by_the_next_run(home: Path) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine

    from aurum_orchestration.history.migrate import MIGRATIONS

    (home / "store").mkdir()
    engine = create_engine(f"sqlite:///{home}/store/history.db")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    assert "an older one" in aurum("doctor").out
    assert compact()["status"] == "completed"
    assert "an older one" not in aurum("doctor").out
