"""A real Spark with Apache Iceberg's own library: the judge of what other engines than ours make of a table.

``python -m aurum_orchestration_tests.servers spark`` brings it into the cache folder: pyspark in an environment
of its own, and two jars from Maven Central. It is never a dependency of this project.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aurum_orchestration.errors import ProvisioningError
from aurum_orchestration.local.engines.cache import Engine, Tell, run
from aurum_orchestration.local.engines.maven import fetch
from aurum_orchestration_tests.servers import absence

SPARK, ICEBERG = "4.1.4", "1.12.0"

_JARS = (
    f"org.apache.iceberg:iceberg-spark-runtime-{SPARK.rpartition('.')[0]}_2.13:{ICEBERG}",
    "org.xerial:sqlite-jdbc:3.50.3.0",
)
_SETTINGS = {
    "spark.master": "local[2]",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
}


QUICK_START = {
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.adaptive.enabled": "false",
}
"""What makes many statements on small tables fast, and large ones slow."""


def _make(folder: Path, tell: Tell) -> None:
    run(["java", "-version"], needs="Spark runs on Java 17 or newer: your system's package gives it.")
    tell(f"uv fetches pyspark {SPARK} (430 MB)")
    packages = folder / "python"
    run(
        [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--target", packages, f"pyspark=={SPARK}"],
        needs="Python has it.",
    )
    for jar in _JARS:
        tell(f"Maven fetches {jar}")
        fetch(jar, folder / "jars")


ENGINE = Engine(
    "spark", "Spark with Iceberg", f"{SPARK}-{ICEBERG}", "2 to 4 minutes, 0.5 GB, with Java and Maven", _make
)


class SparkError(Exception):
    """What Spark said instead of an answer."""


class Spark:
    """A running Spark. Use :meth:`catalog` for the tables of a PyIceberg catalog."""

    def __init__(self, worker: subprocess.Popen[bytes], log: Path) -> None:
        self._worker, self._log = worker, log

    def ask(self, do: str, **given: Any) -> Any:
        """Have the worker do something. Raises SparkError."""
        if self._worker.stdin is None or self._worker.stdout is None:
            raise SparkError("the worker has no pipes")
        self._worker.stdin.write(json.dumps({"do": do, **given}).encode() + b"\n")
        self._worker.stdin.flush()
        line = self._worker.stdout.readline()
        if not line:
            raise SparkError(f"Spark ended: {self._log.read_text()[-2000:]}")
        kind, value = pickle.loads(base64.b64decode(line))
        if kind == "error":
            raise SparkError(value)
        return value

    def catalog(self, home: Path, name: str = "lake") -> SparkCatalog:
        """The catalog whose SQLite file and warehouse are in a folder, shared with PyIceberg's ``SqlCatalog``."""
        prefix = f"spark.sql.catalog.{name}"
        settings = {
            prefix: "org.apache.iceberg.spark.SparkCatalog",
            f"{prefix}.type": "jdbc",
            f"{prefix}.uri": f"jdbc:sqlite:{home}/catalog.db",
            f"{prefix}.jdbc.schema-version": "V1",
            f"{prefix}.warehouse": f"file://{home}/warehouse",
            f"{prefix}.cache-enabled": "false",
        }
        return SparkCatalog(self, self.ask("session", settings=settings), name)


class SparkCatalog:
    """One catalog as Spark sees it."""

    def __init__(self, spark: Spark, session: int, name: str) -> None:
        self._spark, self._session, self.name = spark, session, name

    def sql(self, text: str) -> list[dict[str, Any]]:
        """The rows of a statement; tables are named ``lake.ns.t``. Raises SparkError."""
        found: list[dict[str, Any]] = self._spark.ask("sql", session=self._session, text=text)
        return found

    def records(self, table: str, filtered: tuple[str, str, Any] | None = None) -> list[str]:
        """The rows as Iceberg's generic reader gives them, for types that Spark does not have.

        ``filtered`` is a column, an operator such as ``equal``, and a value. Raises SparkError.
        """
        found: list[str] = self._spark.ask("records", session=self._session, table=table, filtered=filtered)
        return found

    def planned(self, table: str, column: str, operator: str, value: Any) -> int:
        """How many files a scan with ``operator`` (such as ``equal``) on a column opens. Raises SparkError."""
        found: int = self._spark.ask(
            "planned", session=self._session, table=table, column=column, operator=operator, value=value
        )
        return found


@contextmanager
def running(folder: Path, *, memory: str = "1500m", settings: Mapping[str, str] | None = None) -> Iterator[Spark]:
    """Spark with two threads in one JVM; its scratch files and its log go to ``folder``.

    Raises ProvisioningError when it is not provisioned.
    """
    engine, log = ENGINE.find(), folder / "spark.log"
    if engine is None:
        raise ProvisioningError(absence(ENGINE))
    options = {
        **_SETTINGS,
        "spark.driver.memory": memory,
        "spark.jars": ",".join(str(path) for path in sorted((engine / "jars").glob("*.jar"))),
        "spark.local.dir": str(folder),
        "spark.sql.warehouse.dir": str(folder / "spark-warehouse"),
        **(settings or {}),
    }
    command: list[str | Path] = [sys.executable, Path(__file__).with_name("spark_worker.py"), json.dumps(options)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(engine / "python"),
        "PYTHONWARNINGS": "",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "TZ": "UTC",
    }
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output
        ) as process,
    ):
        try:
            yield Spark(process, log)
        finally:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
