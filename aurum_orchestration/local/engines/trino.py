"""Trino with its Iceberg connector: provisioned by Maven, configured for one machine, started without its launcher."""

from __future__ import annotations

import json
import shutil
import tarfile
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path

from aurum_orchestration.errors import ProvisioningError
from aurum_orchestration.local.engines import maven
from aurum_orchestration.local.engines.cache import Engine, Tell
from aurum_orchestration.local.engines.java import find_java

VERSION = "476"
"""The newest one whose server is a Maven artifact."""

JAVA = 24
SERVER = (
    f"io.trino:trino-server-core:{VERSION}:tar.gz",
    "0f388f9967c177ae70a47c099082fc95387f0c3cb96d8000d1d41fc3a5223158",
)
_CONNECTOR = (
    f"io.trino:trino-iceberg:{VERSION}:zip",
    "99edba5b491ed94d599aeb61e0794272d3569d8b563f3bb8569e8a49daa87b6c",
)
_DISK = 1_700_000_000
"""Bytes that provisioning needs for a while: both archives, twice, and what is in them."""

_JVM = (
    "-server",
    "-XX:+UseG1GC",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-OmitStackTraceInFastThrow",
    "-XX:ReservedCodeCacheSize=256M",
    "-XX:+EnableDynamicAgentLoading",
    "-Djdk.attach.allowAttachSelf=true",
    "-Djdk.nio.maxCachedBufferSize=2000000",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
)


def _make(folder: Path, tell: Tell) -> None:
    free = shutil.disk_usage(folder).free
    if free < _DISK:
        raise ProvisioningError(
            f"{folder.parent} has {free / 1e9:.1f} GB left, and Trino needs {_DISK / 1e9:.1f} GB while it is unpacked",
            hint="Make room, or set AURUM_ENGINES_HOME to a folder on another disk.",
        )
    tell(f"Maven fetches the server of Trino {VERSION} (194 MB)")
    archive = maven.fetch(SERVER[0], folder, sha256=SERVER[1], tell=tell)
    tell("checksum verified; unpacking")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    archive.unlink()
    (folder / f"trino-server-core-{VERSION}").rename(folder / "server")
    # of the plugins only the connector is used, and each one takes time at every start
    plugins = folder / "server" / "plugin"
    shutil.rmtree(plugins)
    plugins.mkdir()
    tell("Maven fetches its Iceberg connector (346 MB)")
    archive = maven.fetch(_CONNECTOR[0], folder, sha256=_CONNECTOR[1], tell=tell)
    tell("checksum verified; unpacking")
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(plugins)  # noqa: S202 - its checksum is ours
    archive.unlink()
    (plugins / f"trino-iceberg-{VERSION}").rename(plugins / "iceberg")


ENGINE = Engine(
    "trino", f"Trino {VERSION}", VERSION, f"540 MB, 2 to 5 minutes with Maven; Java {JAVA} or newer to run", _make
)


def jdbc_catalog(name: str, postgres_port: int, warehouse: str) -> dict[str, str]:
    """Trino's properties of the catalog that PyIceberg's ``SqlCatalog(name)`` has in the embedded PostgreSQL."""
    return {
        "connector.name": "iceberg",
        "iceberg.catalog.type": "jdbc",
        "iceberg.jdbc-catalog.catalog-name": name,
        "iceberg.jdbc-catalog.driver-class": "org.postgresql.Driver",
        "iceberg.jdbc-catalog.connection-url": f"jdbc:postgresql://127.0.0.1:{postgres_port}/postgres",
        "iceberg.jdbc-catalog.connection-user": "postgres",
        "iceberg.jdbc-catalog.connection-password": "postgres",
        "iceberg.jdbc-catalog.default-warehouse-dir": warehouse,
        "iceberg.jdbc-catalog.schema-version": "V1",
        "fs.native-local.enabled": "true",
        "local.location": "/",
    }


def configure(
    folder: Path,
    server: Path,
    port: int,
    heap_mb: int,
    catalogs: Mapping[str, Mapping[str, str]],
    *,
    more: Mapping[str, str],
    quick: bool,
) -> list[str | Path]:
    """Write a server's configuration below ``folder`` and give the command that starts it there.

    ``server`` is where Trino is provisioned, ``catalogs`` the properties of each catalog by its name, ``more`` are
    further lines of config.properties. With ``quick`` it starts sooner and runs long statements slower.
    Raises ProvisioningError where there is no Java.
    """
    etc, data = folder / "etc", folder / "data"
    (etc / "catalog").mkdir(parents=True, exist_ok=True)
    data.mkdir(exist_ok=True)
    for name, properties in catalogs.items():
        _write(etc / "catalog" / f"{name}.properties", properties)
    statement_mb = heap_mb // 2
    settings = {
        "coordinator": "true",
        "node-scheduler.include-coordinator": "true",
        "http-server.http.port": str(port),
        "discovery.uri": f"http://127.0.0.1:{port}",
        "node.internal-address": "127.0.0.1",
        "catalog.management": "dynamic",
        "plugin.dir": str(server / "server" / "plugin"),
        "query.max-memory": f"{statement_mb}MB",
        "query.max-memory-per-node": f"{statement_mb}MB",
        **more,
    }
    _write(etc / "config.properties", settings)
    jvm = [f"-Xmx{heap_mb}m", *_JVM, *(["-XX:TieredStopAtLevel=1"] if quick else [])]
    node = {"environment": "local", "id": "local", "data-dir": data, "bind-ip": "127.0.0.1"}
    return [
        find_java(JAVA),
        "-cp",
        f"{server / 'server' / 'lib'}/*",
        *jvm,
        *(f"-Dnode.{key}={value}" for key, value in node.items()),
        f"-Dconfig={etc / 'config.properties'}",
        "io.trino.server.TrinoServer",
    ]


def answers(port: int) -> bool:
    """Whether it takes statements by now."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/info", timeout=5) as answer:
            return json.load(answer)["starting"] is False
    except (OSError, ValueError):
        return False


def _write(file: Path, properties: Mapping[str, str]) -> None:
    file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()), encoding="utf-8")
    file.chmod(0o600)
