"""README and docs do what they say: their commands and Python snippets are run, page by page, in a fresh copy.

A block that cannot be run here says so, with a reason, in a comment right above it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

ROOT = Path(__file__).parents[2]
SMALL_DEMO = "8"
"""Days of data that `make demo` loads here."""

WRITTEN = [ROOT / "README.md", *(f for at in ("docs", "deploy", "examples") for f in (ROOT / at).rglob("*.md"))]
"""What people read here."""

EVERYWHERE = "docs/quickstart.md"
"""The page that makes the demo also where there is little time. It begins with all that README has to run."""

_BLOCK = re.compile(
    r"(?:<!-- not run by tests: (?P<reason>[^\n]+?) -->\n+)?^```(?P<language>bash|python)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_MARK = re.compile(r"<!-- not run by tests")
_PYTHON = ".venv/bin/python - <<'END_OF_SNIPPET'\n{}END_OF_SNIPPET\n"


def blocks(page: str) -> list[str]:
    """What the page has to run, as shell text, in order."""
    found = [match for match in _BLOCK.finditer(page) if match["reason"] is None]
    return [match["text"] if match["language"] == "bash" else _PYTHON.format(match["text"]) for match in found]


def pages() -> list[str]:
    """Pages with something to run. README comes first."""
    return [str(page.relative_to(ROOT)) for page in [WRITTEN[0], *sorted(WRITTEN[1:])] if blocks(page.read_text())]


def as_tests() -> list[ParameterSet]:
    """The pages; a guide that makes the demo for itself takes its time."""
    guides = {page for page in pages() if "make demo" in (ROOT / page).read_text()} - {EVERYWHERE}
    return [pytest.param(page, marks=[pytest.mark.thorough] if page in guides else []) for page in pages()]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project as a fresh clone would have it, with this environment. Never set up anew: its files look old."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    place = tmp_path / "project"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            target = place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
            os.utime(target, (0, 0))
    (place / ".venv").symlink_to(ROOT / ".venv")
    return place


def newcomer(home: Path) -> dict[str, str]:
    """The environment of somebody who has set nothing."""
    home.mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AURUM_", "DAGSTER_", "COV"))}
    return {**kept, "HOME": str(home), "DAYS": SMALL_DEMO}


@pytest.mark.parametrize("page", as_tests())
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.timeout(600)
def test_the_commands_and_snippets_of_a_page_run(page: str, copy: Path, tmp_path: Path) -> None:
    script = "".join(
        f"echo '--- block {number} of {page}'\n{text}"
        for number, text in enumerate(blocks((ROOT / page).read_text()), 1)
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=copy,
        env=newcomer(tmp_path / "home"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]


def test_readme_and_quickstart_have_something_to_run() -> None:
    (readme,) = blocks((ROOT / "README.md").read_text())
    assert readme == "make demo\n"
    assert blocks((ROOT / EVERYWHERE).read_text())[0].startswith(readme)


def test_every_block_that_is_left_out_says_why() -> None:
    for page in WRITTEN:
        text = page.read_text()
        reasons = [match["reason"] for match in _BLOCK.finditer(text) if match["reason"]]
        quoted = len(re.findall(r"`<!-- not run by tests", text))
        assert len(reasons) == len(_MARK.findall(text)) - quoted, f"{page}: a comment does not stand above a block"
        assert all(len(reason.split()) >= 3 for reason in reasons), page


def test_every_local_link_leads_somewhere() -> None:
    for page in [*WRITTEN, ROOT / "CHANGELOG.md"]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.relative_to(ROOT)} links to {link}"
