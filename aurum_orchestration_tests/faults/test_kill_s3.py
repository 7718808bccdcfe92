"""kill -9 of `aurum run` on an object store: the proxy between them kills it at a request that writes or deletes."""

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

from aurum_orchestration.maintenance.backends.iceberg.vacuum.orphans import QUARANTINE
from aurum_orchestration_tests.command import aurum_process
from aurum_orchestration_tests.conformance.warehouses import SECRETS, fleet_of
from aurum_orchestration_tests.integration.iceberg.support import append_numbers, fields, make_table
from aurum_orchestration_tests.integration.objects.test_object_store import put, settled, strays_in
from aurum_orchestration_tests.integration.trino.upkeep import referred_to
from aurum_orchestration_tests.servers.breaking_proxy import Answer, Forward, Proxy, breaking_proxy
from aurum_orchestration_tests.servers.object_store import ObjectStore

pytestmark = pytest.mark.timeout(300)

BELOW = {"override_floor": "true", "override_reason": "a test"}
VACUUM = {"older_than_days": "0", "quarantine": "false", "quarantine_days": "0", **BELOW}
MOVES = {"older_than_days": "0", **BELOW}
EXPIRY = {"retention_days": "0", "retain_last": "1", **BELOW}
DELETES, COPIES, METADATA = r"^POST .*[?&]delete", r"^PUT .*stray", r"^PUT .*\.metadata\.json"


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

    def start(self, operation: str, given: Mapping[str, str]) -> subprocess.Popen[str]:
        parameters = (f"--parameter={key}={value}" for key, value in given.items())
        asked = ("run", "--table=lake.ns.t", f"--operation={operation}", *parameters, "--output=json")
        return aurum_process(*asked, AURUM_HOME=str(self.home), **self.environment)

    def killed_at(
        self, request: str, operation: str, given: Mapping[str, str], *, arrives: bool, earlier: int = 0
    ) -> None:
        """Run, and kill it when it makes such a request, which takes effect or never arrives; then let it be over."""
        victim: list[subprocess.Popen[str]] = []

        def kills(forward: Forward) -> Answer:
            if arrives:
                forward()
            victim[0].send_signal(signal.SIGKILL)
            return None

        self.proxy.breaks(request, kills, skip=earlier)
        with self.start(operation, given) as process:
            victim.append(process)
            told = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, told
        self.proxy.heal()

    def run(self, operation: str = "vacuum", given: Mapping[str, str] = VACUUM) -> str:
        """Its status."""
        process = self.start(operation, given)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return str(json.loads(out)[0]["status"])

    def expire_lease(self) -> None:
        with closing(sqlite3.connect(self.home / "history.db")) as database, database:
            database.execute("update aurum_leases set expires_at = '2000-01-01 00:00:00.000000'")

    def finish(self, before: list[int]) -> None:
        """Vacuum until nothing is left that the table does not refer to; its rows stay."""
        self.expire_lease()
        assert self.run() in {"completed", "skipped"}
        assert self.rows() == before
        assert strays_in(self.store, self.catalog.load_table("ns.t")) == set()
        settled()
        assert self.run() in {"completed", "skipped"}  # what the killed run noted of itself goes, too
        assert set(self.store.objects(self.bucket)) == referred_to(self.catalog.load_table("ns.t"))


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
    [
        (5, 0, True, 0),
        pytest.param(5, 0, False, 5, marks=pytest.mark.thorough),
        pytest.param(1200, 1, False, 200, marks=pytest.mark.thorough, id="between two batches"),
    ],
)
def test_killed_while_it_deletes(strays: int, earlier: int, arrives: bool, left: int, shore: Shore) -> None:
    """``earlier`` deletes go through; the next one takes effect, or never arrives."""
    table = shore.catalog.load_table("ns.t")
    put(shore.store, table, strays)
    settled()
    before = shore.rows()
    shore.killed_at(DELETES, "vacuum", VACUUM, arrives=arrives, earlier=earlier)
    assert shore.rows() == before
    assert len(strays_in(shore.store, table)) == left
    shore.finish(before)


@pytest.mark.thorough
@pytest.mark.parametrize("arrives", [True, False])
@pytest.mark.parametrize("request_", [COPIES, DELETES], ids=["copy", "delete"])
def test_killed_while_it_sets_aside(request_: str, arrives: bool, shore: Shore) -> None:
    """A move is a copy and a delete: whatever was done of it, no file is lost, and the next run sets aside the rest."""
    table = shore.catalog.load_table("ns.t")
    names = {path.rpartition("/")[2] for path in put(shore.store, table, 5)}
    settled()
    before = shore.rows()
    shore.killed_at(request_, "vacuum", MOVES, arrives=arrives, earlier=2 if request_ == COPIES else 0)
    assert shore.rows() == before
    assert {path.rpartition("/")[2] for path in strays_in(shore.store, table)} == names

    shore.expire_lease()
    settled()
    assert shore.run("vacuum", MOVES) in {"completed", "skipped"}
    assert shore.rows() == before
    found = strays_in(shore.store, table)
    assert {path.rpartition("/")[2] for path in found} == names
    assert all(f"/{QUARANTINE}/" in path for path in found)
    shore.finish(before)


@pytest.mark.thorough
@pytest.mark.parametrize("arrives", [True, False])
@pytest.mark.parametrize("request_", [METADATA, DELETES], ids=["commit", "delete"])
def test_killed_while_it_expires(request_: str, arrives: bool, shore: Shore) -> None:
    """Before its commit nothing expired; after it what nobody deleted is an orphan, which the next vacuum removes."""
    append_numbers(shore.catalog.load_table("ns.t"), files=1)  # two snapshots
    before = shore.rows()
    settled()
    # the first delete is that of the file that told the storage's time
    shore.killed_at(request_, "retention", EXPIRY, arrives=arrives, earlier=int(request_ == DELETES))
    assert shore.rows() == before
    assert len(shore.catalog.load_table("ns.t").snapshots()) == (2 if request_ == METADATA else 1)

    shore.expire_lease()
    assert shore.run("retention", EXPIRY) in {"completed", "skipped"}
    assert len(shore.catalog.load_table("ns.t").snapshots()) == 1
    settled()
    shore.finish(before)
