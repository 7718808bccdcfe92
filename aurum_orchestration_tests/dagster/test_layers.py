"""Who may import what: the domain knows no Dagster, and importing the package costs next to nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import aurum_orchestration

ROOT = Path(aurum_orchestration.__file__).parent
DOMAIN = sorted(path for room in ("maintenance", "fleet", "history") for path in (ROOT / room).rglob("*.py"))
HEAVY = {"dagster", "pyiceberg", "pyarrow", "sqlalchemy", "alembic", "numpy", "pandas", "pydantic", "typer", "rich"}


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere, also inside functions and for type checks."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", DOMAIN, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_domain_never_imports_dagster_or_the_edges(path: Path) -> None:
    forbidden = (
        "dagster",
        "aurum_orchestration.dagster_edge",
        "aurum_orchestration.definitions",
        "aurum_orchestration.cli",
    )
    assert not [name for name in imported(path) if name.split(".")[0] in forbidden or name.startswith(forbidden[1:])]


def test_there_is_a_domain_to_look_at() -> None:
    assert len(DOMAIN) > 20


def test_the_edge_reaches_no_backend_and_no_executor() -> None:
    below = "aurum_orchestration.maintenance."
    forbidden = tuple(below + name for name in ("backends", "executor", "running", "connections", "flow", "leasing"))
    edge = [*(ROOT / "dagster_edge").rglob("*.py"), ROOT / "definitions.py"]
    assert not [(path.name, name) for path in edge for name in imported(path) if name.startswith(forbidden)]


@pytest.mark.parametrize(
    "module", ["aurum_orchestration", "aurum_orchestration.maintenance", "aurum_orchestration.fleet"]
)
def test_importing_takes_nothing_heavy(module: str, tmp_path: Path) -> None:
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert not HEAVY & set(ran.stdout.split())
    assert not list(tmp_path.iterdir())
