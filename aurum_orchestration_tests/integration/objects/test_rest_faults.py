"""A real REST catalog that fails at the worst moment: what a commit left is asked for before anything is deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.types import LongType

from aurum_orchestration.errors import AurumError, BackendUnavailableError, CommitStateUnknownError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.catalog import open_catalog
from aurum_orchestration.maintenance.backends.iceberg.compact import handler
from aurum_orchestration.maintenance.backends.iceberg.measure import IcebergMeasurer
from aurum_orchestration.maintenance.operations.compaction import CompactionParameters
from aurum_orchestration_tests.conformance import warehouses
from aurum_orchestration_tests.integration.iceberg.claims import policy
from aurum_orchestration_tests.integration.iceberg.support import (
    append_numbers,
    by_duckdb,
    carry_out,
    fields,
    make_table,
)
from aurum_orchestration_tests.servers.breaking_proxy import (
    Proxy,
    answers,
    breaking_proxy,
    hangs,
    hangs_up,
    loses_the_answer,
)
from aurum_orchestration_tests.servers.rest_catalog import RestServer

COMMIT = r"^POST .*/tables/t$"
LOAD = r"^GET .*/tables/t(\?|$)"
ID = TableId("lake", ("ns", "t"))


@pytest.fixture
def made(request: pytest.FixtureRequest) -> Iterator[Catalog]:
    """The catalog without the proxy, with a table of small files."""
    with warehouses.rest(request) as warehouse:
        append_numbers(make_table(warehouse.catalog, fields(id=LongType())), files=6)
        yield warehouse.catalog


@pytest.fixture
def proxy(rest: RestServer) -> Iterator[Proxy]:
    with breaking_proxy(rest.uri) as between:
        yield between


@pytest.fixture
def shaky(made: Catalog, proxy: Proxy) -> Iterator[Catalog]:
    """The catalog as the engine opens it, through the proxy."""
    with closing(open_catalog("lake", {"type": "rest", "uri": proxy.url, "rest.timeout": 2})) as catalog:
        yield catalog


def compact(catalog: Catalog) -> Any:
    table = catalog.load_table("ns.t")
    plan = handler.plan(table, ID, CompactionParameters(min_input_files=2))
    assert plan.steps
    return carry_out(handler.execution(plan, table))


def files_of(made: Catalog) -> set[Path]:
    return set(Path(made.load_table("ns.t").location().removeprefix("file://")).rglob("*.parquet"))


@pytest.mark.parametrize("status", [500, 502, 504, None])
def test_a_commit_that_landed_without_an_answer_is_a_commit(
    made: Catalog, shaky: Catalog, proxy: Proxy, status: int | None
) -> None:
    before = by_duckdb(made.load_table("ns.t"))
    proxy.breaks(COMMIT, loses_the_answer(status), times=1)
    compact(shaky)
    after = made.load_table("ns.t")
    assert by_duckdb(after) == before
    assert len(list(after.inspect.files()["file_path"])) == 1
    assert len(proxy.sent(COMMIT)) == 1, "a commit that may have landed was sent again"


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        (answers(500, b"{}"), CommitStateUnknownError),
        (answers(504, b"{}"), CommitStateUnknownError),
        (hangs_up, CommitStateUnknownError),
        (answers(503, b"{}"), BackendUnavailableError),
    ],
)
def test_a_commit_that_did_not_land_leaves_the_table_as_it_was(
    made: Catalog, shaky: Catalog, proxy: Proxy, how: Callable[..., Any], kind: type[AurumError]
) -> None:
    before, location = by_duckdb(made.load_table("ns.t")), made.load_table("ns.t").metadata_location
    sources = files_of(made)
    proxy.breaks(COMMIT, how)
    with pytest.raises(kind) as caught:
        compact(shaky)
    assert caught.value.transient
    assert made.load_table("ns.t").metadata_location == location
    assert by_duckdb(made.load_table("ns.t")) == before
    assert sources <= files_of(made)
    proxy.heal()
    compact(shaky)
    assert by_duckdb(made.load_table("ns.t")) == before


def test_no_file_goes_while_nobody_knows_whether_the_commit_landed(made: Catalog, shaky: Catalog, proxy: Proxy) -> None:
    before = by_duckdb(made.load_table("ns.t"))
    table = shaky.load_table("ns.t")
    plan = handler.plan(table, ID, CompactionParameters(min_input_files=2))
    proxy.breaks(COMMIT, loses_the_answer(504))
    proxy.breaks(LOAD, answers(500, b"{}"))
    with pytest.raises(CommitStateUnknownError):
        carry_out(handler.execution(plan, table))
    assert by_duckdb(made.load_table("ns.t")) == before
    assert len(made.load_table("ns.t").inspect.files()) == 1, "it had landed"


def test_another_writer_who_was_faster_is_no_failure(made: Catalog, shaky: Catalog, proxy: Proxy) -> None:
    def overtaken(forward: Callable[[], Any]) -> Any:
        append_numbers(made.load_table("ns.t"), files=1)
        return forward()

    proxy.breaks(COMMIT, overtaken, times=1)
    compact(shaky)
    assert len(proxy.sent(COMMIT)) == 2
    table = made.load_table("ns.t")
    assert (table.scan().to_arrow().num_rows, len(table.inspect.files())) == (70, 2)


def test_a_catalog_that_is_slow_or_down_is_named_and_transient(made: Catalog, shaky: Catalog, proxy: Proxy) -> None:
    measurer = IcebergMeasurer(shaky, "lake")
    make_table(made, fields(id=LongType()), name="ns.other")
    other = TableId("lake", ("ns", "other"))
    for how in (hangs(4), hangs_up, answers(503, b"{}")):
        proxy.heal()
        proxy.breaks(LOAD, how)
        broken, fine = measurer.measure([ID, other], policy())
        assert fine.problem is None
        assert broken.problem is not None
        assert (broken.problem.type, broken.problem.transient) == ("backend-unavailable", True)
        assert "lake" in (broken.problem.detail or "")


def test_reads_are_asked_again_after_a_503(shaky: Catalog, proxy: Proxy) -> None:
    proxy.breaks(LOAD, answers(503, b"{}"), times=2)
    assert shaky.load_table("ns.t").name() == ("ns", "t")
    assert len(proxy.sent(LOAD)) == 3


def test_a_token_that_is_refused_is_said_without_the_token(made: Catalog, proxy: Proxy) -> None:
    body = b'{"error": {"message": "no", "type": "NotAuthorizedException", "code": 401}}'
    properties = {"type": "rest", "uri": proxy.url, "token": "hush-hush"}
    with closing(open_catalog("lake", properties)) as catalog:
        proxy.breaks(LOAD, answers(401, body))
        (health,) = IcebergMeasurer(catalog, "lake").measure([ID], policy())
    assert health.problem is not None
    assert "credentials" in (health.problem.hint or "")
    assert "hush" not in health.problem.model_dump_json()
