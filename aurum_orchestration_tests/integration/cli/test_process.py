"""The command as a process of its own: streams, terminals, signals."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from aurum_orchestration_tests.command import SCRIPT, aurum, aurum_process, finished
from aurum_orchestration_tests.lake import SCHEMA, lake_catalog

WAITING_OPERATION = """
import asyncio, sys
from aurum_orchestration.maintenance import BaseMaintenanceOperation, MaintenanceFactory
class Waiting(BaseMaintenanceOperation):
    title = "Waits for the end"
    def __init__(self): super().__init__("waiting")
    async def _execute_impl(self, backend, config):
        print("waiting", file=sys.stderr, flush=True)
        await asyncio.sleep(300)
        return {}
MaintenanceFactory.register_operation("waiting", Waiting)
"""
ESCAPE = "\x1b["


def test_stdout_is_json_only_whatever_is_logged(home: Path) -> None:
    outcome = finished(aurum_process("run", "--output", "json", "-vv", AURUM_LOG_LEVEL="DEBUG"))
    assert outcome.code == 0
    assert [one["status"] for one in outcome.json] == ["completed"]
    assert " INFO " in outcome.err
    assert "compaction of lake.market.trades: completed" in outcome.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_prints_what_became_of_it_and_exits_130(home: Path, number: signal.Signals) -> None:
    process = aurum_process(
        *("run", "--operation", "waiting", "--table", "lake.market.hubs", "--output", "json"), before=WAITING_OPERATION
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "waiting\n"
    process.send_signal(number)
    outcome = finished(process)
    assert outcome.code == 130
    assert [one["status"] for one in outcome.json] == ["cancelled"]
    assert "Traceback" not in outcome.err
    assert [one["status"] for one in aurum("history", "--output", "json").json] == ["cancelled"]


@pytest.mark.parametrize("imported", ["typer", "aurum_orchestration.cli.commands"])
def test_an_interrupt_while_the_command_is_imported_ends_it_quietly(
    shared_home: Path, tmp_path: Path, imported: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {imported!r}: signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
    )
    outcome = finished(aurum_process("status", PYTHONPATH=str(tmp_path)))
    assert (outcome.code, outcome.out) == (130, "")
    assert outcome.err.strip() in {"", "Aborted."}


def test_a_reader_that_leaves_early_is_no_crash(shared_home: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = subprocess.Popen([str(SCRIPT), "history"], stdout=write_end, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err == ""


def test_a_pipe_gets_one_unwrapped_line_per_table(shared_home: Path) -> None:
    outcome = finished(aurum_process("status"))
    lines = [line for line in outcome.out.splitlines() if line.startswith("lake.")]
    assert len(lines) == 4
    assert any("would leave" in line and "lake.market.trades" in line for line in lines)
    assert ESCAPE not in outcome.out
    assert outcome.err == ""


def test_a_stream_without_unicode_gets_escapes_and_valid_json(home: Path) -> None:
    with closing(lake_catalog(home)) as catalog:
        catalog.create_table(("market", "kurse_für_ö"), SCHEMA)
    ascii_only = {"PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    text = finished(aurum_process("status", **ascii_only))
    assert text.code == 0
    assert text.out.isascii()
    assert r"kurse_f\xfcr_\xf6" in text.out
    as_json = finished(aurum_process("status", "--output", "json", **ascii_only))
    assert as_json.out.isascii()
    assert "lake.market.kurse_für_ö" in {one["table"] for one in as_json.json}


def on_a_terminal(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command with a terminal at each of the latter."""
    texts = []
    out, out_end = pty.openpty()
    err, err_end = pty.openpty()
    process = subprocess.Popen(
        [str(SCRIPT), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=out_end,
        stderr=err_end,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **environment},
    )
    os.close(out_end)
    os.close(err_end)
    for terminal in (err, out):
        read = b""
        while chunk := _read(terminal):
            read += chunk
        os.close(terminal)
        texts.append(read.decode().replace("\r\n", "\n"))
    return process.wait(timeout=120), texts[1], texts[0]


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_a_terminal_gets_colour_and_progress_within_its_width(home: Path) -> None:
    code, out, err = on_a_terminal("run")
    assert code == 0
    assert f"{ESCAPE}32mcompleted" in out
    assert "Maintaining tables" in _plain(err)
    assert "lake.market.trades compaction" in _plain(err)
    assert max(map(len, _plain(out).splitlines())) <= 80


def test_no_color_is_honoured(shared_home: Path) -> None:
    code, out, _ = on_a_terminal("status", NO_COLOR="1")
    assert code == 0
    assert not re.search(r"\x1b\[[0-9;]*3\d", out)
    assert "lake.market.trades" in out


def test_a_problem_on_a_terminal_is_framed(shared_home: Path) -> None:
    code, out, err = on_a_terminal("status", "--table", "lake.nothing.*")
    assert (code, out) == (2, "")
    assert "╭─ Unknown name" in _plain(err)
    assert "matches no table" in _plain(err)


def test_an_unexpected_error_is_a_problem_and_its_stack_goes_to_the_log(shared_home: Path) -> None:
    broken = (
        "from aurum_orchestration.maintenance.service import MaintenanceService\n"
        "async def health(self, *_): raise RuntimeError('password=hunter2 went wrong')\n"
        "MaintenanceService.health = health"
    )
    outcome = finished(aurum_process("status", "--output", "json", before=broken))
    assert (outcome.code, outcome.out) == (1, "")
    problem = json.loads(outcome.err.splitlines()[-1])
    assert problem["type"] == "internal-error"
    assert "Traceback" in outcome.err
    assert "hunter2" not in outcome.err


def test_in_a_folder_without_a_fleet_file_the_hint_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AURUM_FLEET", raising=False)
    monkeypatch.setenv("AURUM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYICEBERG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    outcome = aurum("status")
    assert outcome.code == 1
    assert "Name it by --fleet or AURUM_FLEET" in " ".join(outcome.out.split())
    assert list(tmp_path.iterdir()) == []
