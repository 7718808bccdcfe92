"""A real REST catalog for tests: Iceberg's own test server, on Java."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from aurum_orchestration.errors import ProvisioningError
from aurum_orchestration.local.engines.background import free_port
from aurum_orchestration_tests.engines import missing
from aurum_orchestration_tests.servers import absence
from aurum_orchestration_tests.servers.process import running
from aurum_orchestration_tests.servers.rest import ENGINE, MAIN_CLASS


@dataclass(frozen=True)
class RestServer:
    """Where a REST catalog answers, and where its tables lie."""

    uri: str
    warehouse: str


@contextmanager
def rest_server(warehouse: str, properties: Mapping[str, str]) -> Iterator[RestServer]:
    """A REST catalog (a SQLite catalog behind it) whose tables lie in ``warehouse``.

    ``properties`` are those of the server's own catalog, such as ``s3.endpoint``; with ``include-credentials``
    it hands out its storage keys.
    """
    provisioned, java = ENGINE.find(), shutil.which("java")
    if provisioned is None:
        missing("rest", absence(ENGINE))
    if java is None:
        missing("rest", "Java is not installed: the REST catalog needs version 17 or newer")
    folder = Path(tempfile.mkdtemp(prefix="aurum-rest-"))
    port = free_port()
    settings = {
        "warehouse": warehouse,
        "uri": f"jdbc:sqlite:{folder}/catalog.db",
        "jdbc.schema-version": "V1",
        "rest.port": str(port),
        "io-impl": "org.apache.iceberg.io.ResolvingFileIO",
        **properties,
    }
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "AWS_REGION": "us-east-1",
        **{_variable(name): value for name, value in settings.items()},
    }

    command: list[str | Path] = [java, "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    command += [f"-Djava.io.tmpdir={folder}", "-cp", f"{provisioned}/*", MAIN_CLASS]
    uri = f"http://127.0.0.1:{port}"
    try:
        with running(command, lambda: _answers(uri), folder=folder, env=env):
            yield RestServer(uri, warehouse)
    except ProvisioningError as error:
        missing("rest", str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _variable(name: str) -> str:
    """The environment variable that the server reads a catalog property from."""
    return f"CATALOG_{name.replace('-', '__').replace('.', '_').upper()}"


def _answers(uri: str) -> bool:
    try:
        return requests.get(f"{uri}/v1/config", timeout=5).ok
    except requests.RequestException:
        return False
