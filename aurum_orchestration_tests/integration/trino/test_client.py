"""Statements on a real Trino: what they carry, how they are cancelled, what they end in, and what breaks on the way."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aurum_orchestration.errors import (
    AccessDeniedError,
    AurumError,
    BackendUnavailableError,
    CommitStateUnknownError,
    ConfigurationError,
    OperationCancelledError,
    RequestError,
    StatementKilledError,
    TableNotFoundError,
    UnsupportedError,
)
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.backends.iceberg.trino.client import TrinoClient
from aurum_orchestration.maintenance.backends.iceberg.trino.connection import TrinoConnection
from aurum_orchestration.maintenance.interfaces import RunContext
from aurum_orchestration_tests.servers.breaking_proxy import (
    Proxy,
    answers,
    breaking_proxy,
    hangs,
    hangs_up,
    loses_the_answer,
)
from aurum_orchestration_tests.servers.trino import TrinoServer

# a minute or more of work, whatever the machine
ENDLESS = (
    "SELECT count(*) FROM UNNEST(sequence(1, 10000)) a(x), UNNEST(sequence(1, 10000)) b(y), "
    "UNNEST(sequence(1, 10000)) c(z) WHERE x * y * z % 7 = 9"
)
STATEMENT = r"POST /v1/statement"
PAGE = r"GET /v1/statement"


def client(server: TrinoServer, **keys: Any) -> TrinoClient:
    given = {"host": server.host, "port": server.port, "user": "tests", "trino_catalog": server.catalog, **keys}
    return TrinoClient(TrinoConnection.of(given, "lake"), "lake")


@pytest.fixture(scope="module")
def asked(trino: TrinoServer) -> Iterator[TrinoClient]:
    made = client(trino)
    yield made
    made.close()


@pytest.fixture
def proxy(trino: TrinoServer) -> Iterator[Proxy]:
    with breaking_proxy(trino.url) as made:
        yield made


def through(proxy: Proxy, server: TrinoServer, **keys: Any) -> TrinoClient:
    port = int(proxy.url.rsplit(":", 1)[1])
    return client(server, host="127.0.0.1", port=port, http_attempts=2, **keys)


def test_an_answer_says_what_it_took(asked: TrinoClient) -> None:
    answer = asked.query("SELECT x, 'a' AS y FROM (VALUES 1, 2) AS t(x) ORDER BY x")
    assert answer.rows == [(1, "a"), (2, "a")]
    assert answer.records()[0] == {"x": 1, "y": "a"}
    assert answer.query_id
    assert answer.seconds > 0
    assert answer.peak_memory_bytes > 0


def test_a_statement_says_who_it_is(trino: TrinoServer) -> None:
    made = client(trino, client_tags=["nightly", "a,b"], session_properties={"query_max_run_time": "9m"})
    run = RunContext("run-1")
    answer = made.query("SELECT 1", run=run, operation="compaction", session={"query_priority": "3"})
    rows = trino.sql(f"SELECT source, \"user\" FROM system.runtime.queries WHERE query_id = '{answer.query_id}'")
    assert rows == [("aurum", "tests")]
    shown = made.query("SHOW SESSION LIKE 'query_%'", session={"query_priority": "3"}).rows
    values = {row[0]: row[1] for row in shown}
    assert (values["query_max_run_time"], values["query_priority"]) == ("9m", "3")
    # of one statement alone
    assert {row[0]: row[1] for row in made.query("SHOW SESSION LIKE 'query_%'").rows}["query_priority"] != "3"


def test_tags_name_the_operation_and_the_run(trino: TrinoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from trino.client import TrinoRequest

    sent: list[str] = []
    real: Callable[..., Any] = TrinoRequest.post

    def post(self: TrinoRequest, *args: Any, **keys: Any) -> Any:
        sent.append(self.http_headers["X-Trino-Client-Tags"])
        return real(self, *args, **keys)

    monkeypatch.setattr(TrinoRequest, "post", post)
    client(trino, client_tags=["a,b"]).query("SELECT 1", run=RunContext("run-1"), operation="compaction")
    assert sent == ["aurum,compaction,run-1,a_b"]


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELEC 1", RequestError),
        ("SELECT * FROM lake.nowhere.t", TableNotFoundError),
        ("SELECT * FROM lake.information_schema.nothing", TableNotFoundError),
        ("SELECT * FROM nowhere.a.b", ConfigurationError),
    ],
)
def test_errors_of_statements_are_typed(asked: TrinoClient, sql: str, kind: type[AurumError]) -> None:
    with pytest.raises(kind) as caught:
        asked.query(sql)
    assert "query 2" in caught.value.detail


def _state(server: TrinoServer, text: str) -> list[tuple[Any, ...]]:
    return server.sql(
        "SELECT query_id, state FROM system.runtime.queries "
        f"WHERE query LIKE '%{text}%' AND query NOT LIKE '%runtime.queries%'"
    )


def _until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.2)
    return found


def test_a_cancelled_run_ends_its_statement_on_the_server(trino: TrinoServer, asked: TrinoClient) -> None:
    run = RunContext("cancelled-run")
    mark = "cancel_me"
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            asked.query(f"{ENDLESS} -- {mark}", run=run)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    _until(lambda: [row for row in _state(trino, mark) if row[1] == "RUNNING"])
    run.cancelled.set()
    thread.join(60)
    assert isinstance(raised[0], OperationCancelledError)
    assert _until(lambda: [row for row in _state(trino, mark) if row[1] == "FAILED"])


def test_a_statement_killed_by_an_administrator(trino: TrinoServer, asked: TrinoClient) -> None:
    mark = "kill_me"
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            asked.query(f"{ENDLESS} -- {mark}", retry=True)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    [(query_id, _)] = _until(lambda: [row for row in _state(trino, mark) if row[1] == "RUNNING"])
    trino.sql(f"CALL system.runtime.kill_query(query_id => '{query_id}', message => 'too greedy')")
    thread.join(60)
    [error] = raised
    assert isinstance(error, StatementKilledError)
    assert "too greedy" in error.detail
    assert not error.transient


async def test_a_coordinator_that_is_not_there() -> None:
    config = {"engine": "trino", "host": "127.0.0.1", "port": 9, "http_attempts": 1}
    async with IcebergMaintenanceBackend(config, name="lake") as backend:
        assert not await backend.health_check()
        with pytest.raises(BackendUnavailableError) as caught:
            backend.discover([])
    assert caught.value.transient
    assert "http://127.0.0.1:9" in caught.value.detail


async def test_a_slow_coordinator_fails_the_health_check(trino: TrinoServer, proxy: Proxy) -> None:
    config = {"engine": "trino", "host": "127.0.0.1", "port": int(proxy.url.rsplit(":", 1)[1])}
    async with IcebergMaintenanceBackend({**config, "health_timeout_seconds": 20}, name="lake") as backend:
        assert await backend.health_check()
    proxy.breaks(STATEMENT, hangs(3))
    async with IcebergMaintenanceBackend({**config, "health_timeout_seconds": 0.5}, name="lake") as backend:
        assert not await backend.health_check()
    assert len(proxy.sent(STATEMENT)) == 2


@pytest.mark.parametrize("status", [502, 503])
def test_a_gateway_that_comes_back(trino: TrinoServer, proxy: Proxy, status: int) -> None:
    proxy.breaks(STATEMENT, answers(status), times=1)
    proxy.breaks(PAGE, answers(status), times=1)
    assert through(proxy, trino).query("SELECT 1").rows == [(1,)]


def test_a_gateway_that_does_not_come_back(trino: TrinoServer, proxy: Proxy) -> None:
    proxy.breaks(STATEMENT, answers(502))
    with pytest.raises(BackendUnavailableError, match="502"):
        through(proxy, trino, statement_attempts=2).query("SELECT 1", retry=True)
    # twice by the library, and that twice
    assert len(proxy.sent(STATEMENT)) == 4
    proxy.requests.clear()
    with pytest.raises(BackendUnavailableError):
        through(proxy, trino, statement_attempts=2).query("SELECT 1")
    assert len(proxy.sent(STATEMENT)) == 2


def test_an_expired_token(trino: TrinoServer, proxy: Proxy, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("expired-token-text")
    auth = {"kind": "jwt", "token_file": str(tmp_path / "token")}
    proxy.breaks(STATEMENT, answers(401, b"Token has expired", "text/plain"))
    asked = through(proxy, trino, auth=auth, http_scheme="http", allow_insecure_auth=True)
    with pytest.raises(AccessDeniedError) as caught:
        asked.query("SELECT 1", retry=True)
    assert "401" in caught.value.detail
    assert "renew" in str(caught.value.hint)
    assert "expired-token-text" not in str(caught.value.problem())
    assert len(proxy.sent(STATEMENT)) == 1


def test_something_that_is_not_trino(trino: TrinoServer, proxy: Proxy) -> None:
    proxy.breaks(STATEMENT, answers(200, b"<html>hello</html>", "text/html"))
    with pytest.raises(ConfigurationError) as caught:
        through(proxy, trino).query("SELECT 1")
    assert "is that Trino?" in str(caught.value.hint)


def test_a_change_that_never_started_is_known_not_to_have_happened(trino: TrinoServer, proxy: Proxy) -> None:
    proxy.breaks(STATEMENT, hangs_up)
    name = f"client_{uuid.uuid4().hex[:10]}"
    with pytest.raises(BackendUnavailableError):
        through(proxy, trino).change(f"CREATE SCHEMA lake.{name}", run=RunContext("r"), operation="test")
    assert (name,) not in trino.sql("SHOW SCHEMAS FROM lake")


def test_a_change_that_was_cut_off_is_not_known(trino: TrinoServer, proxy: Proxy) -> None:
    proxy.breaks(PAGE, loses_the_answer())
    with pytest.raises(CommitStateUnknownError) as caught:
        through(proxy, trino).change(
            "CREATE SCHEMA IF NOT EXISTS lake.client_cut_off", run=RunContext("r"), operation="test"
        )
    assert "while query 2" in caught.value.detail
    assert len(proxy.sent(STATEMENT)) == 1
    trino.sql("DROP SCHEMA IF EXISTS lake.client_cut_off")


def test_a_change_is_not_sent_without_the_lease(trino: TrinoServer, asked: TrinoClient) -> None:
    def lost() -> None:
        raise UnsupportedError("the lease is lost")

    name = f"client_{uuid.uuid4().hex[:10]}"
    with pytest.raises(UnsupportedError, match="lost"):
        asked.change(f"CREATE SCHEMA lake.{name}", run=RunContext("r", still_mine=lost), operation="test")
    assert (name,) not in trino.sql("SHOW SCHEMAS FROM lake")
