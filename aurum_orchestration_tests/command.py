"""Runs the ``aurum`` command for tests: inside this process (fast), or as a process of its own."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import typer.main

from aurum_orchestration.cli.main import main

SCRIPT = Path(sys.executable).with_name("aurum")
"""The command as installed."""

_commands_of = functools.cache(typer.main.get_command)
"""Typer makes all commands anew for each call, a process of a user's does so once."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as JSON: fails when anything else was printed there."""
        return json.loads(self.out)


def aurum(*arguments: str, **environment: str) -> Outcome:
    """Run the command in this process, with these variables added to the environment."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    logger = logging.getLogger("aurum_orchestration")
    handlers, propagate, level = logger.handlers[:], logger.propagate, logger.level
    logger.handlers = []
    code: Any = None
    try:
        with (
            patch.dict(os.environ, environment),
            patch.object(sys, "argv", ["aurum", *arguments]),
            patch.object(typer.main, "get_command", _commands_of),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main()
    except SystemExit as exit_:
        code = exit_.code
    finally:
        logger.handlers, logger.propagate, logger.level = handlers, propagate, level
    return Outcome(code or 0, _text(out), _text(err))


def _text(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


def aurum_process(*arguments: str, before: str = "", **environment: str) -> subprocess.Popen[str]:
    """Start the installed command; with ``before``, that Python code runs first in the same process."""
    program = (
        [str(SCRIPT)]
        if not before
        else [sys.executable, "-c", f"{before}\nfrom aurum_orchestration.cli.main import main\nmain()"]
    )
    return subprocess.Popen(
        [*program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, **environment},
    )


def finished(process: subprocess.Popen[str]) -> Outcome:
    """Wait for the end of a process."""
    out, err = process.communicate(timeout=120)
    return Outcome(process.returncode, out, err)
