"""Iceberg's own REST catalog server: the fixture that the Iceberg project publishes for tests, with what it needs."""

from __future__ import annotations

from pathlib import Path

from aurum_orchestration.local.engines import maven
from aurum_orchestration.local.engines.cache import Engine, Tell

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
    maven.fetch_all(_TOGETHER, folder, alone=_ALONE)


ENGINE = Engine("rest", "Iceberg's REST catalog", f"{ICEBERG}", "a minute with Maven", _make)
