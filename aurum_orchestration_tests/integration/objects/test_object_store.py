"""A real S3-compatible store: in bulk, in parts, failing, spelled in three ways, without a key in the output."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table
from pyiceberg.types import LongType, StringType

from aurum_orchestration.errors import BackendUnavailableError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.compact import handler as compaction
from aurum_orchestration.maintenance.backends.iceberg.vacuum import handler as vacuum
from aurum_orchestration.maintenance.backends.iceberg.vacuum.quarantine import restore_quarantine
from aurum_orchestration.maintenance.operations.compaction import CompactionParameters
from aurum_orchestration.maintenance.operations.vacuum import VacuumParameters
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.settings import AurumSettings
from aurum_orchestration_tests.conformance import warehouses
from aurum_orchestration_tests.integration.iceberg.support import append, append_numbers, carry_out, fields, make_table
from aurum_orchestration_tests.servers.breaking_proxy import Proxy, breaking_proxy, hangs_up, slow_down
from aurum_orchestration_tests.servers.object_store import CONNECTIONS, ObjectStore

ID = TableId("lake", ("ns", "t"))
NOW = {"older_than_days": 0, "override_floor": True, "override_reason": "a test"}


@pytest.fixture
def proxy(s3: ObjectStore) -> Iterator[Proxy]:
    with breaking_proxy(s3.endpoint) as between:
        yield between


@pytest.fixture
def table(s3: ObjectStore, proxy: Proxy, bucket: str, tmp_path: Path) -> Iterator[Table]:
    """An empty table whose storage is reached through the proxy."""
    properties = {"uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"s3://{bucket}/wh", **s3.at(proxy.url).properties}
    with closing(SqlCatalog("lake", **properties)) as catalog:
        catalog.create_namespace("ns")
        yield make_table(catalog, fields(id=LongType()))


def put(store: ObjectStore, table: Table, count: int, folder: str = "data") -> list[str]:
    """Objects of a few bytes under the table's location that nothing refers to."""
    client = store.client()
    bucket, _, root = table.location().removeprefix("s3://").partition("/")
    keys = [f"{root}/{folder}/stray {number:06d}%2F.parquet" for number in range(count)]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(lambda key: client.put_object(Bucket=bucket, Key=key, Body=b"stray"), keys))
    return [f"{bucket}/{key}" for key in keys]


def settled() -> None:
    """Wait until what was just written is old: S3 keeps whole seconds."""
    time.sleep(1.1)


def plan_vacuum(table: Table, **given: Any) -> Any:
    return vacuum.plan(table.catalog.load_table(table.name()), ID, VacuumParameters(**{**NOW, **given}))


def strays_in(store: ObjectStore, table: Table) -> set[str]:
    bucket = table.location().removeprefix("s3://").split("/")[0]
    return {path for path in store.objects(bucket) if "stray" in path}


@pytest.mark.thorough
def test_orphans_are_deleted_by_the_thousand(s3: ObjectStore, proxy: Proxy, table: Table) -> None:
    append_numbers(table, files=2)
    put(s3, table, 1200)
    settled()
    plan = plan_vacuum(table, quarantine=False)
    assert len(plan.steps[0].detail["files"]) == 1200
    before = len(proxy.requests)
    tally = carry_out(vacuum.execution(plan, table.catalog.load_table("ns.t")))
    assert tally.metrics["files_deleted"] == 1200
    assert strays_in(s3, table) == set()
    # two for the orphans, one for the file that told the time
    assert len(proxy.sent(r"^POST .*[?&]delete")) == 3
    assert not proxy.sent(r"^DELETE .*stray")
    assert len(proxy.requests) - before < 60
    assert table.refresh().scan().to_arrow().num_rows == 20


def test_a_quarantine_and_the_way_back(s3: ObjectStore, proxy: Proxy, table: Table) -> None:
    append_numbers(table, files=2)
    paths = put(s3, table, 30)
    settled()
    before = set(s3.objects(paths[0].split("/")[0]))
    tally = carry_out(vacuum.execution(plan_vacuum(table), table.catalog.load_table("ns.t")))
    assert tally.metrics["files_quarantined"] == 30
    assert not set(paths) & set(s3.objects(paths[0].split("/")[0]))
    restored = restore_quarantine(table.catalog.load_table("ns.t"), "operation-1")
    assert (restored.files, restored.conflicts, restored.failures) == (30, [], [])
    assert set(s3.objects(paths[0].split("/")[0])) == before


@pytest.mark.parametrize(
    "scheme", ["s3a", pytest.param("s3n", marks=pytest.mark.thorough), pytest.param("s3", marks=pytest.mark.thorough)]
)
def test_one_store_has_three_names(s3: ObjectStore, table: Table, scheme: str) -> None:
    """Data files recorded as s3a:// by another engine are no orphans of a table at s3://."""
    own = table.location().replace("s3://", f"{scheme}://")
    with table.transaction() as change:
        change.set_properties({"write.data.path": f"{own}/data"})
    table.refresh()
    table.append(pa.table({"id": pa.array([1, 2, 3], pa.int64())}))
    assert {path.split(":")[0] for path in table.inspect.files()["file_path"].to_pylist()} == {scheme}
    put(s3, table, 2)
    settled()
    plan = plan_vacuum(table, quarantine=False)
    assert len(plan.steps[0].detail["files"]) == 2
    carry_out(vacuum.execution(plan, table.catalog.load_table("ns.t")))
    assert table.refresh().scan().to_arrow().num_rows == 3
    assert strays_in(s3, table) == set()


def compact(table: Table) -> Any:
    plan = compaction.plan(table.catalog.load_table("ns.t"), ID, CompactionParameters(min_input_files=2))
    assert plan.steps
    return carry_out(compaction.execution(plan, table.catalog.load_table("ns.t")))


@pytest.mark.thorough
@pytest.mark.parametrize("how", [slow_down, hangs_up])
def test_what_passes_is_not_even_noticed(proxy: Proxy, table: Table, how: Any) -> None:
    append_numbers(table, files=6)
    for method in ("GET", "PUT", "HEAD"):
        proxy.breaks(rf"^{method} ", how, times=2)
    compact(table)
    proxy.heal()
    assert (table.refresh().scan().to_arrow().num_rows, len(table.inspect.files())) == (60, 1)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "broken", [r"^GET .*\.parquet", r"^GET .*\.avro", r"^(PUT|POST) .*\.parquet", r"^PUT .*\.avro"]
)
def test_a_store_that_goes_on_failing_is_a_transient_problem(proxy: Proxy, table: Table, broken: str) -> None:
    append_numbers(table, files=6)
    location = table.catalog.load_table("ns.t").metadata_location
    proxy.breaks(broken, slow_down)
    with pytest.raises(BackendUnavailableError) as caught:
        compact(table)
    assert caught.value.transient
    proxy.heal()
    assert table.catalog.load_table("ns.t").metadata_location == location
    compact(table)
    assert table.refresh().scan().to_arrow().num_rows == 60


def test_a_store_that_cannot_be_listed_is_a_transient_problem(proxy: Proxy, table: Table) -> None:
    append_numbers(table, files=2)
    proxy.breaks(r"list-type=2", slow_down)
    with pytest.raises(BackendUnavailableError):
        plan_vacuum(table)


@pytest.mark.thorough
def test_deletions_that_fail_are_told_and_done_by_the_next_vacuum(s3: ObjectStore, proxy: Proxy, table: Table) -> None:
    append_numbers(table, files=2)
    put(s3, table, 5)
    settled()
    plan = plan_vacuum(table, quarantine=False)
    proxy.breaks(r"[?&]delete", slow_down)
    tally = carry_out(vacuum.execution(plan, table.catalog.load_table("ns.t")))
    assert tally.metrics["files_left"] == 5
    assert "SlowDown" in tally.warnings[0]
    proxy.heal()
    assert carry_out(vacuum.execution(plan, table.catalog.load_table("ns.t"))).metrics["files_deleted"] == 5


def rows_of(table: Table) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table.refresh().scan().to_arrow().sort_by("id").to_pylist()
    return found


@pytest.mark.thorough
def test_a_large_file_is_written_in_parts(s3: ObjectStore, proxy: Proxy, table: Table) -> None:
    with table.update_schema() as change:
        change.add_column("noise", StringType())
    noise = np.random.default_rng(7).bytes(11_000_000).hex()
    rows = 5500
    for start in (0, rows):
        step = len(noise) // (2 * rows)
        texts = [noise[(start + row) * step : (start + row + 1) * step] for row in range(rows)]
        append(table.refresh(), {"id": range(start, start + rows), "noise": texts})
    before = rows_of(table)
    proxy.requests.clear()
    compact(table)
    assert len(proxy.sent(r"^PUT .*\.parquet\?partNumber=")) >= 2
    assert rows_of(table) == before


async def test_no_key_is_in_anything_that_is_told(
    request: pytest.FixtureRequest, s3: ObjectStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "aurum_orchestration")
    with warehouses.s3(request) as warehouse:
        append_numbers(make_table(warehouse.catalog, fields(id=LongType())), files=8)
        fleet = tmp_path / "fleet.yaml"
        fleet.write_text(warehouse.fleet)
        settings = AurumSettings(home=tmp_path, fleet=fleet, history_url=f"sqlite:///{tmp_path}/history.db")
        told: list[str] = []
        async with MaintenanceService(settings) as service:
            ask = {"backend_type": "lake", "operation_type": "compaction", "target_table": "lake.ns.t"}
            given = {"min_input_files": 2}
            for dry in (True, False):
                result = await service.execute_maintenance(**ask, dry_run=dry, parameters=given)  # type: ignore[arg-type]
                told.append(result.model_dump_json())
                assert result.problem is None
            append_numbers(warehouse.catalog.load_table("ns.t"), files=8)
            (broken,) = [path for path in s3.objects(request.getfixturevalue("bucket")) if "00000-" in path][:1]
            for path in s3.objects(request.getfixturevalue("bucket")):
                if path.endswith(".parquet"):
                    s3.system().delete_file(path)
            result = await service.execute_maintenance(**ask, parameters=given)  # type: ignore[arg-type]
            assert result.problem is not None, broken
            told += [result.model_dump_json(), *(str(one) for one in service.history.operations())]
    told += [record.getMessage() for record in caplog.records]
    told += [content.decode("latin-1") for content in warehouses.everything_in(tmp_path).values()]
    assert json.dumps(told).find(s3.secret_key) == -1


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_many_keys_are_listed_by_the_thousand(s3: ObjectStore, proxy: Proxy, table: Table) -> None:
    count = int(os.environ.get("AURUM_TEST_KEYS", "5000"))
    append_numbers(table, files=2)
    put(s3, table, count)
    settled()
    began = time.monotonic()
    plan = plan_vacuum(table, quarantine=False)
    print(f"\n{count} keys: plan in {time.monotonic() - began:.1f} s, {len(proxy.sent('list-type=2'))} listings")
    assert len(plan.steps[0].detail["files"]) == count
    assert len(proxy.sent("list-type=2")) <= count // 1000 + 10
    began = time.monotonic()
    tally = carry_out(vacuum.execution(plan, table.catalog.load_table("ns.t")))
    print(f"deleted in {time.monotonic() - began:.1f} s")
    assert tally.metrics["files_deleted"] == count
    assert strays_in(s3, table) == set()
