"""Artifacts of the Maven registry, fetched by ``mvn`` with the machine's own settings."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from aurum_orchestration.local.engines.cache import Tell, run, verify

_NEEDS = "Maven fetches this engine: apt-get install maven (or your system's package) gives it."
SECONDS_BETWEEN_LINES = 5.0
"""How often a download is told of."""

_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"


def fetch(coordinates: str, folder: Path, *, sha256: str = "", tell: Tell | None = None) -> Path:
    """Copy one artifact, ``group:name:version[:packaging[:classifier]]``, into the folder; the path of the copy.

    What it depends on stays away. ``tell`` hears every few seconds how far it is, ``sha256`` is the checksum that
    the copy must have. Raises ProvisioningError.
    """
    _, name, version, packaging, classifier = (*coordinates.split(":"), *["jar", ""][coordinates.count(":") - 2 :])
    file = f"{name}-{version}{f'-{classifier}' if classifier else ''}.{packaging}"
    run(
        # without -B and -q Maven shows how far it is
        ["mvn", "-Dstyle.color=never", f"{_PLUGIN}:get", "-Dtransitive=false", f"-Dartifact={coordinates}"],
        needs=_NEEDS,
        heard=_progress(file, tell) if tell else None,
    )
    run(
        ["mvn", "-B", "-q", "-o", f"{_PLUGIN}:copy", f"-Dartifact={coordinates}", f"-DoutputDirectory={folder}"],
        needs=_NEEDS,
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


def fetch_all(coordinates: Sequence[str], folder: Path, alone: Sequence[str] = ()) -> None:
    """Copy artifacts and all they need at run time into the folder, one version of each; those ``alone`` without.

    Raises ProvisioningError.
    """
    wanted = "".join([*map(_dependency, coordinates), *(_dependency(one, _NOTHING_ELSE) for one in alone)])
    with tempfile.TemporaryDirectory() as project:
        pom = Path(project) / "pom.xml"
        pom.write_text(_POM.format(dependencies=wanted), encoding="utf-8")
        goal = f"{_PLUGIN}:copy-dependencies"
        run(
            ["mvn", "-B", "-q", "-f", pom, goal, "-DincludeScope=runtime", f"-DoutputDirectory={folder}"],
            needs=_NEEDS,
        )


_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>engines</groupId><artifactId>engine</artifactId><version>1</version>
  <dependencies>{dependencies}</dependencies>
</project>
"""


_NOTHING_ELSE = "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>"


def _dependency(coordinates: str, more: str = "") -> str:
    names = ("groupId", "artifactId", "version", "type", "classifier")
    parts = zip(names, coordinates.split(":"), strict=False)
    return f"<dependency>{''.join(f'<{name}>{escape(part)}</{name}>' for name, part in parts)}{more}</dependency>"
