"""The schema: made by migrations, equal to what the code declares, brought up to date, never down."""

from __future__ import annotations

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from aurum_orchestration.errors import HistoryUnusableError
from aurum_orchestration.history import History
from aurum_orchestration.history.migrate import MIGRATIONS
from aurum_orchestration.history.schema import HEAD, VERSION_TABLE, metadata
from aurum_orchestration.settings import AurumSettings
from aurum_orchestration_tests import disk
from aurum_orchestration_tests.integration.history.samples import FLIGHTS, NOON, ended, point


def alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def make_folder(url: str) -> None:
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir()


def make_older(url: str) -> None:
    """A store as the first version of the schema left it, with one operation and one lease."""
    make_folder(url)
    config, engine = alembic_config(), create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        row = {"table": str(FLIGHTS), "at": NOON if url.startswith("postgresql") else "2026-01-31 12:00:00.000000"}
        command.upgrade(config, "0001")
        connection.execute(
            text(
                "INSERT INTO aurum_operations (operation_id, table_id, backend, operation, status, reason, who, "
                "dry_run, parameters, metrics, warnings, started_at, finished_at, seconds) "
                "VALUES ('old', :table, 'lake', 'compaction', 'completed', 'r', 'maria', false, "
                "'{}', '{}', '[]', :at, :at, 0)"
            ),
            row,
        )
        connection.execute(
            text(
                "INSERT INTO aurum_leases (table_id, token, holder, operation_id, ttl_seconds, acquired_at) "
                "VALUES (:table, 41, 'maria', 'old', 60, :at)"
            ),
            row,
        )
    engine.dispose()


def set_revision(url: str, revision: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = :revision"), {"revision": revision})
    engine.dispose()


def tables_of(url: str) -> set[str]:
    engine = create_engine(url)
    names = set(inspect(engine).get_table_names())
    engine.dispose()
    return names


def test_the_newest_migration_is_what_the_code_expects() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_heads() == [HEAD]


def test_migrations_make_what_the_code_declares(history: History) -> None:
    history.record_health([])
    with history._store.reading() as connection:
        assert connection is not None
        options = {"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []


def test_reading_makes_nothing(url: str, history: History, tmp_path: Path) -> None:
    assert history.operations() == []
    assert history.facts() == {}
    assert history.health_series(FLIGHTS) == []
    assert history.holder(FLIGHTS) is None
    history.close()
    assert list(tmp_path.iterdir()) == []
    if url.startswith("postgresql"):
        assert tables_of(url) == set()


def test_writing_makes_the_store_and_later_ones_find_it(url: str, history: History) -> None:
    history.record(ended(), who="maria")
    assert tables_of(url) == {*metadata.tables, VERSION_TABLE}
    with History(url) as other:
        assert other.operations() == history.operations() == [ended(operation_id=history.operations()[0].operation_id)]


def test_an_older_store_is_migrated_and_keeps_its_rows(url: str) -> None:
    make_older(url)
    with History(url) as history:
        history.record_health([point()])
        assert [result.operation_id for result in history.operations()] == ["old"]
        assert history.health_series(FLIGHTS) == [point()]
        assert history.acquire(FLIGHTS, holder="john", operation_id="new", ttl=timedelta(minutes=1)).token == 42


def test_an_older_store_is_read_without_being_changed(url: str) -> None:
    make_older(url)
    with History(url) as history:
        assert history.health_series(FLIGHTS) == []
        assert [result.operation_id for result in history.operations()] == ["old"]
    assert "aurum_health" not in tables_of(url)


def test_a_newer_store_is_refused_and_left_alone(url: str, history: History) -> None:
    history.record(ended(operation_id="op-1"), who="maria")
    set_revision(url, "9042")
    with History(url) as older:
        for use in (older.operations, lambda: older.record(ended(), who="maria"), lambda: older.holder(FLIGHTS)):
            with pytest.raises(HistoryUnusableError, match=f"schema 9042.*up to {HEAD}") as refused:
                use()
            assert "upgrade aurum-orchestration" in str(refused.value.hint)
    set_revision(url, HEAD)
    assert [result.operation_id for result in history.operations()] == ["op-1"]


def test_a_database_shared_with_others_keeps_their_tables_and_versions(url: str) -> None:
    make_folder(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num varchar(32))"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('theirs')"))
    with History(url) as history:
        assert history.operations() == []
        history.record(ended(operation_id="op-1"), who="maria")
        assert len(history.operations()) == 1
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "theirs"
    engine.dispose()


def test_threads_that_create_a_store_at_once_all_succeed(history: History) -> None:
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda number: history.record(ended(operation_id=str(number)), who="maria"), range(6)))
    assert len(history.operations()) == 6


def test_threads_that_each_create_a_store_do_not_disturb_each_other(tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def write(number: int) -> int:
        with History(f"sqlite:///{tmp_path}/{number}.db") as store:
            together.wait(30)
            store.record(ended(), who="maria")
            return len(store.operations())

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(write, range(8))) == [1] * 8


def test_closing_twice_and_using_it_again(history: History) -> None:
    history.record(ended(), who="maria")
    history.close()
    history.close()
    assert len(history.operations()) == 1


def test_a_removed_file_is_made_again(sqlite_store: str) -> None:
    with History(sqlite_store) as history:
        history.record(ended(operation_id="first"), who="maria")
        Path(sqlite_store.removeprefix("sqlite:///")).unlink()
        assert history.operations() == []
        history.record(ended(operation_id="second"), who="maria")
        assert [result.operation_id for result in history.operations()] == ["second"]


def test_readers_are_not_stopped_by_a_writer(sqlite_store: str) -> None:
    with History(f"{sqlite_store}?timeout=0") as history:
        history.record(ended(), who="maria")
        writer = sqlite3.connect(sqlite_store.removeprefix("sqlite:///"), isolation_level=None)
        writer.execute("BEGIN EXCLUSIVE")
        assert len(history.operations()) == 1
        writer.close()


def test_making_it_in_a_database_that_somebody_writes_to_waits(sqlite_store: str) -> None:
    make_folder(sqlite_store)
    other = sqlite3.connect(sqlite_store.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("CREATE TABLE theirs (number)")
    other.execute("BEGIN IMMEDIATE")
    with History(sqlite_store) as history, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(history.record, ended(), who="maria")
        time.sleep(0.3)
        other.execute("COMMIT")
        waiting.result(30)
        assert len(history.operations()) == 1
    other.close()


def test_nothing_is_left_beside_the_file(sqlite_store: str) -> None:
    with History(sqlite_store) as history:
        history.record(ended(), who="maria")
        assert len(history.operations()) == 1
    file = Path(sqlite_store.removeprefix("sqlite:///"))
    assert list(file.parent.iterdir()) == [file]


def test_between_many_writes_the_file_stays_open(sqlite_store: str) -> None:
    file = Path(sqlite_store.removeprefix("sqlite:///"))
    log = file.with_name("history.db-wal")
    with History(sqlite_store) as history:
        with history.kept():
            history.record(ended(operation_id="first"), who="maria")
            assert log.exists()
            with history.kept():
                pass
            assert log.exists()  # the outer one still keeps it
        assert list(file.parent.iterdir()) == [file]
        history.record(ended(operation_id="second"), who="maria")
        assert list(file.parent.iterdir()) == [file]
        assert len(history.operations()) == 2


def test_a_file_that_stays_open_can_be_removed_or_replaced(sqlite_store: str, tmp_path: Path) -> None:
    file = Path(sqlite_store.removeprefix("sqlite:///"))
    with History(f"sqlite:///{tmp_path}/other/history.db") as other:
        other.record(ended(operation_id="other"), who="maria")
    with History(sqlite_store) as history, history.kept():
        history.record(ended(operation_id="first"), who="maria")
        file.unlink()
        history.record(ended(operation_id="second"), who="maria")
        assert [one.operation_id for one in history.operations()] == ["second"]
        file.with_name("history.db-wal").unlink()
        file.with_name("history.db-shm").unlink()
        (tmp_path / "other" / "history.db").replace(file)
        history.record(ended(operation_id="third", minute=1), who="maria")
        assert [one.operation_id for one in history.operations()] == ["third", "other"]
    assert list(file.parent.iterdir()) == [file]


def test_the_disk_is_waited_for_where_a_run_begins(sqlite_store: str) -> None:
    full, normal = 2, 1
    with disk.waited_for(), History(sqlite_store) as history:
        with history._store.writing(lasting=True) as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == full
        with history._store.writing() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == normal


def test_a_home_with_odd_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AURUM_HISTORY_URL", raising=False)
    folder = tmp_path / "a b%20#ü'\"&=?:@\\"
    with History(AurumSettings(home=folder).history_url) as history:
        history.record(ended(), who="maria")
    assert [file.name for file in folder.iterdir()] == ["history.db"]
