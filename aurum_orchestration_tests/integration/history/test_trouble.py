"""A store that cannot be used: one kind of error, what happened, what to do, and no secret."""

from __future__ import annotations

import os
import sqlite3
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from aurum_orchestration.errors import (
    AurumError,
    ConfigurationError,
    HistoryError,
    HistoryUnavailableError,
    HistoryUnusableError,
    MissingExtraError,
)
from aurum_orchestration.history import History
from aurum_orchestration.history.faults import unavailable
from aurum_orchestration.local.engines.background import free_port
from aurum_orchestration_tests.forking import SERVER
from aurum_orchestration_tests.integration.history import workers
from aurum_orchestration_tests.integration.history.samples import FLIGHTS, ended

NOBODY = 65534
SECRET = "s3cr3tw0rd"


def write(history: History) -> None:
    history.record(ended(), who="maria")


def lease(history: History) -> None:
    history.acquire(FLIGHTS, holder="maria", operation_id="op", ttl=timedelta(minutes=1))


def read(history: History) -> None:
    history.operations()


def trouble(
    url: str, use: Callable[[History], None], kind: type[HistoryError] = HistoryUnavailableError
) -> HistoryError:
    with History(url) as history, pytest.raises(kind) as caught:
        use(history)
    error = caught.value
    assert error.hint
    passes = kind is HistoryUnavailableError
    assert (error.transient, error.type) == (passes, "history-unavailable" if passes else "history-unusable")
    return error


def file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///").partition("?")[0])


# --- SQLite


@pytest.mark.parametrize("use", [write, lease])
def test_locked_by_another_process(sqlite_store: str, use: Callable[[History], None]) -> None:
    with History(sqlite_store) as history:
        write(history)
    other = sqlite3.connect(file_of(sqlite_store), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    error = trouble(f"{sqlite_store}?timeout=0.05", use)
    other.close()
    assert "database is locked" in error.detail
    assert "run again when it has ended" in str(error.hint)


@pytest.mark.parametrize("use", [read, write, lease])
def test_not_a_database(sqlite_store: str, use: Callable[[History], None]) -> None:
    file_of(sqlite_store).parent.mkdir()
    file_of(sqlite_store).write_bytes(b"this is a text, not a database " * 100)
    error = trouble(sqlite_store, use, HistoryUnusableError)
    assert "not a database" in error.detail
    assert str(file_of(sqlite_store)) in error.detail
    assert "Move it away" in str(error.hint)
    assert file_of(sqlite_store).read_bytes().startswith(b"this is a text")


@pytest.mark.parametrize("use", [read, write])
def test_damaged_in_the_middle(sqlite_store: str, use: Callable[[History], None]) -> None:
    with History(sqlite_store) as history:
        for _ in range(40):
            write(history)
    with file_of(sqlite_store).open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        # all but the schema's page
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    error = trouble(sqlite_store, use, HistoryUnusableError)
    assert "malformed" in error.detail
    assert "Move it away" in str(error.hint)


def test_a_table_is_gone(sqlite_store: str) -> None:
    with History(sqlite_store) as history:
        write(history)
    with sqlite3.connect(file_of(sqlite_store)) as connection:
        connection.execute("DROP TABLE aurum_operations")
    connection.close()
    assert "no such table" in trouble(sqlite_store, read, HistoryUnusableError).detail


def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    error = trouble(f"sqlite:///{tmp_path}", write)
    assert "unable to open" in error.detail


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    error = trouble(f"sqlite:///{tmp_path}/home/history.db", write)
    assert "right to write" in str(error.hint)


def test_read_only_for_another_user(tmp_path: Path) -> None:
    files = {name: tmp_path / name / "history.db" for name in ("its file", "its folder", "its empty folder")}
    for name, file in files.items():
        file.parent.mkdir()
        if name != "its empty folder":
            with History(f"sqlite:///{file}") as history:
                write(history)
        file.parent.chmod(0o777 if name == "its file" else 0o555)
    files["its file"].chmod(0o444)
    # pytest's own folders are private
    for folder in list(tmp_path.parents)[:-2]:
        folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    mine, theirs = SERVER.Pipe()
    urls = [f"sqlite:///{file}" for file in files.values()]
    child = SERVER.Process(target=workers.write_as, args=(urls, f"sqlite:///{tmp_path}/warm-up.db", NOBODY, theirs))
    child.start()
    child.join(60)
    for file in files.values():
        file.parent.chmod(0o755)
    assert mine.poll()
    problems = dict(zip(files, mine.recv(), strict=True))
    mine.close()
    theirs.close()
    assert {name: problem["type"] for name, problem in problems.items()} == dict.fromkeys(files, "history-unavailable")
    assert all("right to write the history store" in problem["hint"] for problem in problems.values())


# --- PostgreSQL


def with_options(url: str, more: str) -> str:
    return f"{url}%20{more.replace(' ', '%20').replace('=', '%3D')}"


def test_no_server() -> None:
    error = trouble(f"postgresql://maria:{SECRET}@127.0.0.1:{free_port()}/history", write)
    assert "server runs" in str(error.hint)
    assert SECRET not in "".join(traceback.format_exception(error))


def test_no_such_database(postgres_url: str) -> None:
    url = make_url(postgres_url).set(database="nowhere", password=SECRET).render_as_string(hide_password=False)
    error = trouble(url, read)
    assert "nowhere" in error.detail
    assert "database and user" in str(error.hint)
    assert SECRET not in "".join(traceback.format_exception(error))


def test_a_read_only_server(postgres_store: str) -> None:
    error = trouble(with_options(postgres_store, "-c default_transaction_read_only=on"), write)
    assert "read-only" in error.detail
    assert "right to write" in str(error.hint)


def test_no_rights(postgres_store: str, postgres_url: str) -> None:
    with History(postgres_store) as history:
        write(history)
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE guest_{os.getpid()} LOGIN")
        try:
            url = make_url(postgres_store).set(username=f"guest_{os.getpid()}").render_as_string(hide_password=False)
            # without the right to the schema PostgreSQL shows it as empty, and nothing can be made in it
            error = trouble(url, write)
        finally:
            connection.execute(f"DROP ROLE guest_{os.getpid()}")
    assert "right to write" in str(error.hint)


def test_locked_by_another_session(postgres_store: str) -> None:
    with History(postgres_store) as history:
        write(history)
        with psycopg.connect(postgres_store.replace("+psycopg", "")) as other:
            other.execute("LOCK TABLE aurum_leases IN ACCESS EXCLUSIVE MODE")
            error = trouble(with_options(postgres_store, "-c lock_timeout=50"), lease)
            other.rollback()
        lease(history)
    assert "lock timeout" in error.detail
    assert "run again when it has ended" in str(error.hint)


def test_a_statement_waits_for_a_lock_only_for_seconds(postgres_store: str) -> None:
    with History(postgres_store) as history:
        write(history)
        with history._store.reading() as connection:
            assert connection is not None
            assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "10s"


def test_connections_that_the_server_dropped_are_replaced(postgres_store: str, postgres_url: str) -> None:
    with History(postgres_store) as history:
        with history._store.writing() as connection:
            backend = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
        write(history)
        assert len(history.operations()) == 1


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with History("postgresql://maria@127.0.0.1/history") as history, pytest.raises(MissingExtraError) as caught:
        write(history)
    assert "aurum-orchestration[postgres]" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (PoolTimeoutError("QueuePool limit of size 5 reached, connection timed out"), "fewer tables at the same time"),
        (OSError(28, "No space left on device"), "Free space"),
        (SQLAlchemyError(), "Check the history store"),
    ],
)
def test_troubles_that_are_hard_to_cause(error: SQLAlchemyError | OSError, hint: str) -> None:
    explained = unavailable(error, "the store")
    assert hint in str(explained.hint)
    assert explained.detail.startswith("history store the store: ")


# --- URLs


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:history.db?uri=true",
        f"mysql://maria:{SECRET}@host/db",
        f"postgresql+asyncpg://maria:{SECRET}@host/db",
        f"nonsense maria:{SECRET}@host",
        f"postgresql://maria:{SECRET}@host:not-a-port/db",
        "",
    ],
)
def test_a_url_that_names_no_store(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        History(url)
    assert "postgresql://" in str(caught.value.hint)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://maria:{SECRET}@host/db",
        f"postgres://maria:{SECRET}@host/db",
        f"postgresql://:{SECRET}@host/db",
        f"postgresql+psycopg://host/db?user=maria&password={SECRET}",
        f"postgresql://host/db?sslpassword={SECRET}",
    ],
)
def test_no_secret_is_shown(url: str) -> None:
    history = History(url)
    for shown in (repr(history), str(history), repr(history._store), str(history._store)):
        assert SECRET not in shown
    assert "host/db" in repr(history)


def test_no_secret_in_errors_of_queries(postgres_store: str) -> None:
    url = make_url(postgres_store).set(password=SECRET).render_as_string(hide_password=False)
    with History(url) as history:
        write(history)
        with psycopg.connect(postgres_store.replace("+psycopg", "")) as other:
            other.execute("DROP TABLE aurum_operations")
        with pytest.raises(HistoryUnusableError) as caught:
            history.record(ended(reason=SECRET), who="maria")
    error: AurumError = caught.value
    assert SECRET not in "".join(traceback.format_exception(error))
    assert SECRET not in error.problem().model_dump_json()
