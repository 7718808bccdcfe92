"""The runbook has a section for each alert that the code can raise."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

from aurum_orchestration.fleet.notifications import Event
from aurum_orchestration.maintenance.checks import CheckName
from aurum_orchestration.maintenance.health_checks import HELD_BACK

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs/runbook.md").read_text()


def findings() -> set[str]:
    """Names of the findings that may be a warning or a failure, as the code names them."""
    found = {"driver", *HELD_BACK}
    for path in (ROOT / "aurum_orchestration").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                given = {keyword.arg: keyword.value for keyword in node.keywords}
                name = given.get("check", node.args[0] if node.args else None)
                if node.func.id in {"warning", "failure", "Finding"} and isinstance(name, ast.Constant):
                    found.add(str(name.value))
    return found


def test_the_findings_are_found() -> None:
    assert {"reachable", "rights", "space", "wraparound", "given up", "refused"} <= findings()


def test_each_check_has_a_section() -> None:
    assert re.findall(r"^## Check `(\w+)`$", RUNBOOK, re.MULTILINE) != []
    assert set(re.findall(r"^## Check `(\w+)`$", RUNBOOK, re.MULTILINE)) == set(get_args(CheckName))


def test_each_finding_of_the_doctor_has_a_line() -> None:
    table = RUNBOOK.partition("| Finding | Do |")[2].partition("\n\n")[0]
    named = {
        name for cell in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE) for name in re.findall(r"`(.+?)`", cell)
    }
    assert named == findings()


def test_each_kind_of_notice_has_a_line() -> None:
    table = RUNBOOK.partition("| Notice | Do |")[2].partition("\n\n")[0]
    assert {event for event in get_args(Event) if event in table} == set(get_args(Event))
