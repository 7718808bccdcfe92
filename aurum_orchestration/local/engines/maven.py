"""Artifacts of the Maven registry, fetched by ``mvn`` with the machine's own settings."""

from __future__ import annotations

import re
import time
from pathlib import Path

from aurum_orchestration.local.engines.cache import Tell, run, verify

NEEDS = "Maven fetches this engine: apt-get install maven (or your system's package) gives it."
SECONDS_BETWEEN_LINES = 5.0
"""How often a download is told of."""

PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"


def fetch(coordinates: str, folder: Path, *, sha256: str = "", tell: Tell | None = None) -> Path:
    """Copy one artifact, ``group:name:version[:packaging[:classifier]]``, into the folder; the path of the copy.

    What it depends on stays away. ``tell`` hears every few seconds how far it is, ``sha256`` is the checksum that
    the copy must have. Raises ProvisioningError.
    """
    _, name, version, packaging, classifier = (*coordinates.split(":"), *["jar", ""][coordinates.count(":") - 2 :])
    file = f"{name}-{version}{f'-{classifier}' if classifier else ''}.{packaging}"
    run(
        # without -B and -q Maven shows how far it is
        ["mvn", "-Dstyle.color=never", f"{PLUGIN}:get", "-Dtransitive=false", f"-Dartifact={coordinates}"],
        needs=NEEDS,
        heard=_progress(file, tell) if tell else None,
    )
    run(
        ["mvn", "-B", "-q", "-o", f"{PLUGIN}:copy", f"-Dartifact={coordinates}", f"-DoutputDirectory={folder}"],
        needs=NEEDS,
    )
    if sha256:
        verify(folder / file, sha256)
    return folder / file


def _progress(file: str, tell: Tell) -> Tell:
    """What tells of a line of Maven's, of one every few seconds, how far it is with the file."""
    last = [time.monotonic()]

    def heard(line: str) -> None:
        found = re.match(r"Progress \(\d+\): (.*[MG]B)", line)
        if found and time.monotonic() - last[0] >= SECONDS_BETWEEN_LINES:
            last[0] = time.monotonic()
            tell(f"{file}: {found[1].strip()}")

    return heard
