from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

from aurum_orchestration.maintenance.interfaces import Decision
from aurum_orchestration.maintenance.planner import databases
from aurum_orchestration.maintenance.planner.debt import PENALTIES

PAGE = (Path(__file__).parents[3] / "docs" / "planner.md").read_text(encoding="utf-8")


def test_the_worked_example_prints_what_the_page_says() -> None:
    code, said = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL).groups()  # type: ignore[union-attr]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "docs/planner.md", "exec"), {})
    assert printed.getvalue() == said


def test_the_page_lists_the_penalties_as_they_are() -> None:
    rows = [f"| `{name}` | {p.cap} | {p.free:,} | {p.half:,} | {p.source} |" for name, p in PENALTIES.items()]
    assert "\n".join(rows) in PAGE


def test_the_page_and_the_docstring_know_the_same_codes() -> None:
    listed = set(re.findall(r"^\| `([a-z-]+)` \| (?:yes|no) \|", PAGE, re.MULTILINE))
    assert listed == set(re.findall(r"``([a-z-]+)``", (Decision.__doc__ or "").split("(", 2)[2]))


def test_the_page_lists_the_penalties_of_databases_as_they_are() -> None:
    rows = [f"| `{name}` | {p.cap} | {p.free:,} | {p.half:,} | {p.source} |" for name, p in databases.PENALTIES.items()]
    assert "\n".join(rows) in PAGE
