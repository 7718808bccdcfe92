"""The folder that engines are provisioned into: ``AURUM_ENGINES_HOME``, by default ``~/.cache/aurum-engines``.

An engine has a folder of its own there, named after its version. It is made under another name and renamed when
it is complete, so whoever finds the folder finds all of it; a lock per engine makes a second process wait.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

Tell = Callable[[str], None]
"""Takes one line that says what is being done."""


class ProvisioningError(Exception):
    """An engine cannot be had; the text says why, and what to do."""


@dataclass(frozen=True)
class Engine:
    """How to get one engine.

    ``name`` is what the command line and AURUM_REQUIRE_ENGINES call it, ``title`` what people call it, ``version``
    what the folder is named after, ``cost`` what provisioning takes, and ``make`` fills an empty folder with it.
    Raises ProvisioningError from ``make``.
    """

    name: str
    title: str
    version: str
    cost: str
    make: Callable[[Path, Tell], None]

    @property
    def folder(self) -> Path:
        """Where it is once it is complete."""
        return home() / f"{self.name}-{self.version}"

    @property
    def command(self) -> str:
        """What provisions it."""
        return f".venv/bin/python -m aurum_orchestration_tests.servers {self.name}"

    @property
    def absence(self) -> str:
        """Why a test that needs it cannot run, and what helps."""
        return f"{self.title} is not provisioned ({self.cost}, once): {self.command}"

    def find(self) -> Path | None:
        """Its folder, None when it is not provisioned."""
        return self.folder if self.folder.is_dir() else None

    def provision(self, tell: Tell) -> Path:
        """Its folder, made now unless it is there. Raises ProvisioningError."""
        home().mkdir(parents=True, exist_ok=True)
        with FileLock(home() / f"{self.name}.lock"):
            if (there := self.find()) is not None:
                tell("is there already")
                return there
            draft = Path(tempfile.mkdtemp(prefix=f".{self.name}-", dir=home()))
            try:
                self.make(draft, tell)
                # another user may run it: PostgreSQL refuses to run as root
                draft.chmod(0o755)
                draft.rename(self.folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            return self.folder


def home() -> Path:
    """The folder of all engines."""
    return Path(os.environ.get("AURUM_ENGINES_HOME") or "~/.cache/aurum-engines").expanduser().absolute()


def run(
    command: Sequence[str | Path], *, needs: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Run a tool to its end and give what it printed. ``needs`` says how to get the tool.

    Raises ProvisioningError with the end of the output.
    """
    tool = str(command[0])
    if shutil.which(tool) is None:
        raise ProvisioningError(f"{tool} is not installed. {needs}")
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise ProvisioningError(f"`{' '.join(map(str, command))}` ended with {done.returncode}:\n{said}")
    return done.stdout
