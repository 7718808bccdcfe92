"""A catalog in PostgreSQL whose connection breaks at the commit, is slow or gone: rows stay, the next run completes."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table
from pyiceberg.types import LongType
from sqlalchemy import create_engine, make_url, text

from aurum_orchestration.errors import AurumError, BackendUnavailableError, CommitStateUnknownError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.backends.iceberg.catalog import open_catalog
from aurum_orchestration.maintenance.backends.iceberg.compact import handler
from aurum_orchestration.maintenance.backends.iceberg.measure import IcebergMeasurer
from aurum_orchestration.maintenance.backends.iceberg.sql_patience import TIMEOUT
from aurum_orchestration.maintenance.operations.compaction import CompactionParameters
from aurum_orchestration.maintenance.threads import run_sync
from aurum_orchestration_tests.integration.iceberg.claims import policy
from aurum_orchestration_tests.integration.iceberg.support import (
    append_numbers,
    by_duckdb,
    by_scan,
    carry_out,
    fields,
    left_behind,
    make_table,
)
from aurum_orchestration_tests.integration.postgres.support import opened
from aurum_orchestration_tests.servers.breaking_line import Cut, Line, breaking_line

ID = TableId("lake", ("ns", "t"))


@pytest.fixture
def direct(postgres_url: str, tmp_path: Path) -> Iterator[SqlCatalog]:
    """A catalog of this test's own, without the line, with a table of small files."""
    name = f"line_{uuid.uuid4().hex}"
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'create database "{name}"'))
    engine.dispose()
    uri = make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    with closing(SqlCatalog("lake", uri=uri, warehouse=f"file://{tmp_path}/warehouse")) as catalog:
        catalog.create_namespace("ns")
        append_numbers(make_table(catalog, fields(id=LongType())), files=6)
        yield catalog


@pytest.fixture
def line(postgres_url: str) -> Iterator[Line]:
    url = make_url(postgres_url)
    with breaking_line(url.host or "127.0.0.1", url.port or 5432) as between:
        yield between


@pytest.fixture
def shaky(direct: SqlCatalog, line: Line) -> Iterator[Catalog]:
    """The catalog as the engine opens it, over the line."""
    with closing(open_catalog("lake", at_port(direct, line.port))) as catalog:
        yield catalog


def at_port(direct: SqlCatalog, port: int, **more: Any) -> dict[str, Any]:
    """The catalog's properties, with its server on another port."""
    uri = make_url(direct.properties["uri"]).set(host="127.0.0.1", port=port)
    return {**direct.properties, "type": "sql", "uri": uri.render_as_string(hide_password=False), **more}


def compact(catalog: Catalog) -> Any:
    table = catalog.load_table("ns.t")
    plan = handler.plan(table, ID, CompactionParameters(min_input_files=2))
    return carry_out(handler.execution(plan, table)) if plan.steps else None


def state(catalog: Catalog) -> tuple[Table, int]:
    table = catalog.load_table("ns.t")
    return table, len(table.inspect.files())


@pytest.mark.parametrize("cut", [Cut.AT, Cut.AFTER, Cut.LATE])
def test_a_commit_that_landed_without_an_answer_is_a_commit(
    direct: SqlCatalog, shaky: Catalog, line: Line, cut: Cut
) -> None:
    before = by_duckdb(direct.load_table("ns.t"))
    line.cut = cut
    compact(shaky)
    assert line.cuts == 1
    table, files = state(direct)
    assert (by_duckdb(table), by_scan(table), files) == (before, before, 1)
    assert left_behind(table) == set()


def test_a_commit_that_may_land_after_everybody_looked_keeps_its_files(
    direct: SqlCatalog, shaky: Catalog, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aurum_orchestration.maintenance.backends.iceberg import publish

    before = by_duckdb(direct.load_table("ns.t"))
    monkeypatch.setattr(publish, "_SETTLING", 0.0)
    monkeypatch.setattr(publish, "_READ_BACK_WAITS", (0.0,))
    line.cut, line.late = Cut.LATE, 3.0
    with pytest.raises(CommitStateUnknownError):
        compact(shaky)
    _until(lambda: state(direct)[1] == 1)
    table, _ = state(direct)
    assert (by_duckdb(table), by_scan(table)) == (before, before)


def _until(done: Any) -> None:
    waiting = threading.Event()
    for _ in range(200):
        if done():
            return
        waiting.wait(0.1)
    raise AssertionError("it never came")


def test_a_commit_that_did_not_land_changes_nothing_and_the_next_run_completes(
    direct: SqlCatalog, shaky: Catalog, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aurum_orchestration.maintenance.backends.iceberg import publish

    monkeypatch.setattr(publish, "_READ_BACK_WAITS", (0.1,))
    table, files = state(direct)
    before = by_duckdb(table)
    line.cut = Cut.BEFORE
    with pytest.raises(AurumError) as caught:
        compact(shaky)
    assert (caught.value.transient, line.cuts) == (True, 1)
    now, left = state(direct)
    assert (now.metadata_location, by_duckdb(now), left) == (table.metadata_location, before, files)
    compact(shaky)
    assert (by_duckdb(state(direct)[0]), state(direct)[1]) == (before, 1)


def test_a_catalog_that_is_gone_when_it_is_read_back_is_an_unknown_state(
    direct: SqlCatalog, shaky: Catalog, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aurum_orchestration.maintenance.backends.iceberg import publish

    before = by_duckdb(direct.load_table("ns.t"))
    monkeypatch.setattr(publish, "_READ_BACK_WAITS", (0.1,))
    taken = line.taken

    def then_gone(data: bytes) -> Cut | None:
        found = taken(data)
        line.down = line.down or found is not None
        return found

    monkeypatch.setattr(line, "taken", then_gone)
    line.cut = Cut.AT
    with pytest.raises(CommitStateUnknownError):
        compact(shaky)
    assert (by_duckdb(state(direct)[0]), state(direct)[1]) == (before, 1), "it had landed"
    line.down = False
    assert compact(shaky) is None
    assert by_duckdb(state(direct)[0]) == before


def test_a_catalog_that_is_down_is_named_and_transient(direct: SqlCatalog, shaky: Catalog, line: Line) -> None:
    line.down = True
    with pytest.raises(BackendUnavailableError, match="lake") as caught:
        open_catalog("lake", {"type": "sql", "uri": str(shaky.properties["uri"])})
    assert caught.value.transient
    with pytest.raises(BackendUnavailableError, match="lake"):
        IcebergMeasurer(shaky, "lake").measure([ID], policy())
    line.down = False
    (health,) = IcebergMeasurer(shaky, "lake").measure([ID], policy())
    assert health.problem is None


def test_a_slow_catalog_takes_its_time_and_loses_nothing(direct: SqlCatalog, shaky: Catalog, line: Line) -> None:
    before = by_duckdb(direct.load_table("ns.t"))
    line.delay = 0.05
    compact(shaky)
    assert (by_duckdb(state(direct)[0]), state(direct)[1]) == (before, 1)


@pytest.mark.parametrize("at_once", [True, pytest.param(False, marks=pytest.mark.thorough)])
def test_a_server_that_takes_connections_and_never_answers_is_given_up(direct: SqlCatalog, at_once: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        properties = at_port(direct, mute.getsockname()[1], **{TIMEOUT: 1})
        with opened(IcebergMaintenanceBackend({"catalog": properties}, name="lake")) as backend:
            ask = partial(backend.names, []) if at_once else partial(open_catalog, "lake", properties)
            with pytest.raises(BackendUnavailableError, match=r"'lake'.*timeout") as caught:
                ask()
        assert caught.value.transient


def test_a_server_that_stops_answering_is_given_up(direct: SqlCatalog, line: Line) -> None:
    backend = IcebergMaintenanceBackend({"catalog": at_port(direct, line.port, **{TIMEOUT: 1})}, name="lake")
    plan = partial(backend.plan, ID, "compaction", CompactionParameters(min_input_files=2))
    asked: list[Callable[[], Any]] = [partial(backend.names, []), plan]
    for ask in asked:
        line.command, line.cut = b"FROM iceberg_tables", Cut.NEVER
        with pytest.raises(BackendUnavailableError, match=r"'lake'.*did not answer within 1 s") as caught:
            ask()
        assert caught.value.transient
        assert line.cut is None
        assert ask()
    line.command, line.cut = b"metadata_location", Cut.NEVER
    with pytest.raises(BackendUnavailableError, match=r"'lake'.*did not answer within 1 s"):
        plan()
    assert plan().steps
    run_sync(backend.disconnect())


def test_a_server_that_never_says_what_it_is_is_given_up(direct: SqlCatalog, line: Line) -> None:
    config = {"catalog": at_port(direct, line.port, **{TIMEOUT: 1})}
    with opened(IcebergMaintenanceBackend(config, name="lake")) as backend:
        line.command, line.cut = b"select pg_catalog.version()", Cut.NEVER
        with pytest.raises(BackendUnavailableError, match="'lake'"):
            backend.names([])
        assert [found.table for found in backend.names([])] == [ID]


def test_a_commit_that_is_never_answered_is_read_back(direct: SqlCatalog, line: Line) -> None:
    before = by_duckdb(direct.load_table("ns.t"))
    with closing(open_catalog("lake", at_port(direct, line.port, **{TIMEOUT: 1}))) as catalog:
        line.cut = Cut.NEVER
        compact(catalog)
    assert line.cuts == 1
    table, files = state(direct)
    assert (by_duckdb(table), by_scan(table), files) == (before, before, 1)
    assert left_behind(table) == set()


def test_time_runs_only_while_the_catalog_is_asked(direct: SqlCatalog, line: Line) -> None:
    with closing(open_catalog("lake", at_port(direct, line.port, **{TIMEOUT: 0.3}))) as catalog:
        for _ in range(3):
            catalog.load_table("ns.t")
            threading.Event().wait(0.2)
    assert not [one for one in threading.enumerate() if isinstance(one, threading.Timer)]
