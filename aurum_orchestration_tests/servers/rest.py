"""Iceberg's own REST catalog server: the fixture that the Iceberg project publishes for tests, with what it needs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from aurum_orchestration.local.engines.cache import Engine, Tell, run
from aurum_orchestration.local.engines.maven import NEEDS, PLUGIN

ICEBERG = "1.11.0"
MAIN_CLASS = "org.apache.iceberg.rest.RESTCatalogServer"
_TOGETHER = (
    f"org.apache.iceberg:iceberg-core:{ICEBERG}",
    f"org.apache.iceberg:iceberg-aws:{ICEBERG}",
    "org.eclipse.jetty.ee10:jetty-ee10-servlet:12.1.1",
    "org.eclipse.jetty.compression:jetty-compression-server:12.1.1",
    "org.eclipse.jetty.compression:jetty-compression-gzip:12.1.1",
    "org.slf4j:slf4j-simple:2.0.17",
    "org.xerial:sqlite-jdbc:3.50.3.0",
)
_ALONE = (
    f"org.apache.iceberg:iceberg-open-api:{ICEBERG}:jar:test-fixtures",
    f"org.apache.iceberg:iceberg-core:{ICEBERG}:jar:tests",
    # with all they need inside
    f"org.apache.iceberg:iceberg-aws-bundle:{ICEBERG}",
    "org.apache.hadoop:hadoop-client-api:3.4.1",
    "org.apache.hadoop:hadoop-client-runtime:3.4.1",
)


def _make(folder: Path, tell: Tell) -> None:
    tell("Maven fetches some 40 archives, 130 MB")
    _fetch_all(_TOGETHER, folder, alone=_ALONE)


ENGINE = Engine("rest", "Iceberg's REST catalog", f"{ICEBERG}", "a minute with Maven", _make)


def _fetch_all(coordinates: Sequence[str], folder: Path, alone: Sequence[str]) -> None:
    """Copy artifacts and all they need at run time into the folder, one version of each; those ``alone`` without.

    Raises ProvisioningError.
    """
    wanted = "".join([*map(_dependency, coordinates), *(_dependency(one, _NOTHING_ELSE) for one in alone)])
    with tempfile.TemporaryDirectory() as project:
        pom = Path(project) / "pom.xml"
        pom.write_text(_POM.format(dependencies=wanted), encoding="utf-8")
        goal = f"{PLUGIN}:copy-dependencies"
        run(
            ["mvn", "-B", "-q", "-f", pom, goal, "-DincludeScope=runtime", f"-DoutputDirectory={folder}"],
            needs=NEEDS,
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
