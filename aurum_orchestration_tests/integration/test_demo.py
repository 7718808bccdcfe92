"""The demo as a person runs it, on a smaller lake, and what it says when it cannot keep its promise."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from aurum_orchestration.errors import InternalError
from aurum_orchestration.fleet.load import load_fleet
from aurum_orchestration.history import History
from aurum_orchestration.local import demo, story
from aurum_orchestration.local.code_location import CodeLocation
from aurum_orchestration.local.engines import lake
from aurum_orchestration.local.engines.trino import ENGINE
from aurum_orchestration.local.proof import Contents, contents
from aurum_orchestration.local.stack import Stack
from aurum_orchestration_tests.engines import missing
from aurum_orchestration_tests.servers import absence

ROOT = Path(__file__).parents[2]
DAYS = ["--days", "6"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with what the demo needs of the project; the environment is as before at the end."""
    for name in ("fleet.yaml", "dagster.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(os.environ, {"AURUM_HISTORY_URL": "sqlite:////nowhere/at/all.db"}):
        yield tmp_path


def test_the_demo_compacts_what_is_sick_and_proves_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / ".aurum").mkdir()
    (project / ".aurum" / "of an earlier demo").touch()
    picture = project / "demo.svg"

    assert demo.main([*DAYS, "--picture", str(picture)]) == 0

    told = capsys.readouterr().out
    for words in ("The fleet before", "compaction_lake", "The fleet after", "rows are still there", "make ui"):
        assert words in told
    figures = json.loads((project / ".aurum" / story.REPORT).read_text())
    tables = {one["before"]["table"].split(".")[-1]: one for one in figures["tables"]}
    assert set(tables) == {"flights", "weather", "schedule", "airlines", "airports", "planes"}
    for name, one in tables.items():
        before, after = one["before"]["contents"], one["after"]["contents"]
        sick = name in {"flights", "weather"}
        assert (before["files"] > 20) == (one["before"]["debt"] > 5) == sick
        assert after["files"] == 1
        assert one["after"]["debt"] < 1
        assert before["rows"] == after["rows"] > 0
        assert before["checksum"] == after["checksum"]
    with_history = History(f"sqlite:///{project}/.aurum/history.db")
    done = {result.config.target_table for result in with_history.operations()}
    assert {table for table in done if table.startswith("lake.")} == {"lake.flights.flights", "lake.flights.weather"}
    with_history.close()
    assert not (project / ".aurum" / "of an earlier demo").exists()

    with dg.DagsterInstance.get() as instance:
        key = dg.AssetKey(["lake", "flights", "flights"])
        records = instance.fetch_observations(key, limit=100, ascending=True).records
    files: list[Any] = [
        record.asset_observation.metadata["data_files"].value for record in records if record.asset_observation
    ]
    assert len(set(files)) >= 3, "the plot shows how the table goes sick"
    assert files == [*sorted(files[:-1]), 1]

    assert picture.read_text().startswith("<svg")
    assert "http" not in picture.read_text().replace("http://www.w3.org/2000/svg", "")


@pytest.mark.thorough
def test_through_trino_both_engines_compact_the_same_tables_from_the_same_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if ENGINE.find() is None:
        missing("trino", absence(ENGINE))
    with tempfile.TemporaryDirectory(prefix="aurum-demo-") as folder:
        project = Path(folder)
        project.chmod(0o711)  # PostgreSQL runs as another user than root
        for name in ("fleet.yaml", "dagster.yaml"):
            shutil.copy(ROOT / name, project)
        monkeypatch.chdir(project)
        with mock.patch.dict(os.environ):
            try:
                assert demo.main(["--through-trino", "--days", "7"]) == 0, capsys.readouterr().err
            finally:
                lake.down(project / ".aurum" / "local")
        figures = json.loads((project / ".aurum" / story.REPORT).read_text())
    told = capsys.readouterr().out
    for words in ("Both engines", "through Trino", "rows are still there", "make trino DOWN=1"):
        assert words in told
    by_table: dict[str, dict[str, Any]] = {}
    for one in figures["engines"]:
        by_table.setdefault(one["table"], {})[one["engine"]] = one
    assert set(by_table) == {"lake.flights.flights", "lake.flights.weather"}
    for both in by_table.values():
        assert both["embedded"]["before"] == both["Trino"]["before"], "the same start"
        for one in both.values():
            assert one["before"]["files"] > one["after"]["files"] == 1
            assert one["before"]["checksum"] == one["after"]["checksum"]
            assert one["seconds"] > 0


def test_through_trino_the_fleet_is_there_for_both_engines(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = lake.Lake(project / ".aurum" / "local", 1, 2)
    monkeypatch.setattr(lake, "ready", lambda tell: tell("ready"))
    monkeypatch.setattr(lake, "up", lambda place, _tell: found if place == found.place else None)
    stack = Stack(project, through_trino=True)
    stack.prepare()
    assert capsys.readouterr().out == "ready\n"
    assert os.environ["AURUM_FLEET"] == str(stack.fleet)
    fleets = {path: load_fleet(path) for path in (stack.fleet, stack.fleet_embedded)}
    assert [fleet.backends["lake"].connection["engine"] for fleet in fleets.values()] == ["trino", "pyiceberg"]
    for fleet in fleets.values():
        assert fleet.backends["lake"].connection["catalog"]["uri"] == found.uri
        assert list(fleet.backends["lake"].discover) == ["flights.*"]


def test_without_maven_the_demo_through_trino_says_so_and_removes_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = project / ".aurum" / "of an earlier demo"
    kept.parent.mkdir()
    kept.touch()
    monkeypatch.setenv("AURUM_ENGINES_HOME", str(project / "engines"))
    monkeypatch.setenv("PATH", str(project))
    assert demo.main(["--through-trino", *DAYS]) == 1
    told = capsys.readouterr().err
    assert "The demo failed" in told
    assert any(word in told for word in ("mvn", "Maven", "Java", "memory", "GB")), told
    assert kept.exists()


def test_a_row_that_changed_fails_the_demo(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_row_less(catalog: SqlCatalog, name: str) -> Contents:
        found = contents(catalog, name)
        return replace(found, rows=found.rows - 1) if name == "weather" and found.files == 1 else found

    monkeypatch.setattr(story, "contents", one_row_less)
    assert demo.main(DAYS) == 1
    assert "the rows of lake.flights.weather are not the same" in capsys.readouterr().err
    assert not (project / ".aurum" / story.REPORT).exists()


def test_a_sensor_that_asks_for_nothing_fails_the_demo(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (project / "fleet.yaml").read_text()
    (project / "fleet.yaml").write_text(text.replace("min_input_files: 5", "trigger_excess_files: 1000000"))
    assert demo.main(DAYS) == 1
    error = capsys.readouterr().err
    assert "the sensor requested nothing" in error
    assert "acts at 1,000,000" in error


def test_outside_of_a_project_it_says_where_to_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert demo.main([]) == 1
    assert "there is no fleet.yaml" in (error := capsys.readouterr().err)
    assert "make demo" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("raised", "code"), [(KeyboardInterrupt(), 130), (ZeroDivisionError("of course"), 1)])
def test_an_end_that_nobody_foresaw_is_explained(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    raised: BaseException,
    code: int,
) -> None:
    monkeypatch.setattr(story.Story, "tell", mock.Mock(side_effect=raised))
    assert demo.main(DAYS) == code
    error = capsys.readouterr().err
    assert ("starts anew" if code == 130 else "ZeroDivisionError: of course") in error
    assert (project / ".aurum" / "demo.log").exists() == (code == 1)


def test_a_run_that_fails_says_why() -> None:
    @dg.op
    def refuses() -> None:
        raise dg.Failure("lake.flights.weather: the disk is full")

    @dg.op
    def breaks() -> None:
        raise ZeroDivisionError("of course")

    @dg.job
    def refusing() -> None:
        refuses()

    @dg.job
    def breaking() -> None:
        breaks()

    with dg.instance_for_test() as instance:
        location = CodeLocation(dg.Definitions(jobs=[refusing, breaking]), instance)
        with pytest.raises(InternalError, match=r"the job refusing failed: lake\.flights\.weather: the disk is full"):
            location.launch("refusing")
        with pytest.raises(InternalError, match="ZeroDivisionError: of course"):
            location.launch("breaking")
        with pytest.raises(InternalError, match="no observation of the asset lake/unseen"):
            location.newest_observation(["lake", "unseen"])
