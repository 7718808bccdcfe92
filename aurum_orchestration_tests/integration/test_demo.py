"""The demo as a person runs it, on a smaller lake, and what it says when it cannot keep its promise."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import dagster as dg
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from aurum_orchestration.errors import InternalError
from aurum_orchestration.history import History
from aurum_orchestration.local import demo, story
from aurum_orchestration.local.code_location import CodeLocation
from aurum_orchestration.local.proof import Contents, contents

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
    tables = {
        one["table"].split(".")[-1]: one for one in json.loads((project / ".aurum/demo.json").read_text())["tables"]
    }
    assert set(tables) == {"flights", "weather", "schedule", "airlines", "airports", "planes"}
    for name, one in tables.items():
        sick = name in {"flights", "weather"}
        assert (one["before"]["files"] > 20) == (one["debt_before"] > 0) == sick
        assert (one["after"]["files"], one["debt_after"]) == (1, 0)
        assert one["before"]["rows"] == one["after"]["rows"] > 0
        assert one["before"]["checksum"] == one["after"]["checksum"]
    with_history = History(f"sqlite:///{project}/.aurum/history.db")
    assert {result.config.target_table for result in with_history.operations()} == {
        "lake.flights.flights",
        "lake.flights.weather",
    }
    with_history.close()
    assert not (project / ".aurum" / "of an earlier demo").exists()
    assert picture.read_text().startswith("<svg")
    assert "http" not in picture.read_text().replace("http://www.w3.org/2000/svg", "")


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
