"""Help, version and usage errors: what a person meets first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aurum_orchestration import __version__
from aurum_orchestration.maintenance.factory import MaintenanceFactory
from aurum_orchestration_tests.command import aurum, aurum_process, finished
from aurum_orchestration_tests.golden import assert_golden

COMMANDS = ("status", "plan", "run", "history", "discover", "maintenance")
HEAVY = ("pyiceberg", "pyarrow", "dagster", "sqlalchemy", "alembic", "numpy")


def test_golden_help() -> None:
    outcome = finished(aurum_process("--help", COLUMNS="80"))
    assert outcome.code == 0
    assert_golden("help.txt", outcome.out)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_names_its_options(command: str) -> None:
    outcome = aurum(command, "-h", COLUMNS="80")
    assert outcome.code == 0
    for option in ("--table", "--output", "--fleet", "--verbose"):
        assert option in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 80


@pytest.mark.parametrize("command", ["status", "plan", "run", "history"])
def test_help_lists_every_operation_with_its_title(command: str) -> None:
    listed = aurum(command, "--help", COLUMNS="80").out.partition("Operations:")[2]
    for name, operation in MaintenanceFactory.operations().items():
        assert f"  {name} " in listed
        assert operation.title in listed


def test_help_lists_an_operation_of_an_installed_package(tmp_path: Path) -> None:
    (tmp_path / "desk_tools.py").write_text(
        "from aurum_orchestration.maintenance import BaseMaintenanceOperation\n"
        "class Reprice(BaseMaintenanceOperation):\n"
        "    title = 'Reprice the curves'\n"
        "    async def _execute_impl(self, backend, config): return {}\n"
    )
    described = tmp_path / "desk_tools-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: desk-tools\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[aurum_orchestration.operations]\nreprice = desk_tools:Reprice\n")
    outcome = finished(aurum_process("--help", PYTHONPATH=str(tmp_path)))
    assert outcome.code == 0
    assert "reprice Reprice the curves" in " ".join(outcome.out.split())


def test_help_still_comes_when_two_packages_fight_over_a_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        described = tmp_path / f"{name}-1.0.dist-info"
        described.mkdir()
        (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (described / "entry_points.txt").write_text(f"[aurum_orchestration.operations]\nreprice = {name}:Reprice\n")
    outcome = finished(aurum_process("--help", PYTHONPATH=str(tmp_path)))
    assert outcome.code == 0
    assert "already registered" in outcome.out


def test_help_imports_no_engine() -> None:
    code = (
        "import sys\nfrom aurum_orchestration.cli.main import main\nsys.argv = ['aurum', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_version() -> None:
    assert aurum("--version").out == f"aurum {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["statsu"], "Did you mean 'status'?"),
        (["status", "--tabel", "x"], "--table"),
        (["status", "--output", "yaml"], "'text', 'json'"),
        (["history", "--status", "done"], "'completed'"),
        (["history", "--limit", "0"], "1"),
        (["run", "--max-tables", "none"], "--max-tables"),
    ],
)
def test_bad_usage_exits_2_and_names_the_right_word(arguments: list[str], told: str) -> None:
    outcome = aurum(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert told in outcome.err


def test_no_command_shows_the_help_and_exits_2() -> None:
    outcome = aurum()
    assert outcome.code == 2
    assert "Commands:" in outcome.out + outcome.err
