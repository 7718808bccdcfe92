"""What to install for a module that is missing, as the project's own metadata says."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires

_PROJECT = "aurum-orchestration"
_REQUIREMENT = re.compile(r"(?P<package>[\w.-]+)[^;]*(?:;.*extra\s*==\s*['\"](?P<extra>[\w.-]+)['\"])?")


def how_to_install(module: str) -> str:
    """The command that brings a module: the extra that asks for its package, or the package itself."""
    package = _normal(module.partition(".")[0])
    try:
        asked = [_REQUIREMENT.match(line) for line in requires(_PROJECT) or ()]
    except PackageNotFoundError:  # run from sources that nobody installed
        asked = []
    extras = [found["extra"] or "" for found in asked if found and _normal(found["package"]) == package]
    if not extras:
        return f"pip install {package}"
    return f"pip install '{_PROJECT}[{min(extras)}]'" if min(extras) else f"pip install '{_PROJECT}'"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
