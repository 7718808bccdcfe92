"""Artifacts of the Maven registry, fetched by ``mvn`` with the machine's own settings."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from aurum_orchestration_tests.servers.cache import run

_NEEDS = "Maven fetches this engine: apt-get install maven (or your system's package) gives it."
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"


def fetch(coordinates: str, folder: Path) -> Path:
    """Copy one artifact, ``group:name:version[:packaging[:classifier]]``, into the folder; the path of the copy.

    What it depends on stays away. Raises ProvisioningError.
    """
    _, name, version, packaging, classifier = (*coordinates.split(":"), *["jar", ""][coordinates.count(":") - 2 :])
    run(["mvn", "-B", "-q", f"{_PLUGIN}:get", "-Dtransitive=false", f"-Dartifact={coordinates}"], needs=_NEEDS)
    run(
        ["mvn", "-B", "-q", "-o", f"{_PLUGIN}:copy", f"-Dartifact={coordinates}", f"-DoutputDirectory={folder}"],
        needs=_NEEDS,
    )
    return folder / f"{name}-{version}{f'-{classifier}' if classifier else ''}.{packaging}"


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
