"""kill -9 of `aurum run` while a vacuum deletes on an object store: the proxy between them kills it at a request."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.types import LongType

from aurum_orchestration_tests.command import aurum_process
from aurum_orchestration_tests.conformance.warehouses import SECRETS, fleet_of
from aurum_orchestration_tests.integration.iceberg.support import append_numbers, fields, make_table
from aurum_orchestration_tests.integration.objects.test_object_store import put, settled, strays_in
from aurum_orchestration_tests.integration.trino.upkeep import referred_to
from aurum_orchestration_tests.servers.breaking_proxy import Answer, Forward, Proxy, breaking_proxy
from aurum_orchestration_tests.servers.object_store import ObjectStore

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(300)]

VACUUM = {
    "older_than_days": "0",
    "quarantine": "false",
    "quarantine_days": "0",
    "override_floor": "true",
    "override_reason": "a test",
}
DELETES = r"^POST .*[?&]delete"


@dataclass(frozen=True)
class Shore:
    """A table on an object store behind a proxy, and the command that maintains it."""

    store: ObjectStore
    bucket: str
    catalog: SqlCatalog
    proxy: Proxy
    home: Path
    environment: Mapping[str, str]

    def rows(self) -> list[int]:
        found: list[int] = self.catalog.load_table("ns.t").scan().to_arrow()["id"].to_pylist()
        return sorted(found)

    def start(self) -> subprocess.Popen[str]:
        parameters = (f"--parameter={key}={value}" for key, value in VACUUM.items())
        asked = ("run", "--table=lake.ns.t", "--operation=vacuum", *parameters, "--output=json")
        return aurum_process(*asked, AURUM_HOME=str(self.home), **self.environment)

    def run(self) -> str:
        """Its status."""
        process = self.start()
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return str(json.loads(out)[0]["status"])

    def expire_lease(self) -> None:
        with closing(sqlite3.connect(self.home / "history.db")) as database, database:
            database.execute("update aurum_leases set expires_at = '2000-01-01 00:00:00.000000'")


@pytest.fixture
def shore(s3: ObjectStore, bucket: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shore]:
    with breaking_proxy(s3.endpoint) as proxy:
        keys = s3.at(proxy.url).properties
        properties = {"type": "sql", "uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"s3://{bucket}/wh", **keys}
        fleet = tmp_path / "fleet.yaml"
        fleet.write_text(fleet_of(request, **properties))
        environment = {"AURUM_FLEET": str(fleet), **{SECRETS[key]: keys[key] for key in SECRETS}}
        with closing(SqlCatalog("lake", **properties)) as catalog:
            catalog.create_namespace("ns")
            table = make_table(catalog, fields(id=LongType()))
            append_numbers(table, files=4)
            yield Shore(s3, bucket, catalog, proxy, tmp_path, environment)


@pytest.mark.parametrize(
    ("strays", "earlier", "arrives", "left"),
    [(5, 0, True, 0), (5, 0, False, 5), pytest.param(1200, 1, False, 200, id="between two batches")],
)
def test_killed_while_it_deletes(strays: int, earlier: int, arrives: bool, left: int, shore: Shore) -> None:
    """``earlier`` deletes go through; the next one takes effect, or never arrives."""
    table = shore.catalog.load_table("ns.t")
    put(shore.store, table, strays)
    settled()
    before = shore.rows()
    victim: list[subprocess.Popen[str]] = []

    def kills(forward: Forward) -> Answer:
        if arrives:
            forward()
        victim[0].send_signal(signal.SIGKILL)
        return None

    shore.proxy.breaks(DELETES, kills, skip=earlier)
    with shore.start() as process:
        victim.append(process)
        process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    shore.proxy.heal()
    assert shore.rows() == before
    assert len(strays_in(shore.store, table)) == left

    shore.expire_lease()
    assert shore.run() in {"completed", "skipped"}
    assert shore.rows() == before
    assert strays_in(shore.store, table) == set()
    settled()
    assert shore.run() in {"completed", "skipped"}  # what the killed run noted of itself goes, too
    assert set(shore.store.objects(shore.bucket)) == referred_to(shore.catalog.load_table("ns.t"))
