"""What goes wrong with a Trino that stays up: each time a typed error, nothing lost, and a next run that completes."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aurum_orchestration.errors import RequestError
from aurum_orchestration.maintenance.backends.iceberg.trino import readback
from aurum_orchestration.maintenance.backends.iceberg.trino.capabilities import (
    EXPIRE_FLOOR,
    ORPHAN_FLOOR,
    Capabilities,
    probe,
)
from aurum_orchestration.maintenance.backends.iceberg.trino.client import Answer, TrinoClient
from aurum_orchestration.maintenance.backends.iceberg.trino.engine import TrinoEngine
from aurum_orchestration_tests.faults.trino_site import Site, commits_held_back, end_what_runs, site, told
from aurum_orchestration_tests.servers.breaking_proxy import Answer as Told
from aurum_orchestration_tests.servers.breaking_proxy import (
    Forward,
    How,
    Proxy,
    answers,
    breaking_proxy,
    hangs,
    hangs_up,
)
from aurum_orchestration_tests.servers.trino import READER, SECRET, STRANGER, TrinoServer


def unzipped(forward: Forward) -> tuple[int, list[tuple[str, str]], bytes]:
    """Pass the request on; what comes back, to be read."""
    status, headers, body = forward()
    if any(name.lower() == "content-encoding" and value == "gzip" for name, value in headers):
        headers = [(name, value) for name, value in headers if name.lower() != "content-encoding"]
        body = gzip.decompress(body)
    return status, headers, body


def loses_the_last_answer(forward: Forward) -> Told:
    """The statement takes effect, however long it takes; that it did, the client does not hear."""
    told = unzipped(forward)
    return told if b'"nextUri"' in told[2] else (502, [("Content-Type", "application/json")], b"{}")


STATEMENT, RUNNING, CANCEL = "POST /v1/statement", "GET /v1/statement/executing", "DELETE /v1/statement"
OPERATIONS = ("compaction", "retention", "vacuum", "manifests")
FAULTS: dict[str, tuple[str, How]] = {
    "before": (STATEMENT, answers(503)),
    "in the middle": (RUNNING, hangs_up),
    "after": (RUNNING, loses_the_last_answer),
    "too slow": (RUNNING, hangs(5)),
}
UNMARKED = {("retention", "in the middle")}
MATRIX = [
    pytest.param(operation, when, marks=[] if (operation, when) in UNMARKED else pytest.mark.thorough)
    for operation in OPERATIONS
    for when in FAULTS
]
ONE_OF_EACH = [OPERATIONS[0], *(pytest.param(one, marks=pytest.mark.thorough) for one in OPERATIONS[1:])]


@pytest.fixture
def proxy(trino: TrinoServer) -> Iterator[Proxy]:
    with breaking_proxy(trino.url) as made:
        yield made


@pytest.fixture
def through(trino: TrinoServer, proxy: Proxy, tmp_path: Path) -> Iterator[Site]:
    """The table, reached through the proxy."""
    port = int(proxy.url.rpartition(":")[2])
    with site(trino, tmp_path, host="127.0.0.1", port=port, http_attempts=1, statement_attempts=1) as made:
        yield made


@pytest.fixture
def direct(trino: TrinoServer, tmp_path: Path) -> Iterator[Site]:
    with site(trino, tmp_path) as made:
        yield made


class AtTheChange:
    """Lets something happen around the first statement that changes the table."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.sent: list[str] = []

    def do(self, begin: Callable[[], Any], end: Callable[[], Any] = lambda: None, **session: str) -> None:
        change = TrinoClient.change

        def changing(client: TrinoClient, sql: str, **given: Any) -> Answer:
            self.sent.append(sql)
            if len(self.sent) > 1:
                return change(client, sql, **given)
            begin()
            try:
                return change(client, sql, **{**given, "session": {**(given.get("session") or {}), **session}})
            finally:
                end()

        self._patch.setattr(TrinoClient, "change", changing)


@pytest.fixture
def at_the_change(monkeypatch: pytest.MonkeyPatch) -> AtTheChange:
    return AtTheChange(monkeypatch)


@pytest.mark.parametrize(("operation", "when"), MATRIX)
async def test_the_way_to_trino_breaks(
    operation: str, when: str, through: Site, proxy: Proxy, at_the_change: AtTheChange
) -> None:
    """For one statement: read back, and planned again where it did nothing. The run itself completes."""
    before, fault = through.snapshots(), FAULTS[when]
    slow = {"request_timeout_seconds": 3} if when == "too slow" else {}
    through.keys.update(slow)
    at_the_change.do(lambda: proxy.breaks(*fault), proxy.heal)
    done = await through.go(operation)
    assert done.status == "completed", done.problem
    assert at_the_change.sent
    retried = any("attempt 1 ended with backend-unavailable" in one for one in done.warnings)
    if when == "before":
        assert retried
    if when == "after":
        assert not retried
        assert len(at_the_change.sent) == 1  # what took place is not sent again
    await through.finish(operation, before)


@pytest.mark.parametrize("operation", ONE_OF_EACH)
async def test_a_trino_that_does_not_come_back(
    operation: str, through: Site, proxy: Proxy, at_the_change: AtTheChange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes while the statement runs: nobody can tell, so that is what is told, and not tried again.

    PostgreSQL holds the commit back, so that the statement is not through before anybody looks.
    """
    monkeypatch.setattr(readback, "PATIENCE", 1.0)
    before = through.snapshots()

    def away() -> None:
        proxy.breaks(RUNNING, hangs_up)
        proxy.breaks(CANCEL, hangs_up)

    at_the_change.do(away, lambda: proxy.breaks("", hangs_up))
    with commits_held_back(through):
        problem = told(await through.go(operation), "commit-state-unknown", transient=True)
    assert "query 2" in (problem.detail or "")
    assert len(at_the_change.sent) == 1
    proxy.heal()
    await asyncio.to_thread(end_what_runs, through)
    await through.finish(operation, before)


ENDED = {"unheard": loses_the_last_answer, "heard": lambda forward: forward()}
GONE_AFTERWARDS = [
    # whose snapshot it is comes from the statement's id: without a way to check it, it goes
    ("compaction", "heard", "taken back"),
    ("compaction", "unheard", "taken back"),
    # Trino 476 does not write it into these
    ("manifests", "heard", "taken back"),
    ("manifests", "unheard", "unknown"),
    ("retention", "heard", "completed"),
    ("retention", "unheard", "unknown"),
    ("vacuum", "heard", "completed"),
    ("vacuum", "unheard", "unknown"),
]


@pytest.mark.thorough
@pytest.mark.parametrize(("operation", "end", "how"), GONE_AFTERWARDS)
async def test_a_trino_that_goes_right_after_the_statement_ended(
    operation: str,
    end: str,
    how: str,
    through: Site,
    proxy: Proxy,
    at_the_change: AtTheChange,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The table is as it was and that is said, or it is told that nobody knows: never that nothing was done."""
    monkeypatch.setattr(readback, "PATIENCE", 1.0)
    before, head = through.snapshots(), through.table().metadata.current_snapshot_id
    at_the_change.do(lambda: proxy.breaks(RUNNING, ENDED[end]), lambda: proxy.breaks("", hangs_up))
    result = await through.go(operation)
    assert len(at_the_change.sent) == 1
    if how == "taken back":
        problem = told(result, "backend-unavailable", transient=True)
        assert "step 1 had been committed, and was taken back because it could not be checked" in (problem.detail or "")
        assert through.table().metadata.current_snapshot_id == head
        assert len(through.table().snapshots()) == len(before) + 1
    elif how == "unknown":
        assert "query 2" in (told(result, "commit-state-unknown", transient=True).detail or "")
    else:
        assert result.status == "completed", result.problem
    proxy.heal()
    await through.finish(operation, before)


@pytest.mark.thorough
@pytest.mark.parametrize("how", [hangs_up, answers(502), answers(503)])
async def test_an_unreachable_coordinator(how: How, through: Site, proxy: Proxy) -> None:
    before = through.snapshots()
    proxy.breaks("", how)
    told(await through.go("compaction"), "backend-unavailable", transient=True)
    proxy.heal()
    await through.finish("compaction", before)


@pytest.mark.parametrize("operation", ONE_OF_EACH)
async def test_a_statement_that_an_administrator_kills_at_its_commit(
    operation: str, direct: Site, at_the_change: AtTheChange
) -> None:
    """PostgreSQL holds the commit back. It may come through after the kill: rows are the same either way."""
    if operation == "vacuum":
        pytest.skip("an orphan removal has no commit")
    before = direct.snapshots()
    with commits_held_back(direct) as until_one_waits:
        at_the_change.do(lambda: None)
        running = asyncio.create_task(direct.go(operation))
        await asyncio.to_thread(until_one_waits)
        [sent] = at_the_change.sent
        [[query_id]] = direct.server.sql(
            "SELECT query_id FROM system.runtime.queries WHERE state NOT IN ('FINISHED', 'FAILED') "
            f"AND query LIKE '{sent.split('/*')[0].split('=>')[0].replace(chr(39), chr(39) * 2)}%'"
        )
        direct.server.sql(f"CALL system.runtime.kill_query(query_id => '{query_id}', message => 'too greedy')")
        problem = told(await running, "statement-killed", transient=False)
    assert "too greedy" in (problem.detail or "")
    assert len(at_the_change.sent) == 1  # not again against their will
    await asyncio.to_thread(end_what_runs, direct)
    await direct.finish(operation, before)


async def test_more_memory_than_a_query_may_take(direct: Site, at_the_change: AtTheChange) -> None:
    before = direct.snapshots()
    at_the_change.do(lambda: None, query_max_memory="1kB", query_max_memory_per_node="1kB")
    problem = told(await direct.go("compaction"), "resource-limit", transient=False)
    assert "EXCEEDED_" in (problem.detail or "")
    assert direct.snapshots() == before
    await direct.finish("compaction", before)


@pytest.mark.thorough
@pytest.mark.parametrize(("operation", "floor"), [("retention", EXPIRE_FLOOR), ("vacuum", ORPHAN_FLOOR)])
async def test_a_floor_that_was_raised_since_it_was_asked_for(
    operation: str, floor: str, direct: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of the catalog says "none": then Trino itself refuses, and that is told as what it is."""

    def outdated(client: TrinoClient) -> Capabilities:
        known = probe(client)
        return Capabilities(known.version, {**known.session, floor: "0s"}, known.newest_format)

    monkeypatch.setattr(f"{TrinoEngine.__module__}.probe", outdated)
    direct.keys["trino_catalog"] = direct.server.catalog
    direct.aged("t", 4)  # a snapshot to expire that is younger than the floor
    direct.sql("INSERT INTO {t}.t VALUES (101, NULL, 'N', 1e0)")
    before = direct.snapshots()
    given = {"retention_days": 2} if operation == "retention" else {"older_than_days": 4}
    problem = told(await direct.go(operation, **given), RequestError.type, transient=False)
    assert "7.00d" in (problem.detail or "")
    assert direct.snapshots() == before


async def test_users_without_rights(direct: Site) -> None:
    """Trino's file-based access control lets who may read run the table procedures, and refuses all other changes."""
    if direct.server.place is None:
        pytest.skip("who may do what is not known of a server that was there")
    before = direct.snapshots()
    direct.keys["user"] = STRANGER
    problem = told(await direct.go("compaction"), "access-denied", transient=False)
    assert "PERMISSION_DENIED" in (problem.detail or "")
    direct.keys["user"] = READER
    for operation, given in (("stats", {"ndv": True}), ("partition_evolution", {"spec": ["bucket(2, id)"]})):
        told(await direct.go(operation, **given), "access-denied", transient=False)
    assert direct.snapshots() == before
    direct.keys["user"] = "aurum"
    await direct.finish("compaction", before)


def token(expires: float) -> str:
    """A JSON web token as Trino's key signs it."""

    def part(content: bytes) -> str:
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()

    said = {"sub": "aurum", "exp": int(expires)}
    text = ".".join(part(json.dumps(one).encode()) for one in ({"alg": "HS256", "typ": "JWT"}, said))
    return f"{text}.{part(hmac.digest(SECRET, text.encode(), hashlib.sha256))}"


def as_http(forward: Forward) -> Told:
    """What stands between us and Trino ends the encryption: its addresses are Trino's, without."""
    status, headers, body = unzipped(forward)
    return status, headers, body.replace(b"https://127.0.0.1", b"http://127.0.0.1")


@pytest.mark.thorough
async def test_a_token_that_expires_between_two_runs(trino: TrinoServer, tmp_path: Path) -> None:
    if trino.place is None:
        pytest.skip("the key of tokens is not known of a server that was there")
    file = tmp_path / "token"
    with breaking_proxy(trino.url, {"X-Forwarded-Proto": "https"}) as between:
        between.breaks("", as_http)
        keys = {
            "host": "127.0.0.1",
            "port": int(between.url.rpartition(":")[2]),
            "http_scheme": "http",
            "allow_insecure_auth": True,
            "auth": {"kind": "jwt", "token_file": str(file)},
        }
        with site(trino, tmp_path, **keys) as lake:
            before = lake.snapshots()
            for wrong in (token(time.time() - 3600), token(time.time() + 3600)[:-4] + "AAAA"):
                file.write_text(wrong)
                problem = told(await lake.go("compaction"), "access-denied", transient=False)
                assert "401" in (problem.detail or "")
                assert "renew" in (problem.hint or "")
                assert wrong not in problem.model_dump_json()
            assert lake.snapshots() == before
            file.write_text(token(time.time() + 3600))
            await lake.finish("compaction", before)
