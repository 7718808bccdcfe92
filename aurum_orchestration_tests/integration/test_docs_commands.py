"""Commands of the docs that need no shell: those in ``shell`` blocks do what they say, those in the text exist.

What is in ``bash`` blocks is run in a fresh copy, see test_docs_run.py.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from typer import Exit
from typer._click.exceptions import MissingParameter, NoArgsIsHelpError, UsageError
from typer.main import get_command

from aurum_orchestration.cli.main import app
from aurum_orchestration_tests.command import aurum
from aurum_orchestration_tests.lake import lake_catalog

ROOT = Path(__file__).parents[2]
WRITTEN = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").glob("*.md")]
FENCES = {"bash", "python", "shell", "yaml", "text", "sql", "toml", "diff", "console"}
AN_ID = re.compile(r"\b[0-9a-f]{32}\b")


def commands(page: Path) -> list[list[str]]:
    """The commands of a page's ``shell`` blocks, in order, as words."""
    found = re.findall(r"^```shell\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [shlex.split(line, comments=True) for block in found for line in block.splitlines() if line.strip()]


def parse(text: str) -> None:
    """Raise an error of the command's own where a command or option does not exist. Runs nothing."""
    command, words = get_command(app), shlex.split(text)
    while words and (found := getattr(command, "commands", {}).get(words[0])) is not None:
        command, words = found, words[1:]
    with contextlib.suppress(Exit, MissingParameter, NoArgsIsHelpError):  # `aurum explain` without TABLE
        command.make_context("aurum", words)
    if getattr(command, "commands", None) and words and not words[0].startswith("-"):
        raise UsageError(f"no command {words[0]}")


PAGES = [str(page.relative_to(ROOT)) for page in WRITTEN if commands(page)]


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table that the pages talk of: six files, three of them older than a year."""
    now = datetime.now(UTC).replace(tzinfo=None, minute=0, second=0, microsecond=0)
    with closing(lake_catalog(tmp_path)) as catalog:
        catalog.create_namespace("flights")
        rows = pa.table({"time_hour": [now], "carrier": ["UA"]})
        table = catalog.create_table("flights.flights", rows.schema)
        for number in range(6):
            table.append(rows.set_column(0, "time_hour", [[now - timedelta(days=150 * number)]]))
    (tmp_path / "fleet.yaml").write_text((ROOT / "fleet.yaml").read_text())
    monkeypatch.setenv("AURUM_HOME", str(tmp_path))
    monkeypatch.setenv("AURUM_FLEET", str(tmp_path / "fleet.yaml"))


def test_the_pages_of_the_operations_have_commands() -> None:
    assert len(PAGES) >= 9


@pytest.mark.usefixtures("lake")
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page: str) -> None:
    given = commands(ROOT / page)
    if "undo" in {words[1] for words in given}:
        done = aurum("run", "--operation", "backup", "--output", "json").json[0]["operation_id"]
        given = [[AN_ID.sub(done, word) for word in words] for words in given]
    for program, *arguments in given:
        outcome = aurum(*arguments)
        assert (program, outcome.code) == ("aurum", 0), f"{arguments}: {outcome.out}{outcome.err}"


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in WRITTEN])
def test_the_commands_in_the_text_of_a_page_exist(page: str) -> None:
    for text in re.findall(r"`(?:\.venv/bin/)?aurum ([^`]+)`", (ROOT / page).read_text()):
        parse(text.replace("...", "X"))


@pytest.mark.parametrize("wrong", ["rum", "run --tables x", "local sideways", "history --output yaml"])
def test_a_command_that_does_not_exist_is_found(wrong: str) -> None:
    with pytest.raises(UsageError):
        parse(wrong)


def test_every_block_says_what_it_is() -> None:
    for page in WRITTEN:
        opened = re.findall(r"^```(.*)$", page.read_text(), re.MULTILINE)[::2]
        assert set(opened) <= FENCES, page
        assert "console" not in opened or "reference" in page.parts, page
