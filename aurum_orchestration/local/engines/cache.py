"""The folder that engines are provisioned into: ``AURUM_ENGINES_HOME``, by default ``~/.cache/aurum-engines``.

An engine has a folder of its own there, named after its version. It is made under another name and renamed when
it is complete, so whoever finds the folder finds all of it; a lock per engine makes a second process wait.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aurum_orchestration.errors import ProvisioningError

Tell = Callable[[str], None]
"""Takes one line that says what is being done."""


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

    def find(self) -> Path | None:
        """Its folder, None when it is not provisioned."""
        return self.folder if self.folder.is_dir() else None

    def provision(self, tell: Tell) -> Path:
        """Its folder, made now unless it is there. Raises ProvisioningError."""
        from filelock import FileLock

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


def verify(file: Path, sha256: str) -> None:
    """Hold a file against its checksum; one that differs is removed. Raises ProvisioningError."""
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != sha256:
        file.unlink()
        raise ProvisioningError(
            f"{file.name} is not what was published: its SHA-256 is {found}, expected {sha256}",
            hint="Remove it from Maven's local repository, then try again; check the mirror it comes from.",
        )


def run(
    command: Sequence[str | Path],
    *,
    needs: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    heard: Callable[[str], None] | None = None,
) -> str:
    """Run a tool to its end and give what it printed. ``needs`` says how to get the tool.

    ``heard`` takes each line while the tool runs, also one that the next line overwrites, as progress is shown.
    Raises ProvisioningError with the end of the output.
    """
    tool = str(command[0])
    if shutil.which(tool) is None:
        raise ProvisioningError(f"{tool} is not installed", hint=needs)
    said: list[str] = []
    with subprocess.Popen(  # noqa: S603 - the command is ours
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,  # a carriage return ends a line, too
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            said.append(line)
            if heard is not None:
                heard(line.strip())
    if process.returncode:
        end = "\n".join(line for line in "".join(said).strip().splitlines()[-40:] if not re.match("Progress ", line))
        raise ProvisioningError(f"`{' '.join(map(str, command))}` ended with {process.returncode}:\n{end[-2000:]}")
    return "".join(said)
