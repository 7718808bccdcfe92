"""The embedded engine's part of the demo through Trino, on a small lake, and the table of both engines' figures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog

from aurum_orchestration.errors import InternalError, VerificationError
from aurum_orchestration.fleet.load import load_fleet
from aurum_orchestration.local import show, side_by_side
from aurum_orchestration.local.lake import NAMESPACE, create_lake, fill_lake
from aurum_orchestration.local.proof import Contents, contents
from aurum_orchestration.local.stack import create_catalog

FLEET = """\
version: 1
backends:
  lake:
    type: iceberg
    catalog: {{type: sql, uri: "sqlite:///{home}/catalog.db", warehouse: "file://{home}/warehouse"}}
    discover: ["flights.*"]
policy:
  compaction: {{min_input_files: {least}}}
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet file whose backend is a lake in the same folder."""
    home = tmp_path_factory.mktemp("lake")
    path = home / "fleet.yaml"
    path.write_text(FLEET.format(home=home, least=5))
    return path


@pytest.fixture(scope="module")
def lake(fleet: Path) -> Iterator[Catalog]:
    """The demo's lake of two days; every test leaves its rows and files as they were."""
    with closing(create_catalog(load_fleet(fleet))) as catalog:
        create_lake(catalog)
        fill_lake(catalog, days=2)
        yield catalog


def test_the_embedded_engine_compacts_and_the_tables_are_as_before(lake: Catalog, fleet: Path, tmp_path: Path) -> None:
    before = {name: contents(lake, name) for name in side_by_side.TABLES}
    done = list(side_by_side.by_embedded(lake, fleet, tmp_path / "embedded"))
    assert [one.table for one in done] == ["lake.flights.flights", "lake.flights.weather"]
    for one in done:
        assert one.kept
        assert one.before.files > 5 > one.after.files == 1
    assert {name: contents(lake, name) for name in side_by_side.TABLES} == before

    lost = replace(done[0], engine="Trino", after=replace(done[0].after, rows=7))
    out = io.StringIO()
    show.console(out).print(side_by_side.table_of([*done, lost]))
    heading, *lines = (line.split() for line in out.getvalue().splitlines())
    assert heading[:3] == ["TABLE", "ENGINE", "SECONDS"]
    assert [(line[0], line[1], line[-1]) for line in lines] == [
        ("lake.flights.flights", "embedded", "yes"),
        ("lake.flights.flights", "Trino", "NO"),
        ("lake.flights.weather", "embedded", "yes"),
    ]


def test_a_table_that_is_not_as_before_fails_it(
    lake: Catalog, fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Contents] = []

    def one_row_more_each_time(catalog: Catalog, name: str) -> Contents:
        found = contents(catalog, name)
        seen.append(found)
        return replace(found, rows=found.rows + len(seen))

    monkeypatch.setattr(side_by_side, "contents", one_row_more_each_time)
    with pytest.raises(VerificationError, match=r"lake\.flights\.flights is not as it was"):
        list(side_by_side.by_embedded(lake, fleet, tmp_path / "embedded"))
    assert seen[0] == seen[2] != seen[1]


def test_a_table_that_is_not_compacted_fails_it(lake: Catalog, fleet: Path, tmp_path: Path) -> None:
    contented = tmp_path / "fleet.yaml"
    contented.write_text(FLEET.format(home=fleet.parent, least=1000))
    files = contents(lake, "flights").files
    with pytest.raises(InternalError, match=r"compaction of lake\.flights\.flights skipped: .+"):
        list(side_by_side.by_embedded(lake, contented, tmp_path / "embedded"))
    assert len(list(lake.load_table((NAMESPACE, "flights")).scan().plan_files())) == files
